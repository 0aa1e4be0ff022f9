"""Connections to providers: kept, found to be stale, shared by streams of HTTP/2, and found by name."""

import collections
import concurrent.futures
import json
import socket
import subprocess
import threading
import time

import pytest

from harness import ports, raw
from harness.gateway import CREDENTIAL, Gateway, chat
from harness.http2_provider import Http2Provider
from harness.provider import Provider
from harness.routes import error_of, is_tagged, play, provider_text, route_text, target, text_of
from harness.waiting import until

# Names are asked for again after this long, which no configuration changes.
NAME_FRESH_SECONDS = 30.0
SIBLINGS = 20


@pytest.fixture
def own(folder):
    """A provider of the test's own: nobody else has a connection to it."""
    running = Provider(folder, ports.free(), name="own", key=CREDENTIAL)
    yield running
    running.process.stop()


@pytest.fixture
def http2():
    running = Http2Provider()
    yield running
    running.close()


def test_connections_are_kept(start, own):
    gateway = start(provider=own)
    for _ in range(20):
        assert gateway.ask(chat("box/words-3")).status == 200
    assert len({one["connection"] for one in own.observed()}) <= 2


def test_a_stale_connection_is_replaced_in_silence(start, own):
    """F5: one silent retry, on a fresh connection; nothing is counted against the target."""
    gateway = start(provider=own, routes="\n".join([
        provider_text("a", own.base_url()), route_text("stale", [target("a", "words-9+reset-on-reuse")], attempts_max=1),
    ]))
    played = [play(gateway, own, "stale") for _ in range(10)]
    assert all(one.answer.status == 200 for one in played)
    seen = [one for one in own.observed() if is_tagged(one, "stale")]
    reset = [one for one in seen if one["end"] == "reset"]
    assert reset and all(one["exchange"] == 2 for one in reset)
    assert len(seen) == 10 + len(reset)
    retried = [one for one in played if len(one.seen) == 2]
    assert len(retried) == len(reset)
    for one in retried:
        assert [leg.result for leg in one.attempts] == ["stale_connection", "ok"]
        assert [leg.why for leg in one.attempts] == ["chosen", "reconnect"]
    name = next(iter(gateway.targets()))
    assert gateway.targets()[name]["failures"] == 0


@pytest.mark.parametrize("fault", ["length-and-chunked", "two-lengths", "two-answers", "short-body", "bad-chunk", "half-head"])
def test_a_connection_that_broke_http_is_not_used_again(start, own, fault):
    """F23."""
    gateway = start(provider=own, routes="\n".join([
        provider_text("a", own.base_url()), provider_text("b", own.base_url()),
        route_text("broken", [target("a", f"words-9+{fault}", rank=0), target("b", "words-9", rank=1)]),
    ]))
    for _ in range(2):
        play(gateway, own, "broken")
        for number in range(3):
            answer = gateway.ask(chat("box/echo", f"after {number}"))
            assert answer.status == 200 and f"after {number}".encode() in answer.body
    broken = [one for one in own.observed() if fault in one["model"]]
    assert broken
    for one in broken:
        after = [later for later in own.observed() if later["connection"] == one["connection"] and later["id"] > one["id"]]
        assert not after, fault


def test_idle_connections_are_left_before_the_provider_does(start, own):
    """A FIN that nobody announced costs no call."""
    gateway = start(provider=own)
    for _ in range(10):
        assert gateway.ask(chat("box/words-3+idle-close-20")).status == 200


def http2_edge(start, http2, own, *targets, **settings):
    here = [provider_text("h", http2.base_url, http2=True), provider_text("b", own.base_url())]
    return start(provider=own, routes="\n".join([
        *here, *(route_text(name, [target("h", name)]) for name in ("flood-4000000", "words-30")),
        route_text("broken", [target("h", "reset-3", rank=0), target("b", "words-3", rank=1)]),
        route_text("refused", [target("h", "refuse-3", rank=0), target("b", "words-3", rank=1)]),
        route_text("leaves", [target("h", "leave-3")]),
    ]))


def test_calls_share_a_connection_of_http2(start, http2, own):
    gateway = http2_edge(start, http2, own)
    with concurrent.futures.ThreadPoolExecutor(SIBLINGS) as pool:
        answers = list(pool.map(lambda _: gateway.ask(chat("words-30", stream=True)), range(100)))
    assert all(one.status == 200 and one.complete and b" word29" in one.body for one in answers)
    assert http2.connections < 10
    counts = collections.Counter(number for number, _ in http2.requests)
    assert sum(counts.values()) == 100


def test_a_stalled_reader_does_not_hold_up_its_siblings(start, http2, own):
    """F26: who reads nothing fills its own stream's window and no other's."""
    gateway = http2_edge(start, http2, own)
    stalled = []
    for _ in range(3):
        connection = raw.Connection(gateway.address)
        connection.send(gateway.request(chat("flood-4000000", stream=True)))
        assert connection.read_head().status == 200
        stalled.append(connection)
    with concurrent.futures.ThreadPoolExecutor(SIBLINGS) as pool:
        answers = list(pool.map(lambda _: gateway.ask(chat("words-30", stream=True)), range(100)))
    assert all(one.status == 200 and one.complete and b" word29" in one.body for one in answers)
    # Who reads again has missed nothing.
    for connection in stalled:
        parts = []
        while part := connection.read_chunk():
            parts.append(part)
        assert b"".join(parts).count(b"x" * 8_000) == 500
        connection.close()


def test_http2s_ways_to_refuse_are_no_failures(start, http2, own):
    """REFUSED_STREAM and GOAWAY: nothing was done yet, so the call goes on another stream or target."""
    gateway = http2_edge(start, http2, own)
    assert play(gateway, own, "refused", stream=True).ends_well
    for _ in range(3):
        left = play(gateway, own, "leaves", stream=True)
        assert left.ends_well and left.tried == [("h", "ok", 200)]
    broken = play(gateway, own, "broken", stream=True)
    assert broken.text == "word word1 word2" and broken.ends_well


def can_mount():
    """Whether this machine lets a process see files of its own."""
    return subprocess.run(["unshare", "--mount", "--map-root-user", "true"], capture_output=True).returncode == 0


class Named(Gateway):
    """A gateway that reads a hosts file of its own, where the machine allows that."""

    def command_line(self):
        mount = f'mount --bind "{self.folder}/hosts" /etc/hosts && exec "$0" "$@"'
        return ["unshare", "--mount", "--map-root-user", "sh", "-c", mount, *super().command_line()]

    def give_address(self, address):
        """Gives the provider's name another address, or none."""
        line = f"{address} upstream.test\n" if address else ""
        # In place: a new file would not be the one that is mounted.
        with open(self.folder / "hosts", "w") as hosts:
            hosts.write(f"127.0.0.1 localhost\n{line}")


def test_a_name_without_an_address_is_another_targets_turn(start, own):
    """F25, as far as a machine without control of its resolver goes."""
    gateway = start(provider=own, routes="\n".join([
        provider_text("lost", "http://no-such-name.invalid:1/v1", allow_http=True), provider_text("b", own.base_url()),
        route_text("lost", [target("lost", "words-9", rank=0), target("b", "words-9", rank=1)]),
        route_text("lost-alone", [target("lost", "words-9")]),
    ]))
    played = play(gateway, own, "lost")
    assert played.tried == [("lost", "resolve", None), ("b", "ok", 200)]
    alone = play(gateway, own, "lost-alone")
    assert (alone.answer.status, alone.reason) == (502, "upstream_unreachable")


@pytest.mark.timeout(180)
def test_a_name_that_moves_is_followed(folder, own):
    """F25: the last good address serves while the name has none, and a new one is found.

    Where a process may not have a hosts file of its own (an unprivileged container), this says that it was left out.
    """
    if not can_mount():
        pytest.skip("a process may have no hosts file of its own here; src/proxy/src/resolve.rs tests the rules")
    # A name may lead to this machine only where that is said.
    gateway = Named(folder / "named", own, sections='[egress]\nallow_private = ["127.0.0.0/8"]', routes="\n".join([
        provider_text("moves", f"http://upstream.test:{own.port}/v1", allow_http=True),
        route_text("moves", [target("moves", "words-9")]),
    ]))
    gateway.give_address("127.0.0.1")
    gateway.start()
    try:
        assert gateway.ask(chat("moves")).status == 200
        gateway.give_address(None)
        stale = time.monotonic() + NAME_FRESH_SECONDS + 1
        while time.monotonic() < stale:
            assert gateway.ask(chat("moves")).status == 200
            time.sleep(0.2)
        for _ in range(5):
            assert gateway.ask(chat("moves")).status == 200
        # Nobody listens there.
        gateway.give_address("127.0.0.2")
        until(lambda: gateway.ask(chat("moves")).status == 502, "the new address is used")
    finally:
        gateway.stop()
        assert "panicked" not in gateway.process.log()


@pytest.mark.parametrize("message", ["out of memory", f"bad key {CREDENTIAL}"])
def test_a_providers_last_word_is_whole_and_keeps_our_secret(start, own, message):
    """An error event in the middle, without its blank line, from a provider that quotes what it was sent."""
    chunk = json.dumps({"id": "a", "choices": [{"index": 0, "delta": {"content": "Hi"}}]})
    events = f"data: {chunk}\n\ndata: {json.dumps({'error': {'message': message, 'code': 500}})}\n"

    def speak(listener):
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
            connection.sendall((head + events).encode())

    with socket.create_server(("127.0.0.1", ports.free())) as listener:
        gateway = start(provider=own, routes="\n".join([
            provider_text("rude", f"http://127.0.0.1:{listener.getsockname()[1]}/v1"),
            route_text("rude", [target("rude", "words-9")]),
        ]))
        threading.Thread(target=speak, args=[listener], daemon=True).start()
        answer = gateway.ask(chat("rude", stream=True))
    assert not answer.complete and text_of(answer.body) == "Hi"
    assert CREDENTIAL.encode() not in answer.body and answer.body.endswith(b"\n\n")
    told = error_of(answer.body)["message"]
    assert (told == message) == (CREDENTIAL not in message) and told
    assert gateway.record(answer.header("x-request-id"))["outcome"] == "cut"
