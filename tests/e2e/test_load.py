"""More than an edge can take: memory, descriptors, connections, calls. What runs goes on, and what cannot is told so at once."""

import concurrent.futures
import contextlib
import json
import socket
import sqlite3
import statistics
import subprocess
import time

import pytest

from harness import calls, programs, raw
from harness.gateway import Gateway, chat
from harness.waiting import until

MIB = 1 << 20
# Longer than any test holds it open.
LONG = "box/sse-3000x20ms"


def reason(answer):
    return json.loads(answer.body)["error"]["metadata"]["reason"]


def is_turned_away(answer):
    """503 with the time to come back after, spread so that not all come back together."""
    if answer.status != 503:
        return False
    assert reason(answer) == "overloaded"
    wait = int(answer.header("retry-after-ms"))
    assert 1_000 <= wait < 3_000 and int(answer.header("retry-after")) == -(-wait // 1_000)
    return True


def open_stream(gateway, key=None, model=LONG):
    """A connection on which the first piece of a stream has arrived."""
    connection = raw.Connection(gateway.address)
    connection.send(gateway.request(chat(model, stream=True), key=key))
    assert connection.read_head().status == 200
    connection.read_chunk()
    return connection


def is_let_in(address, source="127.0.0.1"):
    """A connection that stays, or `None` if it is closed without a word."""
    one = socket.create_connection(address, timeout=5, source_address=(source, 0))
    one.settimeout(0.3)
    try:
        assert one.recv(1) == b""
    except TimeoutError:
        return one
    except ConnectionResetError:
        pass
    one.close()
    return None


class Bodies:
    """Bodies that are never finished: what has arrived of them is held."""

    def __init__(self, gateway):
        self.gateway, self.open = gateway, []

    def send(self, size):
        connection = raw.Connection(self.gateway.address)
        self.open.append(connection)
        with contextlib.suppress(ConnectionError):
            head = self.gateway.head("/v1/chat/completions", ("content-length", size + 100))
            connection.send(head + b'{"x":"' + b"y" * size)

    def close(self):
        for connection in self.open:
            connection.close()


@pytest.fixture
def small(start):
    """An edge with little memory, all of which bodies may take: it is not their own bound that is met."""
    return start(sections=f"[limits]\nmemory_bytes_max = {96 * MIB}\nbuffered_bytes_max = {1 << 30}\n")


def used(gateway):
    """Which part of its memory is in use."""
    return gateway.metric("tokenroute_memory_bytes") / (96 * MIB)


def test_with_little_memory_calls_are_turned_away(small):
    assert small.metric("tokenroute_memory_limit_bytes") == 96 * MIB and used(small) < 0.6
    stream, kept = open_stream(small), raw.Connection(small.address)
    bodies = Bodies(small)

    def ask():
        kept.send(small.request(chat("box/echo")))
        return kept.read_answer()

    def is_full():
        # No further than it takes: connections are to be taken still.
        if used(small) < 0.86:
            bodies.send(MIB)
        return is_turned_away(ask())

    until(is_full, "calls are turned away", 60)
    shed = small.metric("tokenroute_shed_total", reason="memory")
    # The connection of who is turned away is kept, body and all.
    assert is_turned_away(ask()) and small.metric("tokenroute_shed_total", reason="memory") == shed + 1
    kept.send(raw.head("GET", "/v1/models", ("authorization", f"Bearer {small.key}")))
    assert kept.read_answer().status == 200, "what models there are is still told"
    assert stream.read_chunk(), "what runs goes on"
    bodies.close()
    until(lambda: ask().status == 200, "there is room again", 60)
    assert stream.read_chunk()
    stream.close()
    kept.close()


def test_with_next_to_no_memory_nobody_may_connect(small):
    # Bodies that have begun go on growing.
    slow = [raw.Connection(small.address) for _ in range(8)]
    for one in slow:
        one.send(small.head("/v1/chat/completions", ("content-length", 30 * MIB)) + b'{"x":"')
    stream = open_stream(small)

    def is_closed():
        if used(small) < 0.96:
            for one in slow:
                one.send(b"y" * (MIB // 4))
        return is_let_in(small.address) is None

    until(is_closed, "nobody may connect", 60)
    assert small.metric("tokenroute_connections_refused_total", reason="memory") >= 1
    assert stream.read_chunk(), "what runs goes on"
    for one in slow:
        one.close()
    until(lambda: is_let_in(small.address), "connections are taken again", 60).close()
    until(lambda: small.ask(chat("box/echo")).status == 200, "and calls", 60)
    stream.close()


class Poor(Gateway):
    """An edge with few file descriptors."""

    descriptors = 264

    def command_line(self):
        limit = f"--nofile={self.descriptors}:{self.descriptors}"
        return [programs.find_on_path("prlimit"), limit, *super().command_line()]


def test_without_descriptors_streams_go_on(folder, provider):
    gateway = Poor(folder / "poor", provider).start()
    try:
        assert "too few file descriptors" in gateway.process.log()
        streams = [open_stream(gateway) for _ in range(40)]
        # 264 less 64 in reserve, half for clients.
        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            others = [one for one in pool.map(lambda _: is_let_in(gateway.address), range(80)) if one]
        assert len(others) + len(streams) == 100
        refused = gateway.metric("tokenroute_connections_refused_total", reason="total")
        assert refused >= 1 and is_let_in(gateway.address) is None
        # Everything else has descriptors: operators' pages, and the store that a new key is looked up in.
        key, _ = gateway.create_key("late")
        others.pop().close()
        until(lambda: gateway.ask(chat("box/echo"), key=key).status == 200, "a new connection is served", 2)
        assert all(stream.read_chunk() for stream in streams)
        assert "cannot be accepted" not in gateway.process.log()
        for one in [*streams, *others]:
            one.close()
        until(lambda: gateway.ask(chat("box/echo")).status == 200, "it serves again", 2)
    finally:
        gateway.stop()


def test_one_source_does_not_take_all_connections(start):
    gateway = start(sections="[limits]\nconnections_per_source_max = 3\n")
    from_one = [is_let_in(gateway.address, "127.0.0.3") for _ in range(3)]
    assert all(from_one) and is_let_in(gateway.address, "127.0.0.3") is None
    other = is_let_in(gateway.address, "127.0.0.4")
    assert other and gateway.metric("tokenroute_connections_refused_total", reason="source") == 1
    from_one.pop().close()
    again = until(lambda: is_let_in(gateway.address, "127.0.0.3"), "there is room for another")
    for one in [*from_one, other, again]:
        one.close()


def test_a_greedy_key_leaves_room_for_others(start, capsys):
    """One key asks for a hundred times what there is; who asks for a little is always served."""
    gateway = start(sections="[limits]\ncalls_max = 36\n")
    greedy, _ = gateway.create_key("greedy")

    def serve_quiet(count):
        took = []
        for _ in range(count):
            began = time.monotonic()
            answer = gateway.ask(chat("box/echo"))
            took.append(time.monotonic() - began)
            assert answer.status == 200, answer.body
        return took

    alone = serve_quiet(60)
    request = gateway.request(chat("box/sse-20x50ms", stream=True), key=greedy)
    noise = calls.Warm(lambda: (gateway.address, request), 300, connections=200)
    until(lambda: gateway.metric("tokenroute_shed_total", reason="key_share") > 20, "the greedy key has its share")
    beside = serve_quiet(60)
    made = noise.stop()
    turned_away = [one for one in made if one.status == 503]
    assert len(turned_away) > 20 and {one.reason for one in turned_away} == {"overloaded"}
    served = [one for one in made if one.status == 200]
    assert served and all(one.complete for one in served)
    assert gateway.metric("tokenroute_shed_total", reason="calls") == 0
    p99 = [calls.percentile(took, 0.99) for took in (alone, beside)]
    with capsys.disabled():
        print(f" quiet key: p50 {statistics.median(alone):.4f} s alone, {statistics.median(beside):.4f} beside;"
              f" p99 ratio {p99[1] / p99[0]:.2f}", end=" ")


def test_a_key_alone_may_have_most_of_the_calls(start):
    asked = 60
    gateway = start(sections="[limits]\ncalls_max = 18\n")
    answers = calls.at_once([gateway.address], [gateway.request(chat("box/sse-20x50ms", stream=True))] * asked)
    # Eight ninths of them.
    assert sum(one.status == 200 for one in answers) == 16
    assert sum(one.status == 503 for one in answers) == asked - 16
    records = gateway.await_records(16)
    assert {one["outcome"] for one in records} == {"answered"}, "who is turned away leaves a count, and no record"
    assert gateway.metric("tokenroute_shed_total") == asked - 16


def test_many_routes_and_keys_do_not_keep_a_start_waiting(start, capsys):
    gateway = start()
    gateway.stop()
    with contextlib.closing(sqlite3.connect(gateway.state / "tokenroute.db")) as database, database:
        names = [column[1] for column in database.execute("PRAGMA table_info(api_keys)")]
        first = dict(zip(names, database.execute("SELECT * FROM api_keys").fetchone(), strict=True))
        rows = (first | {"id": other(first["id"], turn), "hash": other(first["hash"], turn)} for turn in range(100_000))
        columns, marks = ", ".join(names), ", ".join("?" * len(names))
        database.executemany(f"INSERT INTO api_keys ({columns}) VALUES ({marks})", (tuple(row.values()) for row in rows))
    route = '[[routes]]\nmodel = "many-{0}"\ntargets = [{{ provider = "box", model = "echo" }}]\n'
    gateway.parts["routes"] = "".join(map(route.format, range(9_990)))
    gateway.write_config()
    began = time.monotonic()
    gateway.start()
    with capsys.disabled():
        print(f" ready after {time.monotonic() - began:.2f} s", end=" ")
    assert gateway.ask(chat("many-9989")).status == 200


def other(value, turn):
    """A value of the same form that nothing else has."""
    if isinstance(value, bytes):
        return turn.to_bytes(len(value), "big")
    tail = f"{turn:06d}"
    return value[:-len(tail)] + tail


def test_threads_that_are_late_turn_calls_away_until_they_are_not(start):
    gateway = start(sections="[limits]\nlag_seconds_max = 0.02\n")
    running = open_stream(gateway)
    # More connections with more to say than two threads can do; what is said is thrown away as fast as it comes.
    load = subprocess.Popen(
        [programs.find("driver"), "--address", f"127.0.0.1:{gateway.port}", "--key", gateway.key, "--mode", "sse",
         "--model", "box/load-sse-2000-0", "--connections", "300", "--window-millis", "60000"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: gateway.metric("tokenroute_shed_total", reason="lag") > 0, "calls are turned away", 50)
        assert running.read_chunk(), "what runs goes on"
    finally:
        load.kill()
        load.wait()
    until(lambda: gateway.metric("tokenroute_shed_share") == 0, "nobody is turned away any more", 30)
    until(lambda: gateway.ask(chat("box/echo")).status == 200, "it serves again", 30)
    assert running.read_chunk()
    running.close()
