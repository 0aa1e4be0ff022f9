"""HTTP/2 in frames of one's own making, for what `h2` refuses to send, and what it costs whoever reads them."""

import collections
import contextlib
import os
import select
import socket
import ssl
import threading

import hpack
from hyperframe.frame import (
    ContinuationFrame, DataFrame, Frame, GoAwayFrame, HeadersFrame, PingFrame, PriorityFrame, RstStreamFrame, SettingsFrame,
    WindowUpdateFrame,
)

from harness.raw import TIMEOUT_SECONDS

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
PATH = "/v1/chat/completions"
SLICE_BYTES = 65_536
LOOK_SECONDS = 0.01


def settings(**values):
    """A SETTINGS frame; names are those of RFC 9113, 6.5.2, in lower case."""
    return SettingsFrame(0, settings={getattr(SettingsFrame, name.upper()): value for name, value in values.items()})


def ping(count=0):
    return PingFrame(0, opaque_data=count.to_bytes(8, "big"))


def data(stream, body=b"", end=False):
    return DataFrame(stream, body, flags=["END_STREAM"] if end else [])


def reset(stream, code=8):
    return RstStreamFrame(stream, error_code=code)


def window(stream, more):
    """A WINDOW_UPDATE. Made by hand: the library does not let one be wrong."""
    return header(4, 8, 0, stream) + more.to_bytes(4, "big")


def priority(stream, depends_on):
    return PriorityFrame(stream, depends_on=depends_on, stream_weight=7)


def continuation(stream, block=b"", last=False):
    return ContinuationFrame(stream, block, flags=["END_HEADERS"] if last else [])


def header(length, kind, flags, stream):
    """The nine bytes before a frame."""
    return length.to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big")


def wire(*frames):
    return b"".join(one if isinstance(one, bytes) else one.serialize() for one in frames)


def connect(address, receive_bytes=None):
    """A socket; what it takes unread can be bounded, as far as the machine lets it."""
    one = socket.socket()
    one.settimeout(TIMEOUT_SECONDS)
    if receive_bytes:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    one.connect(address)
    return one


class Frames:
    """One connection. What has come is in `came`; `goaway` is the other side's farewell, and `closed` whether it hung up."""

    def __init__(self, address, *, settled=None, certificate=None, greet=True, receive_bytes=None):
        self.socket = connect(address, receive_bytes)
        if certificate:
            context = ssl.create_default_context(cafile=certificate)
            context.set_alpn_protocols(["h2"])
            self.socket = context.wrap_socket(self.socket, server_hostname="localhost")
            assert self.socket.selected_alpn_protocol() == "h2"
        self.encoder, self.decoder = hpack.Encoder(), hpack.Decoder()
        self.decoder.max_allowed_table_size = 1 << 16
        self.buffer = bytearray()
        self.came, self.heads, self.bodies = [], {}, collections.Counter()
        self.goaway, self.closed, self.pings = None, False, []
        self.sent = 0
        # What the other side takes of bodies, by stream; 0 is the connection.
        self.room, self.initial_room = {0: 65_535}, 65_535
        if greet:
            self.send(PREFACE, settled or settings(), window(0, 1 << 30))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def head(self, *fields, path=PATH, method="POST", authority="gateway"):
        """A block of a request's fields."""
        pseudo = [(":method", method), (":path", path), (":scheme", "http"), (":authority", authority)]
        return self.block([(name, value) for name, value in pseudo if value is not None], *fields)

    def block(self, pseudo, *fields):
        return self.encoder.encode([*pseudo, *fields], huffman=False)

    def open(self, stream, block, end=False, whole=True):
        flags = [*(["END_STREAM"] if end else []), *(["END_HEADERS"] if whole else [])]
        return HeadersFrame(stream, block, flags=flags)

    def send(self, *frames):
        """Sends all of it, reading what comes meanwhile; `False` if the other side hung up before."""
        rest = memoryview(wire(*frames))
        self.socket.setblocking(False)
        try:
            while rest and not self.closed:
                with contextlib.suppress(BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                    taken = self.socket.send(rest[:SLICE_BYTES])
                    self.sent += taken
                    rest = rest[taken:]
                    self._read()
                    continue
                ready = select.select([self.socket], [self.socket], [], TIMEOUT_SECONDS)
                assert ready[0] or ready[1], "the other side neither takes nor says anything"
                self._read()
        except OSError:
            self._read_rest()
        finally:
            with contextlib.suppress(OSError):
                self.socket.settimeout(TIMEOUT_SECONDS)
        return not rest

    def send_deaf(self, frames, seconds):
        """Sends without reading, until all is sent (`True`) or nothing was taken for so long."""
        rest = memoryview(frames)
        self.socket.settimeout(seconds)
        try:
            while rest:
                taken = self.socket.send(rest[:SLICE_BYTES])
                self.sent += taken
                rest = rest[taken:]
        except TimeoutError:
            return False
        except OSError:
            self.closed = True
        finally:
            self.socket.settimeout(TIMEOUT_SECONDS)
        return not rest

    def _read(self):
        with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError):
            self._take(self.socket.recv(SLICE_BYTES))

    def _read_rest(self):
        """What was on its way when the other side hung up."""
        with contextlib.suppress(OSError):
            self.socket.settimeout(1)
            while not self.closed:
                self._take(self.socket.recv(SLICE_BYTES))
        self.closed = True

    def _take(self, part):
        if not part:
            self.closed = True
            return
        self.buffer += part
        while len(self.buffer) >= 9:
            frame, length = Frame.parse_frame_header(memoryview(bytes(self.buffer[:9])))
            if len(self.buffer) < 9 + length:
                return
            frame.parse_body(memoryview(bytes(self.buffer[9:9 + length])))
            del self.buffer[:9 + length]
            self._note(frame)

    def _note(self, frame):
        if isinstance(frame, GoAwayFrame):
            # The one that says why comes last.
            self.goaway = frame
        elif isinstance(frame, HeadersFrame):
            self.heads.setdefault(frame.stream_id, dict(self.decoder.decode(frame.data)))
        elif isinstance(frame, DataFrame):
            self.bodies[frame.stream_id] += len(frame.data)
        elif isinstance(frame, SettingsFrame):
            self.initial_room = frame.settings.get(SettingsFrame.INITIAL_WINDOW_SIZE, self.initial_room)
        elif isinstance(frame, WindowUpdateFrame):
            self.room[frame.stream_id] = self.room.get(frame.stream_id, self.initial_room) + frame.window_increment
        elif isinstance(frame, PingFrame) and "ACK" not in frame.flags:
            self.pings.append(frame.opaque_data)
        if not isinstance(frame, PingFrame | WindowUpdateFrame):
            self.came.append(frame)

    def acknowledge(self):
        """Says that the other side's settings hold, once they have come."""
        self.until(lambda: any(isinstance(one, SettingsFrame) and "ACK" not in one.flags for one in self.came))
        self.send(SettingsFrame(0, flags=["ACK"]))

    def answer_pings(self):
        """Answers what the other side has asked so far."""
        asked, self.pings = self.pings, []
        self.send(*(PingFrame(0, opaque_data=data, flags=["ACK"]) for data in asked))

    def until(self, condition, seconds=TIMEOUT_SECONDS):
        """Reads until the condition holds (`True`) or the connection is over; fails when time is up."""
        self.socket.settimeout(seconds)
        while not condition() and not self.closed:
            try:
                self._take(self.socket.recv(SLICE_BYTES))
            except ConnectionResetError:
                self.closed = True
        return condition()

    def await_close(self, seconds=TIMEOUT_SECONDS):
        """Reads until the other side hangs up; the code of its farewell, if it said one."""
        self.until(lambda: False, seconds)
        return self.goaway and self.goaway.error_code

    def until_or_time(self, condition, seconds):
        """The same, but nothing fails when time is up."""
        with contextlib.suppress(TimeoutError):
            self.until(condition, seconds)

    def room_of(self, stream):
        """How much of a body the other side takes now."""
        return min(self.room[0], self.room.setdefault(stream, self.initial_room))

    def take(self, stream, count):
        """So much of that is used up."""
        self.room[stream] = self.room.get(stream, self.initial_room) - count
        self.room[0] -= count

    def upload(self, stream, part, most):
        """Sends a body in such parts, as far as its windows let it and until it is answered; how much that was."""
        self.acknowledge()
        sent = 0
        while sent < most and stream not in self.heads and not self.closed:
            if self.room_of(stream) >= len(part):
                self.send(data(stream, part))
                sent += len(part)
                self.take(stream, len(part))
            else:
                self._take(self.socket.recv(SLICE_BYTES))
        return sent

    def status(self, stream):
        """The status of the answer; `None` if the stream is reset before it, or the connection gone."""
        self.until(lambda: stream in self.heads or self.reset_code(stream) is not None)
        found = self.heads.get(stream)
        return found and int(found[":status"])

    def reset_code(self, stream):
        """The code that the other side reset the stream with, if it did."""
        return next((one.error_code for one in self.came if isinstance(one, RstStreamFrame) and one.stream_id == stream), None)

    def ended(self, stream):
        """Whether the answer is whole."""
        return any(one.stream_id == stream and "END_STREAM" in one.flags for one in self.came)

    def await_end(self, stream):
        """How the stream ends: `END_STREAM`, the code that it is reset with, or `None` with the connection."""
        self.until(lambda: self.ended(stream) or self.reset_code(stream) is not None)
        return "END_STREAM" if self.ended(stream) else self.reset_code(stream)


class Cost:
    """What a process has used since this was made."""

    def __init__(self, pid):
        self.pid = pid
        self.cpu, self.rss = self._cpu(), self._rss()

    def _cpu(self):
        total = 0
        for task in os.listdir(f"/proc/{self.pid}/task"):
            with contextlib.suppress(OSError), open(f"/proc/{self.pid}/task/{task}/schedstat") as file:
                total += int(file.read().split()[0])
        return total / 1e9

    def _rss(self):
        with open(f"/proc/{self.pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def cpu_seconds(self):
        return self._cpu() - self.cpu

    def grown_bytes(self):
        return self._rss() - self.rss

    def __enter__(self):
        """From here on its size is looked at again and again, by a thread: how large it was is no other process's to ask."""
        self.peak, self.over = self._rss(), threading.Event()
        self.thread = threading.Thread(target=self._look, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()

    def _look(self):
        while not self.over.wait(LOOK_SECONDS):
            self.peak = max(self.peak, self._rss())

    def peak_bytes(self):
        """How much larger than at first it has been."""
        return max(self.peak, self._rss()) - self.rss
