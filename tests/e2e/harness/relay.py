"""An address that stays while what is behind it changes, as a name or a balancer before a pair of servers."""

import contextlib
import selectors
import socket
import threading

from harness import ports

CHUNK = 65_536


class Relay:
    """Passes connections on to a port. When that changes, those that stand are closed."""

    def __init__(self, port):
        self.behind, self.open, self.lock = port, set(), threading.Lock()
        self.port = ports.free()
        self.listener = socket.create_server(("127.0.0.1", self.port), backlog=128)
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self):
        """As a Redis."""
        return f"redis://127.0.0.1:{self.port}"

    def switch(self, port):
        with self.lock:
            self.behind, standing = port, list(self.open)
        for one in standing:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self):
        # Wakes the thread that accepts, which closing does not.
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.switch(0)

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client):
        with contextlib.suppress(OSError), client, socket.create_connection(("127.0.0.1", self.behind), timeout=2) as server:
            server.settimeout(None)
            with self.lock:
                self.open |= {client, server}
            try:
                pump(client, server)
            finally:
                with self.lock:
                    self.open -= {client, server}


def pump(one, other):
    """Passes bytes both ways until either end has had enough."""
    with selectors.DefaultSelector() as ready:
        ready.register(one, selectors.EVENT_READ, other)
        ready.register(other, selectors.EVENT_READ, one)
        while True:
            for key, _ in ready.select():
                data = key.fileobj.recv(CHUNK)
                if not data:
                    return
                key.data.sendall(data)
