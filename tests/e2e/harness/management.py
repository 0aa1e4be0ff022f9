"""Requests to the management API, and to the pages beside it."""

import http.client
import json
import urllib.parse


class Answer:
    """What came back."""

    def __init__(self, response):
        self.status, self.body = response.status, response.read().decode()
        self.headers = response.headers

    def json(self):
        return json.loads(self.body)

    @property
    def reason(self):
        """The stable word of an error."""
        return self.json()["error"]["metadata"]["reason"]


def send(port, method, path, headers=(), body=None):
    """One request; headers are pairs, so that one can come twice."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.putrequest(method, path)
        for name, value in headers:
            connection.putheader(name, value)
        connection.putheader("content-length", str(len(body or b"")))
        connection.endheaders(body)
        return Answer(connection.getresponse())
    finally:
        connection.close()


def ask(gateway, path, token=None, method="GET", body=None, headers=()):
    """A request of who has `token`, with a body as JSON if there is one."""
    headers = list(headers)
    if token:
        headers.append(("authorization", f"Bearer {token}"))
    if body is not None:
        headers.append(("content-type", "application/json"))
        body = json.dumps(body).encode()
    return send(gateway.control_port, method, path, headers, body)


def post_form(gateway, path, **fields):
    """A form, as a browser or an OAuth client posts it."""
    kind = ("content-type", "application/x-www-form-urlencoded")
    return send(gateway.control_port, "POST", path, [kind], urllib.parse.urlencode(fields).encode())
