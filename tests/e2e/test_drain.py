"""Going down: nobody is cut without a word, nobody is turned away too early, and every call is recorded."""

import collections
import errno
import json
import signal
import socket
import time

import h2.events
import pytest
from hyperframe.frame import DataFrame, GoAwayFrame

from harness import http2, raw
from harness.gateway import Gateway, chat
from harness.streams import Streams
from harness.waiting import until

# Generous: it is gone within 2 s after its last call.
LEAVES_SECONDS = 5.0


@pytest.fixture
def drain(folder, provider):
    """Starts a gateway with these times to go down, and stops it at the end."""
    running = []

    def one(delay, streams, **parts):
        gateway = Gateway(folder / "edge", provider, **parts)
        text = gateway.config_text().replace("delay_seconds = 0", f"delay_seconds = {delay}")
        gateway.write_config(text.replace("streams_seconds = 2", f"streams_seconds = {streams}"))
        running.append(gateway)
        return gateway.start()

    yield one
    for gateway in running:
        gateway.stop()
        assert "panicked" not in gateway.process.log()


def is_refused(gateway):
    """Whether nobody listens."""
    with socket.socket() as probe:
        return probe.connect_ex(gateway.address) == errno.ECONNREFUSED


def test_a_thousand_streams_leave_a_thousand_records(drain):
    gateway = drain(0.5, 8)
    models = ["box/sse-8x500ms", "box/sse-1000x500ms"] * 500
    streams = Streams(gateway.address, [gateway.request(chat(model, stream=True)) for model in models])
    until(lambda: streams.begun == 1000, "all streams have begun", 40)
    gateway.process.send(signal.SIGTERM)
    until(lambda: gateway.page("/readyz")[0] == 503, "it says that it is not ready")
    last = max(stream.ended_at for stream in streams.join())
    assert gateway.process.await_end() == 0
    assert time.monotonic() - last < LEAVES_SECONDS
    for model, stream in zip(models, streams.all, strict=True):
        assert stream.is_done if model == models[0] else stream.is_told, (model, stream.error, stream.data[-300:])
    records = gateway.records()
    assert len({record["call"] for record in records}) == len(records) == 1000
    assert collections.Counter(record["outcome"] for record in records) == {"answered": 500, "shutdown": 500}
    assert all(record["output"] > 0 and record["usage_source"] != "none" for record in records)


def test_the_delay_is_for_those_who_are_there_and_those_who_come(drain):
    gateway = drain(3, 20)
    busy, silent = raw.Connection(gateway.address), raw.Connection(gateway.address)
    busy.send(gateway.request(chat("box/echo")))
    assert busy.read_answer().header("connection") != "close"
    early = raw.Connection(gateway.address)
    stream = raw.Connection(gateway.address)
    stream.send(gateway.request(chat("box/sse-600x10ms", stream=True)))
    assert stream.read_head().status == 200
    gateway.process.send(signal.SIGTERM)
    until(lambda: gateway.page("/readyz")[0] == 503, "it says that it is not ready")
    # Who was there before, who connected before, and who comes now: each is answered once more.
    for connection in (busy, early, raw.Connection(gateway.address)):
        connection.send(gateway.request(chat("box/echo")))
        answer = connection.read_answer()
        assert (answer.status, answer.header("connection")) == (200, "close")
        assert connection.socket.recv(1) == b""
    # Who says nothing is let go without a reset, when nobody is accepted any more.
    assert silent.socket.recv(1) == b""
    until(lambda: is_refused(gateway), "nobody listens")
    assert gateway.metric("tokenroute_calls_in_flight") == 1
    text = b""
    while part := stream.read_chunk():
        text += part
    assert text.endswith(b"data: [DONE]\n\n")
    assert gateway.process.await_end() == 0
    assert [record["outcome"] for record in gateway.records()] == ["answered"] * 5


def test_http_2_clients_are_sent_away_and_served_to_the_end(drain):
    gateway = drain(0.3, 20, listen="h2c = true")
    fields = ("authorization", f"Bearer {gateway.key}"), ("content-type", "application/json")
    with http2.Connection(gateway.address) as connection, http2.Connection(gateway.address) as idle:
        body = json.dumps(chat("box/sse-200x10ms", stream=True)).encode()
        stream = connection.request("/v1/chat/completions", *fields, body=body)
        connection.await_event(h2.events.DataReceived, stream)
        gateway.process.send(signal.SIGTERM)
        frames = list(connection.read_frames())
        away = next(place for place, frame in enumerate(frames) if isinstance(frame, GoAwayFrame))
        data = [frame for frame in frames[away:] if isinstance(frame, DataFrame)]
        assert b"".join(frame.data for frame in data).endswith(b"data: [DONE]\n\n")
        assert "END_STREAM" in data[-1].flags
        assert any(isinstance(frame, GoAwayFrame) for frame in idle.read_frames())
    assert gateway.process.await_end() == 0
    assert [record["outcome"] for record in gateway.records()] == ["answered"]


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_is_an_end_at_once(drain, second):
    gateway = drain(0, 60)
    streams = Streams(gateway.address, [gateway.request(chat("box/sse-3000x10ms", stream=True))] * 5)
    until(lambda: streams.begun == 5, "all streams have begun")
    gateway.process.send(signal.SIGTERM)
    until(lambda: is_refused(gateway), "nobody listens")
    assert streams.open == 5
    gateway.process.send(second)
    assert all(stream.is_told for stream in streams.join(LEAVES_SECONDS))
    assert gateway.process.await_end() == 0
    assert [record["outcome"] for record in gateway.records()] == ["shutdown"] * 5
