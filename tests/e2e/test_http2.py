"""HTTP/2 downstream, frame by frame: refusals before the body, clients that leave, going down."""

import json
import signal
import socket
import time

import h2.events
import pytest

from harness import http2, ports
from harness.frames import Frames, data, wire
from harness.gateway import chat
from harness.routes import provider_text, route_text, target

PATH = "/v1/chat/completions"
# Generous: the provider is left within 100 ms on a machine that has nothing else to do.
LETS_GO_SECONDS = 2.0


@pytest.fixture
def gateway(start):
    return start(listen="h2c = true")


def bearer(gateway):
    return ("authorization", f"Bearer {gateway.key}"), ("content-type", "application/json")


def ask(connection, gateway, model, **more):
    return connection.request(PATH, *bearer(gateway), body=json.dumps(chat(model, **more)).encode())


def reset_and_await(gateway, connection, stream, model):
    """Resets a stream, whose provider is left at once."""
    began = time.monotonic()
    connection.reset(stream)
    gateway.provider.await_observed(model=model, end="client_closed")
    assert time.monotonic() - began <= LETS_GO_SECONDS


def test_a_stranger_is_refused_before_the_body(gateway):
    with http2.Connection(gateway.address) as connection:
        stream = connection.request(PATH, ("content-length", "1000000"))
        assert connection.status(stream) == 401


def test_many_streams_on_one_connection(gateway):
    with http2.Connection(gateway.address) as connection:
        streams = [ask(connection, gateway, f"box/words-{number + 1}", stream=True) for number in range(50)]
        for stream in streams:
            assert connection.status(stream) == 200
            connection.await_event(h2.events.StreamEnded, stream)
    gateway.await_records(50)


def test_a_stream_that_is_reset_cancels_the_provider(gateway):
    gateway.provider.forget()
    with http2.Connection(gateway.address) as connection:
        leaving = ask(connection, gateway, "box/sse-2000x10ms", stream=True)
        staying = ask(connection, gateway, "box/sse-50x10ms", stream=True)
        connection.await_event(h2.events.DataReceived, leaving)
        reset_and_await(gateway, connection, leaving, "sse-2000x10ms")
        connection.await_event(h2.events.StreamEnded, staying)
    outcomes = {record["model"]: record["outcome"] for record in gateway.await_records(2)}
    assert outcomes == {"box/sse-2000x10ms": "client_gone", "box/sse-50x10ms": "answered"}


def test_a_stream_that_is_reset_before_the_head_cancels_the_provider(gateway):
    gateway.provider.forget()
    with http2.Connection(gateway.address) as connection:
        leaving = ask(connection, gateway, "box/silence")
        gateway.provider.await_observed(model="silence")
        reset_and_await(gateway, connection, leaving, "silence")
    assert gateway.await_records(1)[0]["outcome"] == "client_gone"


def test_a_connection_that_closes_ends_all_its_calls(gateway):
    with http2.Connection(gateway.address) as connection:
        for _ in range(10):
            connection.await_event(h2.events.DataReceived, ask(connection, gateway, "box/sse-2000x10ms", stream=True))
    assert {record["outcome"] for record in gateway.await_records(10)} == {"client_gone"}


def test_a_cut_json_body_is_reset(gateway):
    with http2.Connection(gateway.address) as connection:
        # Longer than what is held until it is whole, so that a part of it has gone out.
        stream = ask(connection, gateway, "box/cut-after-1+json-bytes-1000000")
        connection.await_event(h2.events.StreamReset, stream)
        assert connection.status(ask(connection, gateway, "box/echo")) == 200
    assert sorted(record["outcome"] for record in gateway.await_records(2)) == ["answered", "cut"]


def test_a_late_duplicate_is_refused(gateway):
    gateway.provider.forget()
    text = "x" * (2 << 20)
    body = json.dumps(chat("box/echo", text)).encode()[:-1] + b',"\\u006dodel":"box/dear"}'
    with http2.Connection(gateway.address) as connection:
        stream = connection.request(PATH, *bearer(gateway), ("content-length", str(len(body))))
        connection.upload(stream, body)
        assert connection.status(stream) == 400
    assert not any(seen["body_complete"] for seen in gateway.provider.observed())


@pytest.fixture
def deaf():
    """A provider that accepts and reads nothing."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    listener.bind(("127.0.0.1", ports.free()))
    listener.listen(64)
    yield "http://127.0.0.1:%d/v1" % listener.getsockname()[1]
    listener.close()


# As many streams as would have filled a connection's window of 4 MiB; and fewer in frames of which h2 counts each twice.
@pytest.mark.parametrize(("streams", "frame_bytes"), [(24, 16_384), (12, 128)])
def test_uploads_that_nobody_reads_hold_up_no_other(start, deaf, streams, frame_bytes):
    """Long bodies stream to a provider that has stopped reading. Whoever shares the client's connection, as behind a load
    balancer, does not notice."""
    gateway = start(listen="h2c = true", routes=provider_text("deaf", deaf) + route_text("deaf", [target("deaf", "echo")]))
    fields = ("authorization", f"Bearer {gateway.key}"), ("content-length", str(30 << 20))
    opening = b'{"model":"deaf","messages":[{"role":"user","content":"'
    with Frames(gateway.address) as connection:
        connection.acknowledge()
        for stream in range(1, 2 * streams, 2):
            connection.send(connection.open(stream, connection.head(*fields)), data(stream, opening))
            connection.take(stream, len(opening))
        small = {stream: wire(data(stream, b"x" * frame_bytes)) * (16_384 // frame_bytes) for stream in range(1, 2 * streams, 2)}
        moved = time.monotonic()
        while time.monotonic() - moved < 1:
            for stream, part in small.items():
                if connection.room_of(stream) >= 16_384:
                    assert connection.send(part)
                    connection.take(stream, 16_384)
                    moved = time.monotonic()
            connection.until_or_time(lambda: False, 0.01)
        assert not connection.heads and not connection.closed
        assert all(connection.room[stream] < 16_384 for stream in small), "every window is full"
        connection.send(connection.open(999, connection.head(fields[0])), data(999, json.dumps(chat("box/echo")).encode(), True))
        assert connection.status(999) == 200


def test_going_down_says_goodbye(gateway):
    with http2.Connection(gateway.address) as connection:
        stream = ask(connection, gateway, "box/sse-3000x10ms", stream=True)
        connection.await_event(h2.events.DataReceived, stream)
        gateway.process.send(signal.SIGINT)
        connection.await_event(h2.events.StreamReset, stream)
        text = b"".join(event.data for event in connection.events if isinstance(event, h2.events.DataReceived))
    assert b'"reason":"shutdown"' in text and b"[DONE]" not in text
    assert gateway.process.await_end() == 0
    assert [record["outcome"] for record in gateway.records()] == ["shutdown"]
