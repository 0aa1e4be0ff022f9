"""Requests and answers that are too much: deep, long, empty, compressed, or cut in the middle of a character. Nothing dies of
them, memory stays where it was, and what cannot be read is counted by us."""

import json

import pytest

from harness import raw
from harness.frames import Cost, Frames, data
from harness.gateway import chat
from harness.giant import ANSWERS, DEPTH, EVENT_STREAM, Giant, end, words
from harness.routes import provider_text, route_text, target
from harness.scale import scaled
from harness.waiting import until

MEBIBYTE = 1 << 20
# What an answer of any length may cost while it passes.
PASSING_MAX = 8 * MEBIBYTE
BODY_MAX = 4 * MEBIBYTE
PART_BYTES = 65_536
PATH = "/v1/chat/completions"
SECTIONS = f"""
[limits]
body_bytes_max = {BODY_MAX}
body_idle_seconds = {scaled(20)}
body_total_seconds = {scaled(40)}
"""


@pytest.fixture(scope="module")
def giant():
    running = Giant()
    yield running
    running.close()


@pytest.fixture(scope="module")
def gateway(start_in, tmp_path_factory, provider, giant):
    routes = [provider_text("giant", giant.base_url), *(route_text(name, [target("giant", name)]) for name in ANSWERS)]
    return start_in(tmp_path_factory.mktemp("giants"), provider=provider, listen="h2c = true", sections=SECTIONS,
                    routes="\n".join(routes))


@pytest.fixture
def cost(gateway):
    """What it costs, from a beginning at which the edge has done something already."""
    for _ in range(20):
        assert gateway.ask(chat("box/echo", stream=True)).status == 200
    with Cost(gateway.process.pid) as cost:
        yield cost


def expected_bytes(name):
    return sum(len(part) for part in ANSWERS[name][2]())


def passing(connection):
    """The length of a chunked body, and whether it came to its end."""
    length = 0
    try:
        while part := connection.read_chunk():
            length += len(part)
    except (EOFError, ConnectionResetError):
        return length, False
    return length, True


# How each ends, as the record tells it, and whether all of it reaches the client.
ENDS = {
    "line": ("answered", True),
    # It lacks its end, so it was cut, whatever there is of it.
    "line-without-end": ("cut", False),
    "deep-event": ("answered", True),
    "empty-events": ("answered", True),
    "empty-events-first": ("answered", True),
    "comments": ("answered", True),
    "blank-lines": ("answered", True),
    "data-lines": ("answered", True),
    "bomb": ("answered", True),
    "bomb-json": ("answered", True),
    "deep": ("answered", True),
    "long": ("answered", True),
}


@pytest.mark.parametrize("name", ENDS)
def test_giants_pass_and_cost_nothing(gateway, giant, cost, name):
    outcome, whole = ENDS[name]
    with raw.Connection(gateway.address) as connection:
        connection.send(gateway.request(chat(name, stream=ANSWERS[name][0] == EVENT_STREAM)))
        head = connection.read_head()
        assert head.status == 200
        length, ended = passing(connection)
    print(f"{name}: {length / MEBIBYTE:.0f} MiB passed for {cost.peak_bytes() / MEBIBYTE:.1f} MiB and {cost.cpu_seconds():.2f} s")
    assert cost.peak_bytes() <= PASSING_MAX
    record = gateway.record(head.header("x-request-id"))
    assert (record["outcome"], ended) == (outcome, whole), record["error"]
    if name.startswith("empty-events"):
        # An event that says nothing would be no JSON to clients.
        assert length == len(words() + end())
    elif whole:
        assert length == expected_bytes(name)
    assert record["usage_source"] == "estimated", record
    assert gateway.ask(chat("box/echo")).status == 200


def deep_request(depth):
    """A body in which one member is nested so deep."""
    return b'{"model":"box/echo","messages":[],"x":' + b"[" * depth + b"]" * depth + b"}"


@pytest.mark.parametrize("depth", [65, 100_000, DEPTH])
@pytest.mark.parametrize("kind", ["[", '{"a":'])
def test_deep_requests_are_refused(gateway, cost, depth, kind):
    """F61. The edge does not read on when it has seen enough."""
    gateway.provider.forget()
    body = deep_request(depth).replace(b"[", kind.encode()).replace(b"]", b"}" if kind != "[" else b"]")
    with raw.Connection(gateway.address) as connection:
        connection.send(gateway.head(PATH, ("content-length", min(len(body), BODY_MAX))))
        try:
            connection.send(body[:BODY_MAX])
        except (BrokenPipeError, ConnectionResetError):
            pass
        answer = connection.read_answer()
    assert answer.status == 400 and json.loads(answer.body)["error"]["metadata"]["reason"] == "invalid_json"
    assert cost.peak_bytes() <= PASSING_MAX
    assert gateway.provider.observed() == []


def test_a_body_without_end_is_refused_in_http2(gateway, cost):
    """F57: 100 MB that nobody announced. What is kept of it is bounded by what a body may have."""
    gateway.provider.forget()
    with Frames(gateway.address) as connection:
        connection.send(connection.open(1, connection.head(("authorization", f"Bearer {gateway.key}"))))
        connection.send(data(1, b'{"messages":[{"role":"user","content":"'))
        sent = connection.upload(1, b"x" * 16_384, 100_000_000)
        assert connection.status(1) == 413
        connection.until(lambda: connection.reset_code(1) is not None)
    assert sent < 3 * BODY_MAX
    assert cost.peak_bytes() <= 2 * BODY_MAX + PASSING_MAX
    assert not any(seen["body_complete"] for seen in gateway.provider.observed())
    until(lambda: [record["status"] for record in gateway.records() if record["error"] == "body_too_large"] == [413], "its record")


@pytest.mark.parametrize("pause", [scaled(2), scaled(60)], ids=["dripping", "silent"])
def test_a_slow_body_is_refused_in_http2(gateway, pause):
    """F54: a byte now and then, or none any more."""
    with Frames(gateway.address) as connection:
        connection.send(connection.open(1, connection.head(("authorization", f"Bearer {gateway.key}"))), data(1, b"{"))
        while 1 not in connection.heads and connection.send(data(1, b" ")):
            connection.until_or_time(lambda: 1 in connection.heads, pause)
        assert connection.status(1) == 408
        connection.until(lambda: connection.reset_code(1) is not None)
    until(lambda: gateway.metric("tokenroute_calls_in_flight") == 0, "it is over")


@pytest.mark.parametrize("bytes_each", [1, 2, 3, 5, 7])
def test_characters_may_be_cut_anywhere(gateway, bytes_each):
    """F17, over real sockets: whatever the pieces, the client gets the same bytes, and the same is counted."""
    whole = gateway.ask(chat("box/unicode", stream=True))
    pieces = gateway.ask(chat(f"box/unicode+split-{bytes_each}", stream=True))
    assert pieces.status == 200 and pieces.complete
    assert text(pieces) == text(whole)
    counts = [gateway.record(one.header("x-request-id"))["output"] for one in (whole, pieces)]
    assert counts[0] == counts[1] > 0


def text(answer):
    events = [line[6:] for line in answer.body.decode().split("\n") if line.startswith("data: {")]
    return "".join(choice["delta"].get("content") or "" for event in events for choice in json.loads(event)["choices"])
