"""A real Redis of the test's own."""

import signal
import socket

from harness import ports, programs
from harness.process import Process


class Redis:
    """A running `redis-server` without persistence."""

    def __init__(self, folder, name="redis"):
        self.folder = folder
        self.name = name
        self.port = ports.free()
        self.url = f"redis://127.0.0.1:{self.port}"
        self.start()

    def start(self):
        options = ["--save", "", "--appendonly", "no", "--bind", "127.0.0.1", "--port", self.port]
        command = [programs.find_on_path("redis-server"), *options, "--dir", self.folder]
        self.process = Process(self.name, command, self.folder)
        self.process.await_ready(lambda: self.ask("PING") == b"+PONG", "Redis answers")

    def ask(self, *words):
        """The first line of its answer to a command; empty if it does not answer."""
        text = f"*{len(words)}\r\n" + "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
                connection.sendall(text.encode())
                return connection.makefile("rb").readline().strip()
        except OSError:
            return b""

    def freeze(self):
        """Connections stay open and nothing is answered."""
        self.process.send(signal.SIGSTOP)

    def thaw(self):
        self.process.send(signal.SIGCONT)

    def kill(self):
        self.process.child.kill()
        self.process.await_end()
