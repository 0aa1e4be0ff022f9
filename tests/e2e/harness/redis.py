"""A real Redis of the test's own."""

import collections
import contextlib
import signal
import socket
import ssl
import threading

from harness import ports, programs
from harness.process import Process


class Monitor:
    """Counts the commands that clients send, by name, until it is stopped. What scripts do inside is no round trip and
    is not counted, though INFO's own statistics would."""

    def __init__(self, port, keep=False):
        self.counts = collections.Counter()
        # All that was said, if it is kept.
        self.kept = [] if keep else None
        self.connection = socket.create_connection(("127.0.0.1", port), timeout=5)
        self.connection.sendall(b"*1\r\n$7\r\nMONITOR\r\n")
        self.file = self.connection.makefile("rb")
        assert self.file.readline() == b"+OK\r\n"
        self.thread = threading.Thread(target=self._count, daemon=True)
        self.thread.start()

    def _count(self):
        # +1339518083.107412 [0 127.0.0.1:60866] "keys" "*"
        with contextlib.suppress(OSError, ValueError):
            for line in self.file:
                if self.kept is not None:
                    self.kept.append(line)
                where, _, rest = line.partition(b"] ")
                if not where.endswith(b" lua"):
                    self.counts[rest.split(b'"')[1].decode().lower()] += 1

    def stop(self):
        self.connection.shutdown(socket.SHUT_RDWR)
        self.thread.join(5)
        self.connection.close()
        return self.counts


class Redis:
    """A running `redis-server`. A durable one writes what it is told to a file, synced each second, as the hot store of
    money is to be run; another forgets all when it ends."""

    def __init__(self, folder, name="redis", durable=False, certificate=None, replica_of=None):
        """With a certificate and its key it takes no connections without TLS."""
        self.certificate, self.replica_of = certificate, replica_of
        self.folder = folder
        self.durable = durable
        self.name = name
        self.port = ports.free()
        self.url = f"rediss://localhost:{self.port}" if certificate else f"redis://127.0.0.1:{self.port}"
        self.start()

    def start(self):
        options = ["--save", "", "--appendonly", "yes" if self.durable else "no", "--appendfsync", "everysec"]
        options += ["--appenddirname", f"{self.name}-log", "--bind", "127.0.0.1"]
        options += ["--port", "0", "--tls-port", self.port] if self.certificate else ["--port", self.port]
        if self.replica_of:
            options += ["--replicaof", "127.0.0.1", self.replica_of.port]
        if self.certificate:
            certificate, key = self.certificate
            options += ["--tls-cert-file", certificate, "--tls-key-file", key, "--tls-auth-clients", "no"]
        command = [programs.find_on_path("redis-server"), *options, "--dir", self.folder]
        self.process = Process(self.name, command, self.folder)
        self.process.await_ready(lambda: self.ask("PING") == b"+PONG", "Redis answers")

    def ask(self, *words):
        """The first line of its answer to a command; empty if it does not answer."""
        text = f"*{len(words)}\r\n" + "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
        try:
            with self._connect() as connection:
                connection.sendall(text.encode())
                return connection.makefile("rb").readline().strip()
        except OSError:
            return b""

    def is_in_step(self):
        """Whether a replica has all that its primary has told it of."""
        return b"master_link_status:up" in self.info("replication") and b"master_sync_in_progress:0" in self.info("replication")

    def info(self, section):
        with contextlib.suppress(OSError), self._connect() as connection:
            connection.sendall(f"*2\r\n$4\r\nINFO\r\n${len(section)}\r\n{section}\r\n".encode())
            file = connection.makefile("rb")
            return file.read(int(file.readline()[1:]))
        return b""

    def promote(self):
        """A replica is a primary from now on."""
        assert self.ask("REPLICAOF", "NO", "ONE") == b"+OK"
        self.replica_of = None

    def _connect(self):
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=2)
        if not self.certificate:
            return connection
        trusting = ssl.create_default_context(cafile=self.certificate[0])
        return trusting.wrap_socket(connection, server_hostname="localhost")

    def monitor(self, keep=False):
        return Monitor(self.port, keep)

    def snapshot(self):
        """All keys and values, as a file has them that is not compressed."""
        assert self.ask("CONFIG", "SET", "rdbcompression", "no") == b"+OK" and self.ask("SAVE") == b"+OK"
        return (self.folder / "dump.rdb").read_bytes()

    def freeze(self):
        """Connections stay open and nothing is answered."""
        self.process.send(signal.SIGSTOP)

    def thaw(self):
        self.process.send(signal.SIGCONT)

    def kill(self):
        self.process.child.kill()
        self.process.await_end()
