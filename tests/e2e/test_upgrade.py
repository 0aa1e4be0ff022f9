"""A running gateway gives its sockets to a successor: nobody notices, and one that does not do is not noticed either."""

import collections
import fcntl
import json
import os
import pathlib
import signal
import socket
import stat
import subprocess
import threading
import time

import pytest
from hyperframe.frame import GoAwayFrame

from harness import http2, ports, programs, raw
from harness.gateway import Gateway, chat
from harness.process import is_gone
from harness.streams import Streams
from harness.waiting import until

UPGRADES = 20
CALLS_PER_SECOND = 300
STREAMS = 200
# Each makes a call several times in the delay, so that each is asked to close in time.
CONNECTIONS = 30


def process_id(gateway):
    """The process that serves."""
    return int((gateway.state / "tokenrouted.pid").read_text())


def children(process):
    """The processes that it has started, but for those that have ended."""
    threads = pathlib.Path(f"/proc/{process}/task").iterdir()
    listed = " ".join((thread / "children").read_text() for thread in threads)
    return [int(child) for child in listed.split() if not is_gone(child)]


class Upgradable(Gateway):
    """A gateway whose program can be replaced, and whose process changes."""

    def __init__(self, folder, provider, **parts):
        super().__init__(folder, provider, **parts)
        self.program = folder / "tokenrouted"
        self.install()
        self.processes = []
        text = self.config_text().replace("delay_seconds = 0", "delay_seconds = 0.5")
        self.write_config(text.replace("streams_seconds = 2", "streams_seconds = 60"))

    def install(self, script=None):
        """Puts a program in the place of the one that runs: a shell script, or else the real one."""
        fresh = self.folder / "fresh"
        if script is None:
            fresh.symlink_to(programs.find("tokenrouted"))
        else:
            fresh.write_text(f"#!/bin/sh\n{script}\n")
            fresh.chmod(0o755)
        os.replace(fresh, self.program)

    def start(self):
        # Started as it is typed, so that the file of this name is the one that a successor comes from.
        found, programs.find = programs.find, lambda _: self.program
        try:
            super().start()
        finally:
            programs.find = found
        self.processes = [process_id(self)]
        return self

    def upgrade(self):
        """The successor's process ID."""
        before = self.processes[-1]
        ran = self.command("upgrade")
        assert ran.returncode == 0, ran.stderr + self.process.log()[-2000:]
        self.processes.append(process_id(self))
        assert ran.stdout == f"process {self.processes[-1]} serves\n" and self.processes[-1] != before
        return self.processes[-1]

    def stop(self):
        for process in [self.process.pid, *self.processes, process_id(self) if self.has_process_id() else None]:
            if process and not is_gone(process):
                os.kill(process, signal.SIGINT)
        super().stop()
        for process in self.processes:
            until(lambda process=process: is_gone(process), f"{process} has ended")

    def has_process_id(self):
        return (self.state / "tokenrouted.pid").exists()


@pytest.fixture
def begin(folder, provider):
    """Starts a gateway that can be upgraded, and ends all of its processes."""
    running = []

    def one(**parts):
        gateway = Upgradable(folder / "edge", provider, **parts)
        running.append(gateway)
        return gateway.start()

    yield one
    for gateway in running:
        gateway.stop()
        assert "a defect" not in gateway.process.log()


class Probe:
    """A load balancer that looks whether the gateway is ready, and goes on looking."""

    def __init__(self, gateway):
        self.gateway, self.stopped, self.seen = gateway, False, collections.Counter()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        while not self.stopped:
            try:
                self.seen[self.gateway.page("/readyz")] += 1
            except OSError as error:
                self.seen[repr(error)] += 1

    def stop(self):
        """How often it saw what."""
        self.stopped = True
        self.thread.join()
        return self.seen


class Load:
    """Calls at a constant rate, run after run, until it is stopped."""

    def __init__(self, gateway):
        self.reports, self.gateway, self.stopped = [], gateway, False
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        host, port = self.gateway.address
        while not self.stopped:
            options = {"address": f"{host}:{port}", "model": "box/echo", "key": self.gateway.key, "rate": CALLS_PER_SECOND,
                       "connections": CONNECTIONS, "ramp-millis": 100, "warmup-millis": 0, "window-millis": 2_500}
            words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
            ran = subprocess.run([programs.find("driver"), *words], capture_output=True, text=True, timeout=30)
            self.reports.append(json.loads(ran.stdout) if ran.returncode == 0 else {"errors": ran.stderr, "requests": 0})

    def stop(self):
        """The reports."""
        self.stopped = True
        self.thread.join()
        return self.reports


def test_twenty_upgrades_fail_no_call_and_cut_no_stream(begin):
    gateway = begin()
    request = gateway.request(chat("box/sse-24x500ms", stream=True))
    streams = [Streams(gateway.address, [request] * (STREAMS // 2))]
    until(lambda: streams[0].begun == STREAMS // 2, "all streams have begun", 30)
    load, probe = Load(gateway), Probe(gateway)
    try:
        for _ in range(UPGRADES):
            streams.append(Streams(gateway.address, [request] * (STREAMS // 2 // UPGRADES)))
            gateway.upgrade()
    finally:
        reports, seen = load.stop(), probe.stop()
    assert seen.keys() == {(200, "ready\n")}, seen
    assert [report["errors"] for report in reports] == [0] * len(reports), reports
    streams = [stream for some in streams for stream in some.join()]
    assert len(streams) == STREAMS
    assert {(stream.is_done, stream.events, stream.error) for stream in streams} == {(True, streams[0].events, "")}
    for process in gateway.processes[:-1]:
        until(lambda process=process: is_gone(process), f"{process} leaves")
    assert gateway.process.await_end() == 0
    # Many processes wrote into one database. The driver leaves calls in the middle when its time is over.
    until(lambda: gateway.metric("tokenroute_calls_in_flight") == 0, "no call is in flight")
    until(lambda: gateway.metric("tokenroute_records_backlog") == 0, "all records are written")
    calls = sum(report["requests"] for report in reports)
    records = gateway.records()
    outcomes = collections.Counter(record["outcome"] for record in records)
    assert outcomes.pop("client_gone", 0) <= CONNECTIONS * len(reports)
    assert outcomes.keys() == {"answered"} and outcomes["answered"] >= calls + STREAMS
    assert len({record["call"] for record in records}) == len(records)
    # That there was somebody to notice.
    assert calls > CALLS_PER_SECOND and sum(report["reconnects"] for report in reports) > CONNECTIONS
    assert gateway.query("PRAGMA integrity_check") == [{"integrity_check": "ok"}]
    kept = {path.name: stat.S_IMODE(path.stat().st_mode) for path in gateway.state.iterdir()}
    assert kept.pop("journal") == 0o700, "a folder for its owner alone"
    assert set(kept.values()) == {0o600} and not any(name.endswith(".new") for name in kept)


def test_a_replaced_file_is_what_runs(begin):
    gateway = begin()
    gateway.install(f'IS_NEW=yes exec "{programs.find("tokenrouted")}" "$@"')
    process = gateway.upgrade()
    assert b"IS_NEW=yes" in pathlib.Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    assert gateway.ask(chat("box/echo")).status == 200
    assert gateway.process.await_end() == 0
    # Nothing of what the first one had open was left to it but what it was given.
    opened = [os.readlink(path) for path in pathlib.Path(f"/proc/{process}/fd").iterdir()]
    assert not any("deleted" in name for name in opened), opened


def test_a_configuration_of_the_day_comes_with_the_successor(begin):
    gateway = begin()
    gateway.write_config(gateway.config.read_text() + """
[[routes]]
model = "late"
targets = [{ provider = "box", model = "echo" }]
""")
    gateway.upgrade()
    assert gateway.ask(chat("late")).status == 200
    # A changed address is one that the successor listens on by itself.
    old, gateway.address = gateway.address, (gateway.address[0], ports.free())
    gateway.write_config(gateway.config.read_text().replace(f":{old[1]}\"", f":{gateway.address[1]}\""))
    gateway.upgrade()
    assert gateway.ask(chat("late")).status == 200
    with socket.socket() as probe:
        assert probe.connect_ex(old) != 0


def test_http_2_clients_are_sent_to_the_successor(begin):
    gateway = begin(listen="h2c = true")
    fields = ("authorization", f"Bearer {gateway.key}"), ("content-type", "application/json")
    with http2.Connection(gateway.address) as connection:
        stream = connection.request("/v1/chat/completions", *fields, body=json.dumps(chat("box/echo")).encode())
        assert connection.status(stream) == 200
        gateway.upgrade()
        assert any(isinstance(frame, GoAwayFrame) for frame in connection.read_frames())
    assert gateway.process.await_end() == 0
    with http2.Connection(gateway.address) as connection:
        stream = connection.request("/v1/chat/completions", *fields, body=json.dumps(chat("box/echo")).encode())
        assert connection.status(stream) == 200


def refuse(gateway):
    gateway.install("exit 7")
    return "exit status: 7"


def misconfigure(gateway):
    gateway.write_config(gateway.config.read_text().replace("[shutdown]", "[shutdown]\ncolour = 1"))
    return "shutdown.colour"


def lose_pepper(gateway):
    (gateway.state / "pepper").rename(gateway.state / "lost")
    return "pepper"


def remove_program(gateway):
    gateway.program.unlink()
    return "cannot be started"


@pytest.mark.parametrize("breaks", [refuse, misconfigure, lose_pepper, remove_program])
def test_a_bad_successor_leaves_the_old_one_serving(begin, breaks):
    gateway = begin()
    stream = Streams(gateway.address, [gateway.request(chat("box/sse-100x10ms", stream=True))])
    kept = gateway.config.read_text()
    why = breaks(gateway)
    for _ in range(2):
        ran = gateway.command("upgrade")
        assert ran.returncode == 2 and why in ran.stderr, ran
        assert process_id(gateway) == gateway.process.pid
        assert gateway.page("/readyz")[0] == 200
        assert gateway.ask(chat("box/echo")).header("connection") != "close"
    assert stream.join()[0].is_done
    assert "the upgrade failed" in gateway.process.log()
    # Repaired, it is upgraded after all.
    gateway.write_config(kept)
    gateway.install()
    if (gateway.state / "lost").exists():
        (gateway.state / "lost").rename(gateway.state / "pepper")
    gateway.upgrade()
    assert gateway.ask(chat("box/echo")).status == 200


def start_hanging_upgrade(gateway):
    """The command that waits, and the successor that does nothing."""
    gateway.install("exec sleep 600")
    command = [programs.find("tokenrouted"), "upgrade", "--config", gateway.config]
    waiting = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    return waiting, until(lambda: children(gateway.process.pid), "the successor is started")[0]


def test_one_upgrade_at_a_time(begin):
    gateway = begin()
    waiting, successor = start_hanging_upgrade(gateway)
    assert gateway.ask(chat("box/echo")).status == 200
    gateway.process.send(signal.SIGUSR2)
    until(lambda: "under way" in gateway.process.log(), "a second upgrade is refused")
    assert children(gateway.process.pid) == [successor] and waiting.poll() is None
    os.kill(successor, signal.SIGKILL)
    assert waiting.wait(10) == 2 and "signal: 9" in waiting.stderr.read()
    assert gateway.ask(chat("box/echo")).status == 200


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_who_is_told_to_end_does_not_wait_for_a_successor(begin, sent):
    gateway = begin()
    waiting, successor = start_hanging_upgrade(gateway)
    gateway.process.send(sent)
    assert gateway.process.await_end() == 0 and is_gone(successor)
    assert waiting.wait(10) == 2 and "told to end" in waiting.stderr.read()
    assert not gateway.has_process_id()


def test_who_has_a_successor_hears_a_stop_of_the_whole_unit_twice(begin):
    """A service manager tells all processes of a unit at once; streams of the old one still have their time."""
    gateway = begin()
    stream = Streams(gateway.address, [gateway.request(chat("box/sse-3000x10ms", stream=True))])
    until(lambda: stream.begun, "it has begun")
    gateway.upgrade()
    gateway.process.send(signal.SIGTERM)
    before = until(lambda: stream.all[0].events, "it goes on")
    until(lambda: stream.all[0].events > before + 50, "it goes on")
    gateway.process.send(signal.SIGTERM)
    assert stream.join()[0].is_told
    assert gateway.process.await_end() == 0


def test_nobody_to_upgrade(folder, provider):
    gateway = Upgradable(folder / "edge", provider)
    ran = gateway.command("upgrade")
    assert ran.returncode == 2 and "no tokenrouted runs" in ran.stderr
    gateway.start()
    gateway.process.child.kill()
    gateway.process.await_end()
    ran = gateway.command("upgrade")
    assert ran.returncode == 2 and "no tokenrouted runs" in ran.stderr


class Manager:
    """A service manager's side: listening sockets, and a socket for news."""

    def __init__(self, folder, count=2):
        self.listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
        self.ports = [listener.getsockname()[1] for listener in self.listeners]
        self.path = f"/tmp/notify-{os.getpid()}-{time.monotonic_ns()}"
        self.news = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.news.bind(self.path)
        self.news.settimeout(20)

    def run(self, gateway, names):
        """Starts `gateway` as systemd would."""
        # Out of the way of the numbers that the protocol wants.
        kept = [fcntl.fcntl(listener.fileno(), fcntl.F_DUPFD, 50) for listener in self.listeners]
        numbers = range(3, 3 + len(kept))

        def place():
            for descriptor, number in zip(kept, numbers, strict=True):
                os.dup2(descriptor, number, inheritable=True)

        script = 'export LISTEN_PID=$$; exec "$0" "$@"'
        self.child = subprocess.Popen(
            ["sh", "-c", script, gateway.program, "run", "--config", gateway.config],
            preexec_fn=place, pass_fds=list(numbers), stderr=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
            env={"PATH": os.environ["PATH"], "HOME": str(gateway.folder), "NOTIFY_SOCKET": self.path,
                 "LISTEN_FDS": str(len(kept)), "LISTEN_FDNAMES": names},
        )
        for descriptor in kept:
            os.close(descriptor)

    def hear(self):
        """The next piece of news."""
        return self.news.recv(4096).decode().split()

    def stop(self):
        if self.child.poll() is None:
            self.child.kill()
        self.child.stdout.close()
        os.unlink(self.path)


@pytest.mark.parametrize("names", ["edge:admin", "unknown:unknown"])
def test_sockets_of_a_service_manager(folder, provider, names):
    gateway = Upgradable(folder / "edge", provider)
    manager = Manager(folder)
    if names == "unknown:unknown":
        # Without names they are known by their addresses.
        text = gateway.config.read_text().replace(f":{gateway.port}\"", f":{manager.ports[0]}\"")
        gateway.write_config(text.replace(f":{gateway.admin_port}\"", f":{manager.ports[1]}\""))
    configured = gateway.port
    gateway.port, gateway.admin_port = manager.ports
    gateway.address = ("127.0.0.1", gateway.port)
    try:
        manager.run(gateway, names)
        assert manager.hear() == ["READY=1"]
        gateway.key, _ = gateway.create_key()
        assert gateway.ask(chat("box/echo")).status == 200 and gateway.page("/readyz")[0] == 200
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", configured)) != 0
        # They go on to a successor, and the manager is told who is in charge.
        ran = gateway.command("upgrade")
        assert ran.returncode == 0, ran.stderr
        successor = process_id(gateway)
        assert manager.hear() == [f"MAINPID={successor}"] and successor != manager.child.pid
        assert manager.child.wait(10) == 0
        assert gateway.ask(chat("box/echo")).status == 200 and gateway.page("/readyz")[0] == 200
        # In the end they are the manager's: who calls now waits for the next start.
        os.kill(successor, signal.SIGTERM)
        until(lambda: is_gone(successor), "it leaves")
        assert manager.hear() == ["STOPPING=1"]
        raw.Connection(gateway.address).close()
    finally:
        if gateway.has_process_id():
            os.kill(process_id(gateway), signal.SIGKILL)
        manager.stop()
