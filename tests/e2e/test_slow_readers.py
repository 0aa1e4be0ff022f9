"""Clients that ask for long streams and read nothing: they cost a bounded amount, hold up nobody, and are given up in time."""

import collections
import json
import time

import pytest

from harness import calls
from harness.frames import Cost, Frames, connect, data, settings, wire
from harness.gateway import chat
from harness.giant import Giant
from harness.routes import provider_text, route_text, target
from harness.scale import scaled
from harness.waiting import until

READERS = 200
MEBIBYTE = 1 << 20
# 768 KiB a reader, and never more than this in all.
COST_MAX = 150_000_000
# What may come and go while nothing happens.
FLAT_BYTES = 4 * MEBIBYTE
# How long nothing has to move until it is taken for stalled, and how long it is watched after that.
STILL_SECONDS, WATCHED_SECONDS = 1.0, scaled(30)
WINDOW_MAX = 0x7FFFFFFF
STREAMS = 50
RECEIVE_BYTES = 32_768


@pytest.fixture
def giant():
    running = Giant()
    yield running
    running.close()


@pytest.fixture
def stall_seconds(name):
    """Longer than it takes to fill the machine's buffers, which are much larger than ours."""
    return 16 if name in ("http1", "http2-socket") else 10


@pytest.fixture
def gateway(start, giant, stall_seconds):
    prices = "prices = [{ input = \"1\", output = \"4\" }]"
    flood = route_text("flood", [target("giant", "flood")]).rstrip() + "\n" + prices + "\n"
    return start(listen="h2c = true", sections=f"[limits]\nwrite_stall_seconds = {stall_seconds}",
                 routes=provider_text("giant", giant.base_url) + flood)


BODY = json.dumps(chat("flood", stream=True)).encode()


def over_http1(gateway):
    sockets = [connect(gateway.address, RECEIVE_BYTES) for _ in range(READERS)]
    for one in sockets:
        one.sendall(gateway.request(BODY))
    return sockets


def over_http2(gateway, initial_window, streams):
    """Streams on as few connections as they fit on. Nothing is read, the other side's settings neither."""
    connections = []
    for _ in range(READERS // streams):
        one = Frames(gateway.address, settled=settings(initial_window_size=initial_window), receive_bytes=RECEIVE_BYTES)
        for number in range(streams):
            stream = 2 * number + 1
            block = one.head(("authorization", f"Bearer {gateway.key}"))
            one.socket.sendall(wire(one.open(stream, block), data(stream, BODY, True)))
        connections.append(one.socket)
    return connections


READS = {
    "http1": over_http1,
    "http2-window": lambda gateway: over_http2(gateway, 65_535, 1),
    # The window says come on, and the socket does not.
    "http2-socket": lambda gateway: over_http2(gateway, WINDOW_MAX, 1),
    "http2-streams": lambda gateway: over_http2(gateway, WINDOW_MAX, STREAMS),
}


def await_still(giant):
    """Waits until the provider gets rid of nothing any more, and tells how much that was."""
    before, since = giant.sent(), time.monotonic()
    while time.monotonic() - since < STILL_SECONDS:
        time.sleep(0.1)
        if giant.sent() != before or len(giant.served) < READERS:
            before, since = giant.sent(), time.monotonic()
    return before


@pytest.mark.parametrize("name", READS)
def test_readers_that_stall(gateway, giant, stall_seconds, name):
    """F54, and acceptance 4 of the issue: bounded and flat; the provider is held back; then each is given up and settled."""
    assert gateway.ask(chat("box/echo")).status == 200
    request = gateway.request(chat("box/echo"))
    cost = Cost(gateway.process.pid)
    readers = READS[name](gateway)
    sent = await_still(giant)
    grown = cost.grown_bytes()
    bystander = calls.Warm(lambda: (gateway.address, request), 20, connections=4)
    time.sleep(WATCHED_SECONDS)
    served = bystander.stop()
    assert gateway.metric("tokenroute_calls_in_flight") == READERS, "they are given up later"
    print(f"{name}: {cost.grown_bytes() / READERS / 1024:.0f} KiB a reader, {sent / READERS / MEBIBYTE:.1f} MiB under way")
    assert cost.grown_bytes() <= COST_MAX
    assert cost.grown_bytes() - grown <= FLAT_BYTES
    assert giant.sent() == sent
    assert served and all(one.status == 200 and one.complete for one in served)
    # In time each is given up: the provider is left, and what it had said is charged.
    until(lambda: gateway.metric("tokenroute_calls_in_flight") == 0, "they are given up", seconds=stall_seconds + 30)
    until(lambda: all(one.end == "left" for one in giant.served), "the provider is left")
    records = [one for one in gateway.await_records(READERS + 1 + len(served)) if one["model"] == "flood"]
    assert collections.Counter(one["outcome"] for one in records) == {"client_gone": READERS}
    assert all(one["output"] > 0 and one["cost_nano_usd"] > 0 and one["usage_source"] == "estimated" for one in records)
    for one in readers:
        one.close()
