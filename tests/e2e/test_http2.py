"""HTTP/2 downstream, frame by frame: refusals before the body, clients that leave, going down."""

import json
import signal

import h2.events
import pytest

from harness import http2
from harness.gateway import chat

PATH = "/v1/chat/completions"


@pytest.fixture
def gateway(start):
    return start(listen="h2c = true")


def bearer(gateway):
    return ("authorization", f"Bearer {gateway.key}"), ("content-type", "application/json")


def ask(connection, gateway, model, **more):
    return connection.request(PATH, *bearer(gateway), body=json.dumps(chat(model, **more)).encode())


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
        connection.reset(leaving)
        gateway.provider.await_observed(model="sse-2000x10ms", end="client_closed")
        connection.await_event(h2.events.StreamEnded, staying)
    outcomes = {record["model"]: record["outcome"] for record in gateway.await_records(2)}
    assert outcomes == {"box/sse-2000x10ms": "client_gone", "box/sse-50x10ms": "answered"}


def test_a_stream_that_is_reset_before_the_head_cancels_the_provider(gateway):
    gateway.provider.forget()
    with http2.Connection(gateway.address) as connection:
        leaving = ask(connection, gateway, "box/silence")
        gateway.provider.await_observed(model="silence")
        connection.reset(leaving)
        gateway.provider.await_observed(model="silence", end="client_closed")
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
