"""Requests in HTTP/1 as bytes, and what the gateway must make of each. `KEY` stands for an API key.

A case is good as it is on any connection that was just opened, and says what becomes of it.
"""

import dataclasses
import json

KEY = b"@KEY@"
BODY = json.dumps({"model": "box/echo", "messages": [{"role": "user", "content": "Hello there"}]}).encode()
CHAT = "/v1/chat/completions"


@dataclasses.dataclass(frozen=True)
class Case:
    """One request."""

    name: str
    data: bytes
    # What the client reads; `None` if the connection closes without a word.
    status: int
    # The stable word in the body of a refusal.
    reason: str = None
    # Whether the connection can take another request.
    kept: bool = False
    # Whether the provider sees a request. Whoever is refused reaches nobody.
    reaches: bool = False
    # Why it is right to refuse what both nginx and HAProxy let through.
    stricter: str = None
    # The reason instead, where the bytes come one by one and there is less to be sure of.
    piecewise: str = None

    @property
    def is_head(self):
        """Whether an answer has no body, however long it says that it is."""
        return self.data.startswith(b"HEAD ")


def text(*lines):
    """Lines of a head, and the empty one."""
    return b"".join(line.encode("latin-1") + b"\r\n" for line in (*lines, ""))


def post(*fields, line=f"POST {CHAT} HTTP/1.1", host="Host: gateway", body=BODY):
    """A call with these fields beside its host and key. `Content-Length` is theirs to say."""
    hosts = [host] if host is not None else []
    return text(line, *hosts, "Authorization: Bearer @KEY@", *fields) + body


def whole(*fields, **more):
    """A call that is sound but for what is said of it."""
    return post(*fields, f"Content-Length: {len(BODY)}", **more)


def get(target="/v1/models", *fields, method="GET", version="HTTP/1.1", host="Host: gateway"):
    """A request without a body."""
    return post(*fields, line=f"{method} {target} {version}", host=host, body=b"")


def chunk(data=BODY, size=None, end=b"\r\n"):
    """One chunk; `size` is its line without the end."""
    line = b"%x" % len(data) if size is None else size
    return line + end + data + b"\r\n"


LAST = b"0\r\n\r\n"


def chunked(body, *fields, **more):
    """A call whose body comes in chunks."""
    return post("Transfer-Encoding: chunked", *fields, body=body, **more)


def served(name, data, kept=True, status=200, reaches=True):
    """A request that is as it should be."""
    return Case(name, data, status, kept=kept, reaches=reaches)


def refused(name, data, reason, status=400, kept=False, **more):
    """One that is not."""
    return Case(name, data, status, reason, kept=kept, **more)
