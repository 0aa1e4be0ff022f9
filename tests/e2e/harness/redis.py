"""A real Redis of the test's own."""

import signal
import socket

from harness import ports, programs
from harness.process import Process


class Redis:
    """A running `redis-server`. A durable one writes what it is told to a file, synced each second, as the hot store of
    money is to be run; another forgets all when it ends."""

    def __init__(self, folder, name="redis", durable=False):
        self.folder = folder
        self.durable = durable
        self.name = name
        self.port = ports.free()
        self.url = f"redis://127.0.0.1:{self.port}"
        self.start()

    def start(self):
        options = ["--save", "", "--appendonly", "yes" if self.durable else "no", "--appendfsync", "everysec"]
        options += ["--appenddirname", f"{self.name}-log", "--bind", "127.0.0.1", "--port", self.port]
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

    def commands(self):
        """How many commands of each kind it has executed, but for those that its own scripts gave."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
            connection.sendall(b"*2\r\n$4\r\nINFO\r\n$12\r\ncommandstats\r\n")
            file = connection.makefile("rb")
            text = file.read(int(file.readline()[1:])).decode()
        lines = [line.removeprefix("cmdstat_") for line in text.splitlines() if line.startswith("cmdstat_")]
        return {name: int(rest.split(",")[0].removeprefix("calls=")) for name, _, rest in (line.partition(":") for line in lines)}

    def freeze(self):
        """Connections stay open and nothing is answered."""
        self.process.send(signal.SIGSTOP)

    def thaw(self):
        self.process.send(signal.SIGCONT)

    def kill(self):
        self.process.child.kill()
        self.process.await_end()
