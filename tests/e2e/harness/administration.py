"""Settings as an administrator changes them, by the management API."""

import json
import urllib.parse

from harness import management


class Answer:
    """What came back, read."""

    def __init__(self, answer):
        self.status, self.headers, self.text = answer.status, answer.headers, answer.body
        self.body = json.loads(answer.body) if answer.body else None

    @property
    def reason(self):
        """The stable word of an error."""
        return self.body["error"]["metadata"]["reason"]

    @property
    def paths(self):
        """Where the problems are."""
        return sorted(one["path"] for one in self.body["error"]["metadata"]["problems"])


class Administration:
    """Requests to the control address of a node, by who has a token."""

    def __init__(self, node, token):
        self.port, self.token = node.control_port, token

    def __call__(self, method, path, body=None, if_match=None):
        """A body of bytes is sent as it is, any other as JSON."""
        headers = [("authorization", f"Bearer {self.token}"), ("content-type", "application/json")]
        if if_match is not None:
            headers.append(("if-match", if_match))
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        return Answer(management.send(self.port, method, path, headers, data))

    @staticmethod
    def setting(kind, name):
        """The path of a setting."""
        return f"/api/v1/admin/{kind}/{urllib.parse.quote(name, safe='')}"

    def put(self, kind, name, body, **more):
        """Stores a setting, which is taken."""
        answer = self("PUT", self.setting(kind, name), body, **more)
        assert answer.status == 200, answer.text
        return answer.body
