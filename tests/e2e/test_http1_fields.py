"""Which fields of a head go on, both ways: those on a list and no others. And where operators' pages are not."""

import json
import socket
import threading

import pytest

from harness import ports, raw
from harness.gateway import chat
from harness.routes import provider_text, route_text, target
from harness.waiting import until

ANSWER = json.dumps({
    "id": "x", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}).encode()
# What a provider says of itself and of us, of the client's connection and of its own.
TALKATIVE = [
    "Content-Type: application/json", "Set-Cookie: mark=1; Path=/", "Server: mark", "Alt-Svc: h3=\":443\"", "Via: 1.1 mark",
    "openai-organization: mark", "openai-project: mark", "X-Powered-By: mark", "Strict-Transport-Security: max-age=1",
    "Connection: keep-alive, x-mark", "X-Mark: mark", "Keep-Alive: timeout=1", "Location: /mark", "WWW-Authenticate: mark",
    "Access-Control-Allow-Origin: *", "Content-Security-Policy: mark", "X-Amzn-Trace-Id: mark", "CF-Ray: mark",
    "Cache-Control: public", "X-Request-Id: mark", "X-Tokenroute-Target: mark", "Proxy-Authenticate: mark", "Trailer: x-mark",
]
# All that a client ever reads of an answer in one piece.
TO_CLIENT = {"content-type", "content-length", "date", "connection", "x-request-id", "cache-control", "x-tokenroute-target"}
LIMITS = {f"x-ratelimit-{what}-{of}" for what in ("limit", "remaining", "reset") for of in ("requests", "tokens")}
# All that a provider ever reads of a request with one body.
TO_PROVIDER = {"host", "authorization", "content-type", "content-length", "accept", "accept-encoding", "user-agent"}


class Talkative(threading.Thread):
    """A provider that keeps what it reads and says more than it should."""

    def __init__(self):
        super().__init__(daemon=True)
        self.heads = []
        self.listener = socket.create_server(("127.0.0.1", ports.free()))
        self.base_url = "http://127.0.0.1:%d/v1" % self.listener.getsockname()[1]
        self.start()

    def run(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                data = b""
                while b"\r\n\r\n" not in data or b"]}" not in data:
                    data += connection.recv(65536)
                self.heads.append(data.partition(b"\r\n\r\n")[0].decode())
                head = "\r\n".join(["HTTP/1.1 200 OK", *TALKATIVE, f"Content-Length: {len(ANSWER)}", "", ""])
                connection.sendall(head.encode() + ANSWER)

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


@pytest.fixture
def talkative():
    running = Talkative()
    yield running
    running.close()


@pytest.fixture
def between(start, talkative):
    """A gateway between us and it."""
    text = provider_text("talkative", talkative.base_url) + "\n" + route_text("m", [target("talkative", "m")])
    return start(routes=text)


CLIENT = [
    ("x-api-key", "mark"), ("api-key", "mark"), ("x-goog-api-key", "mark"), ("x_api_key", "mark"), ("OpenAI-Organization", "mark"),
    ("OpenAI-Project", "mark"), ("OpenAI-Beta", "mark"), ("Cookie", "mark=1"), ("X-Forwarded-For", "192.0.2.7"),
    ("X-Forwarded-Host", "mark"), ("X-Forwarded-Proto", "mark"), ("Forwarded", "for=192.0.2.7"), ("X-Real-IP", "192.0.2.7"),
    ("True-Client-IP", "192.0.2.7"), ("Via", "1.1 mark"), ("User-Agent", "mark"), ("Referer", "http://mark/"),
    ("Origin", "http://mark"), ("Proxy-Authorization", "mark"), ("TE", "trailers"), ("Upgrade", "websocket"),
    ("Connection", "upgrade, host, content-length, authorization, x-mark"), ("X-Mark", "mark"), ("Keep-Alive", "mark"),
    ("Accept-Encoding", "mark"), ("Accept", "mark/mark"), ("traceparent", "00-mark"), ("X-Original-URL", "/mark"),
    ("X-HTTP-Method-Override", "mark"), ("X-Stainless-Lang", "mark"), ("Idempotency-Key", "mark"), ("Expect", "100-continue"),
    ("X-Request-Id", "mark"), ("X-Base-URL", "http://mark/"),
]


def test_fields_go_by_lists(between, talkative):
    body = json.dumps(chat("m")).encode()
    request = between.head("/v1/chat/completions", *CLIENT, ("content-length", len(body)))
    answer = raw.exchange(between.address, request + body)
    assert answer.status == 200 and json.loads(answer.body)["choices"]
    # What is left of a name that the provider must not choose is ours.
    names = {name for name, _ in answer.fields}
    assert names <= TO_CLIENT | LIMITS, names - TO_CLIENT - LIMITS
    assert "mark" not in json.dumps(answer.fields) and answer.header("cache-control") == "no-store"

    head, = talkative.heads
    line, *fields = head.split("\r\n")
    assert line == "POST /v1/chat/completions HTTP/1.1"
    names = [field.partition(":")[0].lower() for field in fields]
    assert set(names) <= TO_PROVIDER, set(names) - TO_PROVIDER
    assert len(names) == len(set(names)) and names.count("host") == 1
    assert "mark" not in head and "192.0.2.7" not in head and between.key not in head


# Operators' pages have an address of their own, and answer under names of their own.


def page(gateway, host, path="/healthz", version="1.1"):
    lines = [f"GET {path} HTTP/{version}", *([f"Host: {host}"] if host is not None else []), "", ""]
    answer = raw.exchange(("127.0.0.1", gateway.admin_port), "\r\n".join(lines).encode())
    return answer.status


@pytest.fixture(scope="module")
def named(start_in, tmp_path_factory, provider):
    """A gateway whose pages have a name."""
    folder = tmp_path_factory.mktemp("named") / "edge"
    gateway = start_in(folder, provider=provider)
    text = gateway.config_text()
    gateway.stop()
    gateway.write_config(text.replace("[admin]", '[admin]\nhosts = ["edge.internal"]'))
    return gateway.start()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:9901", "10.0.0.7:80", "[::1]", "[::1]:9901", "localhost",
                                  "LOCALHOST:9901", "edge.internal", "Edge.Internal:9901"])
def test_pages_under_their_names(named, host):
    assert page(named, host) == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:9901", "127.0.0.1.evil.example", "localhost.evil.example",
                                  "edge.internal.evil.example", "xedge.internal", "[edge.internal]"])
def test_pages_under_no_other(named, host):
    for path in ("/healthz", "/readyz", "/metrics", "/admin/targets"):
        assert page(named, host, path) == 421


def test_a_health_check_of_the_old_version_has_no_host(named):
    assert page(named, None, version="1.0") == 200
    assert page(named, None) == 400
    for host in ("", "a/b"):
        assert page(named, host, version="1.0") == 400


@pytest.mark.parametrize("path", ["//metrics", "/x/../metrics", "/%2e/metrics", "/metrics;x", "http://127.0.0.1/metrics", "/metrics%00"])
def test_pages_have_one_path(named, path):
    assert page(named, "127.0.0.1", path) == 400


def test_pages_only_read(named):
    for method in ("POST", "PUT", "DELETE", "PATCH", "TRACE", "OPTIONS", "get"):
        request = raw.head(method, "/metrics").replace(b"host: gateway", b"host: localhost")
        assert raw.exchange(("127.0.0.1", named.admin_port), request).status == 405


def test_the_pages_have_no_calls_and_the_calls_no_pages(named):
    """Neither address serves what is the other's."""
    assert page(named, "127.0.0.1", "/v1/models") == 404
    for path in ("/metrics", "/healthz", "/readyz", "/admin/targets"):
        assert raw.exchange(named.address, named.head(path, method="GET")).status == 404
    until(lambda: named.metric("tokenroute_calls_in_flight") == 0, "no call is in flight")
