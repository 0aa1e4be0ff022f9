"""Clients that take their time: to say something, to finish a head, to send a body, to ask again."""

import csv
import json
import os
import resource
import ssl
import subprocess
import threading
import time

import pytest

from harness import http2, programs, raw
from harness.gateway import chat
from harness.tls import make_certificate

# Slow connections at once. An operator of less than that many files says how many.
CONNECTIONS = int(os.environ.get("TOKENROUTE_SLOW_CONNECTIONS", "5000"))
# In which slowhttptest opens them, and what they may take: ten seconds, and one for the clocks.
OPENED_SECONDS, CLOSED_SECONDS = 2, 11
# Far less than the defaults, which the tests would run into otherwise.
SHORT = 0.4
LONG_BEFORE_DEFAULT = 7.0

HEAD = b"GET /v1/models HTTP/1.1\r\nHost: gateway\r\nx-slow: "


def limits(**seconds):
    return "[limits]\n" + "\n".join(f"{name} = {value}" for name, value in seconds.items())


def seconds_until_closed(connection, drip=None):
    """How long the other side keeps it open while a byte is sent now and then; and what it said."""
    start, said = time.monotonic(), b""
    connection.socket.settimeout(SHORT / 4)
    while time.monotonic() - start < raw.TIMEOUT_SECONDS:
        try:
            part = connection.socket.recv(65536)
            if not part:
                return time.monotonic() - start, said
            said += part
        except TimeoutError:
            if drip:
                try:
                    connection.send(drip)
                except OSError:
                    drip = None
        except ConnectionResetError:
            return time.monotonic() - start, said
    raise AssertionError(f"it is still open: {said!r}")


def reason_of(said):
    return json.loads(said.partition(b"\r\n\r\n")[2])["error"]["metadata"]["reason"]


@pytest.fixture
def short(start):
    return start(listen="h2c = true", sections=limits(first_byte_seconds=SHORT, head_total_seconds=SHORT))


def test_who_says_nothing_is_not_waited_for(short):
    with raw.Connection(short.address) as connection:
        took, said = seconds_until_closed(connection)
    assert said == b"" and took < LONG_BEFORE_DEFAULT
    assert short.records() == []


def test_a_head_has_its_time_however_busy_it_is(short):
    with raw.Connection(short.address) as connection:
        connection.send(HEAD)
        took, said = seconds_until_closed(connection, drip=b"x")
    assert said.startswith(b"HTTP/1.1 408 ") and reason_of(said) == "head_timeout"
    assert SHORT / 2 < took < LONG_BEFORE_DEFAULT
    record, = short.await_records(1)
    assert (record["outcome"], record["error"], record["status"]) == ("refused", "head_timeout", 408)


def test_so_has_the_head_of_a_second_request(start):
    gateway = start(sections=limits(first_byte_seconds=SHORT, head_total_seconds=SHORT))
    with raw.Connection(gateway.address) as connection:
        connection.send(gateway.request(chat("box/echo")))
        assert connection.read_answer().status == 200
        # Between two requests there is more time than that.
        assert connection.is_silent(2 * SHORT)
        connection.send(gateway.request(chat("box/echo")))
        assert connection.read_answer().status == 200
        connection.send(HEAD)
        took, said = seconds_until_closed(connection, drip=b"x")
    assert reason_of(said) == "head_timeout" and took < LONG_BEFORE_DEFAULT


def test_what_follows_a_head_is_no_head(start):
    """Neither a body nor an answer is hurried because the head was slow."""
    gateway = start(sections=limits(first_byte_seconds=1, head_total_seconds=1))
    request = gateway.request(chat("box/sse-40x50ms", stream=True))
    with raw.Connection(gateway.address) as connection:
        connection.send(request[:30])
        time.sleep(0.3)
        head_end = request.index(b"\r\n\r\n") + 4
        connection.send(request[30:head_end])
        time.sleep(1.2)
        connection.send(request[head_end:])
        answer = connection.read_answer()
    assert answer.status == 200 and answer.complete and answer.body.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("sent", [b"", b"PRI * HT", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"], ids=["nothing", "half", "whole"])
def test_a_preface_is_a_head(short, sent):
    with raw.Connection(short.address) as connection:
        connection.send(sent)
        took, _ = seconds_until_closed(connection)
    assert took < LONG_BEFORE_DEFAULT


def test_after_the_preface_streams_have_their_own_time(short):
    with http2.Connection(short.address) as connection:
        time.sleep(3 * SHORT)
        fields = [("authorization", f"Bearer {short.key}")]
        assert connection.status(connection.request("/v1/embeddings", *fields, body=b"{}")) == 400


@pytest.mark.parametrize("protocol", ["http/1.1", "h2"])
def test_behind_tls_it_is_the_same(start, folder, protocol):
    certificate, key = make_certificate(folder)
    gateway = start(listen=f'[listen.tls]\ncertificate = "{certificate}"\nkey = "{key}"',
                    sections=limits(first_byte_seconds=SHORT, head_total_seconds=SHORT))
    context = ssl.create_default_context(cafile=certificate)
    context.set_alpn_protocols([protocol])
    for sent in (b"", b"GET /v1/"):
        with raw.Connection(gateway.address) as connection:
            connection.socket = context.wrap_socket(connection.socket, server_hostname="localhost")
            assert connection.socket.selected_alpn_protocol() == protocol
            connection.send(sent)
            assert seconds_until_closed(connection)[0] < LONG_BEFORE_DEFAULT


def test_a_handshake_has_its_time(start, folder):
    certificate, key = make_certificate(folder)
    gateway = start(listen=f'[listen.tls]\ncertificate = "{certificate}"\nkey = "{key}"')
    with raw.Connection(gateway.address) as silent, raw.Connection(gateway.address) as slow:
        slow.send(b"\x16\x03\x01\x02\x00")
        # Ten seconds, whatever is configured.
        assert seconds_until_closed(slow)[1] == b""
        assert seconds_until_closed(silent)[0] < LONG_BEFORE_DEFAULT


def test_a_body_has_to_come_at_some_speed(start):
    gateway = start(sections=limits(body_grace_seconds=SHORT, body_bytes_per_second_min=1_000))
    with raw.Connection(gateway.address) as connection:
        connection.send(gateway.head("/v1/chat/completions", ("content-length", 100_000)) + b'{"model":"box/echo","x":"')
        took, said = seconds_until_closed(connection, drip=b"x")
    assert said.startswith(b"HTTP/1.1 408 ") and reason_of(said) == "body_timeout" and took < LONG_BEFORE_DEFAULT


def test_a_body_that_comes_at_that_speed_has_its_time(start):
    gateway = start(sections=limits(body_grace_seconds=SHORT, body_bytes_per_second_min=10))
    request = gateway.request(chat("box/echo"))
    head_end = request.index(b"\r\n\r\n") + 4
    with raw.Connection(gateway.address) as connection:
        connection.send(request[:head_end])
        for at in range(head_end, len(request), 10):
            connection.send(request[at:at + 10])
            time.sleep(SHORT / 4)
        assert connection.read_answer().status == 200


def test_a_connection_is_not_kept_for_ever(start):
    gateway = start(sections=limits(keepalive_seconds=1))
    with raw.Connection(gateway.address) as connection:
        connection.send(gateway.request(chat("box/echo")))
        assert connection.read_answer().status == 200
        took, said = seconds_until_closed(connection)
    assert said == b"" and took < LONG_BEFORE_DEFAULT


def test_a_connection_takes_so_many_requests(start):
    gateway = start(sections=limits(requests_per_connection_max=3))
    with raw.Connection(gateway.address) as connection:
        served = 0
        while True:
            connection.send(gateway.head("/v1/models", method="GET"))
            answer = connection.read_answer()
            served += 1
            assert answer.status == 200 and served <= 4
            if answer.header("connection") == "close":
                break
        seconds_until_closed(connection)


class Normal(threading.Thread):
    """A client as others are, on a connection of its own for every call."""

    def __init__(self, gateway):
        super().__init__(daemon=True)
        self.gateway, self.over, self.took, self.errors = gateway, threading.Event(), [], []

    def run(self):
        while not self.over.is_set():
            start = time.monotonic()
            try:
                answer = self.gateway.ask(chat("box/echo"))
                if answer.status != 200:
                    self.errors.append(answer)
            except (OSError, EOFError) as error:
                self.errors.append(error)
            self.took.append(time.monotonic() - start)
            self.over.wait(0.02)


@pytest.fixture
def many_files():
    """Files for both sides, as many as the system lets a process have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    assert hard > CONNECTIONS + 500, "ulimit -Hn is too low for this test: set TOKENROUTE_SLOW_CONNECTIONS"
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.timeout(120)
def test_thousands_of_slow_heads(many_files, start, folder):
    """slowhttptest drips heads over thousands of connections: each is closed in time, and nobody else notices."""
    # As it comes, but for the calls that a client makes.
    gateway = start(sections="[tiers.default]\nrequests_per_second = 100_000")
    normal = Normal(gateway)
    normal.start()
    command = [programs.find_on_path("slowhttptest"), "-H", "-c", CONNECTIONS, "-r", CONNECTIONS // OPENED_SECONDS, "-i", 3,
               "-l", 40, "-p", 5, "-u", f"http://127.0.0.1:{gateway.port}/v1/models", "-g", "-o", folder / "slow"]
    ran = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=100)
    normal.over.set()
    normal.join()
    assert ran.returncode == 0, ran.stdout[-2000:]
    with open(folder / "slow.csv") as lines:
        rows = [[int(cell) for cell in row[:4]] for row in csv.reader(lines) if row and row[0].isdigit()]
    closed = {second: count for second, count, _, _ in rows}
    opened = {second: closed_by + connected for second, closed_by, _, connected in rows}
    assert max(opened.values()) == CONNECTIONS
    for second, count in opened.items():
        # The last line is from before the last of them was closed.
        if second + CLOSED_SECONDS in closed:
            assert closed[second + CLOSED_SECONDS] >= count, rows
    assert max(closed) <= min(second for second, count in opened.items() if count == CONNECTIONS) + CLOSED_SECONDS, rows
    assert normal.errors == [] and len(normal.took) > 20
    assert gateway.metric("tokenroute_panics_total") == 0
