"""Addresses where nothing good happens: nobody listens, nobody accepts, nobody can be trusted."""

import contextlib
import socket
import ssl
import subprocess
import threading

from harness import ports, programs

# More connections than the queue of a socket that listens with a backlog of 0.
FILL = 4


class Hole:
    """A black hole: its queue is full, so that a connect is neither accepted nor refused."""

    def __init__(self):
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", ports.free()))
        self.listener.listen(0)
        self.fill = []
        for _ in range(FILL):
            one = socket.socket()
            one.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                one.connect(self.listener.getsockname())
            self.fill.append(one)

    @property
    def base_url(self):
        return "http://127.0.0.1:%d/v1" % self.listener.getsockname()[1]

    def close(self):
        for one in [*self.fill, self.listener]:
            one.close()


class Stranger:
    """A TLS server whose certificate nobody has signed."""

    def __init__(self, folder):
        key, certificate = folder / "stranger.key", folder / "stranger.pem"
        subprocess.run(
            [programs.find_on_path("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1",
             "-keyout", key, "-out", certificate],
            check=True, capture_output=True,
        )
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate, key)
        self.listener = socket.create_server(("127.0.0.1", ports.free()))
        self.accepted = 0
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    @property
    def base_url(self):
        return "https://127.0.0.1:%d/v1" % self.listener.getsockname()[1]

    def _serve(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.accepted += 1
            with contextlib.suppress(OSError, ssl.SSLError), self.context.wrap_socket(connection, server_side=True) as one:
                one.recv(1)

    def close(self):
        # Wakes the thread that accepts, which closing does not.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(5)


def nobody():
    """The base URL of a port at which nobody listens."""
    return f"http://127.0.0.1:{ports.free()}/v1"
