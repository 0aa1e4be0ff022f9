"""HTTP/2 from those who mean harm, frame by frame: the connection or the stream ends, what it costs is bounded, providers
hear nothing of it, and whoever calls over another connection does not notice."""

import json
import time

import pytest

from harness import calls, frames
from harness.floods import BODY, CALM, FLOODS, MANY, PROTOCOL, bearer
from harness.frames import Cost, Frames, continuation, data, header, ping, reset, window, wire
from harness.gateway import chat
from harness.scale import scaled
from harness.tls import make_certificate
from harness.waiting import until

# Codes of RFC 9113, section 7, beside those of the floods.
NO_ERROR, FLOW, FRAME_SIZE, REFUSED, COMPRESSION = 0, 3, 6, 7, 9
MEBIBYTE = 1 << 20
STREAMS_MAX = 100
# Connections without a call stay, so that it is the flood that ends one.
KEEPALIVE_SECONDS = 60
LIMITS = f"""
[limits]
keepalive_seconds = {KEEPALIVE_SECONDS}
body_idle_seconds = {scaled(15)}
body_total_seconds = {scaled(40)}
write_stall_seconds = {scaled(15)}
first_byte_seconds = {scaled(15)}
head_total_seconds = {scaled(15)}
"""
BYSTANDER = "box/echo+tag-bystander"


@pytest.fixture(scope="module")
def edge(start_in, tmp_path_factory, provider):
    edge = start_in(tmp_path_factory.mktemp("abuse"), provider=provider, listen="h2c = true", sections=LIMITS)
    yield edge
    # Over all that it went through: every call has its record, and one.
    until(lambda: edge.metric("tokenroute_calls_in_flight") == 0, "no call is in flight")
    records = edge.await_records(int(edge.metric("tokenroute_calls_total")))
    assert len({record["call"] for record in records}) == len(records)
    assert edge.metric("tokenroute_panics_total") == 0


@pytest.fixture(scope="module")
def hasty(start_in, tmp_path_factory, provider):
    """One that does not keep connections for long."""
    limits = LIMITS.replace(f"keepalive_seconds = {KEEPALIVE_SECONDS}", f"keepalive_seconds = {scaled(15)}")
    return start_in(tmp_path_factory.mktemp("hasty"), provider=provider, listen="h2c = true", sections=limits)


@pytest.fixture
def gateway(edge):
    """The edge, with nothing in flight and its provider's memory empty."""
    until(lambda: edge.metric("tokenroute_calls_in_flight") == 0, "nothing is in flight")
    edge.provider.forget()
    return edge


@pytest.fixture(scope="module")
def call_seconds(edge):
    """CPU time of an ordinary call on a connection that there is."""
    with Frames(edge.address) as connection:
        for first, count in [(1, 100), (201, 200)]:
            cost = Cost(edge.process.pid)
            for number in range(count):
                stream = first + 2 * number
                connection.send(*ask(connection, edge, stream))
                assert connection.status(stream) == 200 and connection.await_end(stream) == "END_STREAM"
        return cost.cpu_seconds() / 200


def ask(connection, gateway, number, model="box/echo", **more):
    """The frames of a call."""
    body = json.dumps(chat(model, **more)).encode()
    return connection.open(number, connection.head(bearer(gateway))), data(number, body, True)


class Watched:
    """What an attack costs, and how somebody else is served meanwhile."""

    def __init__(self, gateway, call_seconds):
        self.gateway, self.call_seconds = gateway, call_seconds

    def __enter__(self):
        request = self.gateway.request(chat(BYSTANDER))
        self.steady = calls.Warm(lambda: (self.gateway.address, request), 25, connections=4)
        until(lambda: len(self.steady.calls) >= 3, "the bystander is served")
        self.before = len(self.steady.calls)
        self.cost, self.began = Cost(self.gateway.process.pid), time.monotonic()
        return self

    def __exit__(self, failed, *_):
        # Until after the attack, so that what it leaves behind is seen as well.
        time.sleep(0.2)
        self.seconds, self.grown = self.cost.cpu_seconds(), self.cost.grown_bytes()
        self.lasted = time.monotonic() - self.began
        self.served = self.steady.stop()
        if not failed:
            assert all(one.status == 200 and one.complete for one in self.served), [one.error for one in self.served]

    def check(self, frames_sent, mebibytes=16, strangers=0):
        """The bounds: in CPU time a frame of the attack costs at most a hundredth of a call, beside what the bystander's calls
        and the edge's own housekeeping take; memory does not grow; providers hear nothing."""
        assert self.grown <= mebibytes * MEBIBYTE
        most = self.call_seconds * (frames_sent / 100 + 10 + 3 * (len(self.served) - self.before)) + 0.1 + self.lasted / 20
        assert self.seconds <= most, (self.seconds, most)
        seen = [one for one in self.gateway.provider.observed() if "tag-bystander" not in one["model"]]
        assert len(seen) == strangers, seen[:3]


def watched(gateway, call_seconds):
    return Watched(gateway, call_seconds)


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_ends_the_connection(gateway, call_seconds, name):
    make, code = FLOODS[name]
    with watched(gateway, call_seconds) as attack, Frames(gateway.address) as connection:
        sent = make(connection, gateway)
        connection.send(sent)
        assert connection.await_close() in (code, None)
    attack.check(MANY)


@pytest.mark.parametrize("name", ["ping", "settings", "data-padding", "rapid-reset"])
def test_a_flood_from_who_does_not_read_ends_too(gateway, call_seconds, name):
    """Its answers have nowhere to go; they are not kept for it either."""
    make, _ = FLOODS[name]
    floods = gateway.metric("tokenroute_http2_floods_total")
    with watched(gateway, call_seconds) as attack, Frames(gateway.address) as connection:
        connection.send_deaf(make(connection, gateway), 1)
        until(lambda: connection.closed or connection.send_deaf(wire(ping()), 1) is not True or connection.closed, "it ends")
    attack.check(MANY)
    assert name in ("rapid-reset", "data-padding") or gateway.metric("tokenroute_http2_floods_total") == floods + 1


def test_requests_that_are_reset_one_by_one_have_an_end(gateway, call_seconds):
    """Each is looked at before it is reset, so nothing piles up; but nothing is earned either."""
    with watched(gateway, call_seconds) as attack, Frames(gateway.address) as connection:
        count = 0
        while count < 5_000 and connection.send(connection.open(2 * count + 1, connection.head(bearer(gateway))), reset(2 * count + 1)):
            count += 1
        assert connection.await_close() in (CALM, None)
    assert count < 2_000
    attack.check(100 * count)


def test_a_call_that_the_client_makes_us_reset_is_cancelled(gateway):
    """What goes on behind a stream that is gone would be work for nobody, beyond any bound of streams."""
    with Frames(gateway.address) as connection:
        for number in range(20):
            stream = 2 * number + 1
            connection.send(*ask(connection, gateway, stream, "box/silence"))
            until(lambda count=number + 1: len(gateway.provider.observed()) == count, "the call is under way")
            connection.send(window(stream, 0x7FFFFFFF))
            connection.until(lambda stream=stream: connection.reset_code(stream) is not None)
            assert connection.reset_code(stream) == FLOW
            until(lambda: not gateway.provider.observed(end="open"), "the provider's side ends as well")
    until(lambda: gateway.metric("tokenroute_calls_in_flight") == 0, "no call is left")


# Heads and bodies that break the rules: what becomes of the stream, or of the connection.
def request(*fields, **pseudo):
    """The fields of a good request, with some in another form; `None` leaves one out."""
    values = {"method": "GET", "path": "/v1/models", "scheme": "http", "authority": "gateway"} | pseudo
    return [*((f":{name}", value) for name, value in values.items() if value is not None), *fields]


RESET, FAREWELL = "reset", "goaway"
HEADS = {
    "good": (request(), 200),
    "host-for-authority": (request(("host", "gateway"), authority=None), 200),
    "te-trailers": (request(("te", "trailers")), 200),
    "cookies": (request(("cookie", "a=1"), ("cookie", "b=2")), 200),
    "path-twice": ([*request(), (":path", "/v1/models")], RESET),
    "method-twice": ([*request(), (":method", "GET")], RESET),
    "no-path": (request(path=None), RESET),
    "empty-path": (request(path=""), RESET),
    "no-method": (request(method=None), RESET),
    "no-scheme": (request(scheme=None), RESET),
    "no-authority": (request(authority=None), 400),
    "empty-authority": (request(authority=""), RESET),
    "authority-and-other-host": (request(("host", "other")), 400),
    "two-hosts": (request(("host", "gateway"), ("host", "gateway"), authority=None), 400),
    "authority-with-user": (request(authority="user@gateway"), 400),
    "authority-with-path": (request(authority="gateway/?x="), RESET),
    "authority-with-fragment": (request(authority="gateway#"), RESET),
    "authority-with-space": (request(authority="gate way"), RESET),
    "authority-of-odd-characters": (request(authority="a_b~!"), 400),
    "path-with-line-end": (request(path="/v1/models\r\nx-a: b"), RESET),
    "path-with-space": (request(path="/v1/mod els"), RESET),
    "path-with-nul": (request(path="/v1/models\0"), RESET),
    "absolute-path": (request(path="http://gateway/v1/models"), RESET),
    "relative-path": (request(path="v1/models"), RESET),
    "asterisk": (request(path="*", method="OPTIONS"), 400),
    "dot-segments": (request(path="/v1/../v1/models"), 400),
    "encoded-dots": (request(path="/v1/%2e%2e/v1/models"), 400),
    "two-slashes": (request(path="//v1/models"), 400),
    "long-path": (request(path="/v1/models/" + "x" * 9_000), 414),
    "many-fields": (request(*((f"x-{number}", "y") for number in range(101))), 431),
    "upper-case-name": (request(("X-Upper", "y")), FAREWELL),
    "space-in-name": (request(("x y", "z")), FAREWELL),
    "colon-in-name": (request(("x:y", "z")), FAREWELL),
    "empty-name": (request(("", "z")), FAREWELL),
    "line-end-in-value": (request(("x-a", "b\r\nx-c: d")), FAREWELL),
    "nul-in-value": (request(("x-a", "b\0")), FAREWELL),
    "unknown-pseudo-field": (request((":x", "y")), FAREWELL),
    "status": (request((":status", "200")), RESET),
    "late-pseudo-field": ([*request(authority=None), ("x-a", "b"), (":authority", "gateway")], RESET),
    "connection": (request(("connection", "close")), RESET),
    "keep-alive": (request(("keep-alive", "timeout=5")), RESET),
    "proxy-connection": (request(("proxy-connection", "close")), RESET),
    "transfer-encoding": (request(("transfer-encoding", "chunked")), RESET),
    "upgrade": (request(("upgrade", "websocket")), RESET),
    "te-gzip": (request(("te", "gzip")), RESET),
    "websocket": (request(method="CONNECT", protocol="websocket"), RESET),
    "connect": ([(":method", "CONNECT"), (":authority", "gateway:443")], 400),
    "trace": (request(method="TRACE"), 405),
    "lower-case-method": (request(method="get"), 405),
    "method-with-space": (request(method="G ET"), FAREWELL),
    "empty-method": (request(method=""), FAREWELL),
    "length-that-is-not-sent": (request(("content-length", "5")), RESET),
}


@pytest.mark.parametrize("name", HEADS)
def test_heads(gateway, name):
    fields, expected = HEADS[name]
    with Frames(gateway.address) as connection:
        connection.send(connection.open(1, connection.block([*fields, bearer(gateway)]), True))
        assert outcome(connection) == expected
        if expected != FAREWELL:
            # The stream's trouble is the stream's alone.
            connection.send(*ask(connection, gateway, 3))
            assert connection.status(3) == 200
    assert len(gateway.provider.observed()) == (expected != FAREWELL)


def outcome(connection, stream=1):
    """A status, or how the stream or the connection ended instead."""
    status = connection.status(stream)
    if status is not None:
        return status
    return RESET if connection.reset_code(stream) is not None else FAREWELL if connection.goaway else "closed"


def test_who_breaks_the_rules_again_and_again_is_left(gateway):
    """Each such head costs its stream alone, but not for ever: 32 of them are Pingora's bound."""
    with Frames(gateway.address) as connection:
        bad = request(("host", "other"))
        count = 0
        while connection.send(connection.open(2 * count + 1, connection.block([*bad, bearer(gateway)]), True)):
            if outcome(connection, 2 * count + 1) != 400:
                break
            count += 1
            assert count < 100
        connection.await_close()
    assert 20 <= count <= 40
    assert gateway.provider.observed() == []


LENGTH = str(len(BODY))
BODIES = {
    "good": ([], [(BODY, True)], 200),
    "end-in-a-frame-of-its-own": ([], [(BODY, False), (b"", True)], 200),
    "length": ([("content-length", LENGTH)], [(BODY, True)], 200),
    "same-length-twice": ([("content-length", LENGTH)] * 2, [(BODY, True)], 200),
    "expect": ([("expect", "100-continue")], [(BODY, True)], 200),
    "shorter-than-its-length": ([("content-length", str(len(BODY) + 1))], [(BODY, True)], RESET),
    "longer-than-its-length": ([("content-length", str(len(BODY) - 1))], [(BODY, True)], RESET),
    "two-lengths": ([("content-length", LENGTH), ("content-length", "1")], [(BODY, True)], RESET),
    "list-of-lengths": ([("content-length", f"{LENGTH}, {LENGTH}")], [(BODY, True)], RESET),
    "length-with-sign": ([("content-length", f"+{LENGTH}")], [(BODY, True)], RESET),
    "hexadecimal-length": ([("content-length", hex(len(BODY)))], [(BODY, True)], RESET),
    "negative-length": ([("content-length", "-1")], [(BODY, True)], RESET),
    "compressed": ([("content-encoding", "gzip")], [(BODY, True)], 415),
    "too-long-by-its-length": ([("content-length", str(100 * MEBIBYTE))], [], 413),
}


@pytest.mark.parametrize("name", BODIES)
def test_bodies(gateway, name):
    fields, parts, expected = BODIES[name]
    with Frames(gateway.address) as connection:
        head = connection.open(1, connection.head(bearer(gateway), *fields))
        connection.send(head, *(data(1, part, last) for part, last in parts))
        assert outcome(connection) == expected
        connection.send(*ask(connection, gateway, 3))
        assert connection.status(3) == 200
    assert len(gateway.provider.observed()) == 1 + (expected == 200)


TRAILERS = {
    "plain": ([("x-checksum", "1")], True, 200),
    "credential": ([("authorization", "Bearer other")], True, 200),
    "not-the-last": ([("x-checksum", "1")], False, RESET),
    "connection": ([("connection", "close")], True, RESET),
}


@pytest.mark.parametrize("name", TRAILERS)
def test_trailers(gateway, name):
    """They are read over, and reach no provider."""
    fields, last, expected = TRAILERS[name]
    with Frames(gateway.address) as connection:
        connection.send(connection.open(1, connection.head(bearer(gateway))), data(1, BODY))
        connection.send(connection.open(1, connection.block(fields), last))
        assert outcome(connection) == expected
    assert len(gateway.provider.observed()) == (expected == 200)
    assert not any("checksum" in json.dumps(one).lower() for one in gateway.provider.observed())


def frame_of(kind, flags, stream, payload):
    return header(len(payload), kind, flags, stream) + payload


BROKEN = {
    "head-on-stream-0": lambda connection, head: frame_of(1, 5, 0, head),
    "even-stream": lambda connection, head: wire(connection.open(2, head, True)),
    "stream-of-the-past": lambda connection, head: wire(connection.open(5, head, True)) + frame_of(1, 5, 3, b"\x82"),
    "data-without-a-stream": lambda connection, head: wire(data(7, b"x")),
    "frame-over-its-bound": lambda connection, head: frame_of(0, 0, 1, bytes(20_000)),
    "padding-over-its-frame": lambda connection, head: wire(connection.open(1, head)) + frame_of(0, 8, 1, b"\xffab"),
    "push": lambda connection, head: wire(connection.open(1, head)) + frame_of(5, 4, 1, bytes([0, 0, 0, 2]) + head),
    "window-over-its-bound": lambda connection, head: frame_of(4, 0, 0, b"\0\4\xff\xff\xff\xff"),
    "half-a-setting": lambda connection, head: frame_of(4, 0, 0, bytes(5)),
    "setting-of-a-stream": lambda connection, head: frame_of(4, 0, 1, b""),
    "window-update-of-nothing": lambda connection, head: window(0, 0),
    "window-of-the-connection-overflows": lambda connection, head: window(0, 0x7FFFFFFF),
    "frame-in-a-head": lambda connection, head: wire(connection.open(1, head, whole=False), ping()),
    "continuation-of-nothing": lambda connection, head: wire(continuation(1, head, True)),
    "unknown-index": lambda connection, head: wire(connection.open(1, b"\xff\xff\xff\xff\x0f")),
    "table-over-its-bound": lambda connection, head: wire(connection.open(1, b"\x3f\xe1\xff\x03" + head)),
    "ping-of-a-stream": lambda connection, head: frame_of(6, 0, 1, bytes(8)),
    "short-ping": lambda connection, head: frame_of(6, 0, 0, bytes(7)),
    "farewell-of-a-stream": lambda connection, head: frame_of(7, 0, 1, bytes(8)),
}


@pytest.mark.parametrize("name", BROKEN)
def test_frames_that_break_the_rules_end_the_connection(gateway, name):
    with Frames(gateway.address) as connection:
        connection.send(BROKEN[name](connection, connection.head(bearer(gateway))))
        assert connection.await_close() in (PROTOCOL, FLOW, FRAME_SIZE, COMPRESSION)
    assert gateway.provider.observed() == []


def test_a_list_of_fields_over_its_bound(gateway, call_seconds):
    """In few frames it is refused; in many, or far over the bound, the connection ends."""
    head = [bearer(gateway), *((f"x-{number}", "y" * 9_000) for number in range(8))]
    with watched(gateway, call_seconds) as attack:
        with Frames(gateway.address) as connection:
            connection.acknowledge()
            block = connection.head(*head)
            parts = [block[at:at + 16_384] for at in range(0, len(block), 16_384)]
            connection.send(connection.open(1, parts[0], True, whole=False),
                            *(continuation(1, part, part is parts[-1]) for part in parts[1:]))
            assert outcome(connection) == 431
        # One field is said once, and pointed at thousands of times.
        with Frames(gateway.address) as connection:
            block = connection.head(bearer(gateway), ("x-a", "b" * 3_900))
            for number in range(50):
                first = block if number == 0 else b""
                if not connection.send(connection.open(2 * number + 1, first + b"\xbe" * 12_000, True)):
                    break
            assert connection.await_close() in (CALM, PROTOCOL, COMPRESSION, None)
    attack.check(60)


def test_more_streams_than_allowed(gateway, call_seconds):
    with watched(gateway, call_seconds) as attack, Frames(gateway.address) as connection:
        streams = [2 * number + 1 for number in range(STREAMS_MAX + 50)]
        connection.send(*(connection.open(stream, connection.head(bearer(gateway))) for stream in streams))
        refused = streams[STREAMS_MAX:]
        connection.until(lambda: all(connection.reset_code(stream) == REFUSED for stream in refused))
        assert not any(connection.reset_code(stream) for stream in streams[:STREAMS_MAX])
        # Those that are held open without a body end as well, and make room.
        connection.until(lambda: all(stream in connection.heads for stream in streams[:STREAMS_MAX]))
        assert {connection.status(stream) for stream in streams[:STREAMS_MAX]} == {408}
        connection.until(lambda: all(connection.reset_code(stream) == NO_ERROR for stream in streams[:STREAMS_MAX]))
        connection.send(*ask(connection, gateway, streams[-1] + 2))
        assert connection.status(streams[-1] + 2) == 200
    attack.check(1_000, strangers=1)


@pytest.mark.parametrize("name", ["silent", "pings", "half-a-head", "half-a-preface"])
def test_a_connection_without_a_request_is_closed(hasty, name):
    """Whatever it says: only a request keeps it open."""
    gateway = hasty
    with Frames(gateway.address, greet=name != "half-a-preface") as connection:
        began = time.monotonic()
        if name == "half-a-preface":
            connection.send(frames.PREFACE[:10])
        if name == "half-a-head":
            connection.send(connection.open(1, connection.head(bearer(gateway)), whole=False))
        while name == "pings" and connection.send(ping()) and time.monotonic() - began < 20:
            time.sleep(scaled(1))
        connection.await_close(30)
        assert time.monotonic() - began >= scaled(10)


def test_a_connection_is_left_after_its_requests(start, provider):
    """So that clients come to new edges; nobody's request is lost by it."""
    gateway = start(listen="h2c = true", sections="[limits]\nrequests_per_connection_max = 5")
    with Frames(gateway.address) as connection:
        connection.send(*ask(connection, gateway, 1, "box/sse-50x10ms", stream=True))
        for number in (3, 5, 7, 9):
            connection.send(*ask(connection, gateway, number))
            assert connection.status(number) == 200
        connection.until(lambda: connection.goaway)
        # One that was on its way when the farewell came is served all the same.
        connection.send(*ask(connection, gateway, 11))
        assert connection.status(11) == 200
        # The other side's ping asks whether all has arrived that was on its way.
        connection.answer_pings()
        assert connection.await_end(1) == "END_STREAM"
        assert connection.await_close() == NO_ERROR
    assert {record["outcome"] for record in gateway.await_records(6)} == {"answered"}


def test_floods_over_tls(start, folder):
    """The same where HTTP/2 is agreed on with TLS."""
    certificate, key = make_certificate(folder)
    listen = f'[listen.tls]\ncertificate = "{certificate}"\nkey = "{key}"'
    gateway = start(listen=listen, sections=LIMITS)
    for name in ("ping", "rapid-reset", "data-empty"):
        make, code = FLOODS[name]
        with Frames(gateway.address, certificate=certificate) as connection:
            connection.send(make(connection, gateway))
            assert connection.await_close() in (code, None)
    with Frames(gateway.address, certificate=certificate) as connection:
        connection.send(*ask(connection, gateway, 1))
        assert connection.status(1) == 200
