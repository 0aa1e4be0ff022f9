"""HTTP/1.1 over a bare socket, for what no client library would send or show."""

import dataclasses
import socket

from harness.scale import scaled

# Longer than any deadline that a test waits for.
TIMEOUT_SECONDS = max(20.0, scaled(60))


@dataclasses.dataclass
class Answer:
    """An answer as it came."""

    status: int
    fields: list
    body: bytes = b""
    # Whether its framing says that nothing is missing.
    complete: bool = True

    def header(self, name):
        found = [value for field, value in self.fields if field == name]
        assert len(found) <= 1, f"{name} came {len(found)} times"
        return found[0] if found else None


def head(method, path, *fields):
    """The bytes of a request head."""
    lines = [f"{method} {path} HTTP/1.1", "host: gateway", *(f"{name}: {value}" for name, value in fields)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


class Connection:
    """One connection to an address."""

    def __init__(self, address, timeout=TIMEOUT_SECONDS, source=None):
        self.socket = socket.create_connection(address, timeout=timeout, source_address=source and (source, 0))
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def reset(self):
        """Leaves without a farewell: a RST instead of a FIN."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def is_silent(self, seconds):
        """Whether nothing comes for so long."""
        self.socket.settimeout(seconds)
        try:
            data = self.socket.recv(65536)
        except TimeoutError:
            return not self.buffer
        finally:
            self.socket.settimeout(TIMEOUT_SECONDS)
        self.buffer += data
        return False

    def _more(self):
        data = self.socket.recv(1 << 20)
        self.buffer += data
        return bool(data)

    def _line(self):
        while b"\r\n" not in self.buffer:
            if not self._more():
                raise EOFError(f"closed after {self.buffer!r}")
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line

    def _take(self, count):
        parts, missing = [], count
        while missing:
            if not self.buffer and not self._more():
                raise EOFError
            part, self.buffer = self.buffer[:missing], self.buffer[missing:]
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def read_head(self):
        status = int(self._line().split(b" ")[1])
        fields = []
        while line := self._line():
            name, value = line.decode("latin-1").split(":", 1)
            fields.append((name.lower(), value.strip()))
        return Answer(status, fields)

    def read_chunk(self):
        """The next chunk of a chunked body; empty is the last."""
        size = int(self._line(), 16)
        data = self._take(size)
        assert self._line() == b""
        return data

    def read_answer(self):
        """Head and body, as far as they come."""
        answer = self.read_head()
        while answer.status < 200:
            answer = self.read_head()
        parts = []
        try:
            if answer.header("transfer-encoding") == "chunked":
                while part := self.read_chunk():
                    parts.append(part)
            elif (length := answer.header("content-length")) is not None:
                missing = int(length)
                while missing:
                    # Piecewise, so that what came of a body that was cut is kept.
                    parts.append(self._take(min(missing, len(self.buffer) or 1)))
                    missing -= len(parts[-1])
            else:
                while self._more():
                    pass
                parts.append(self.buffer)
        except (EOFError, ConnectionResetError):
            answer.complete = False
        answer.body = b"".join(parts)
        return answer


def exchange(address, request):
    """Sends a whole request on a connection of its own and reads the answer."""
    with Connection(address) as connection:
        connection.send(request)
        return connection.read_answer()
