"""HTTP/2 frame by frame, without TLS, for what client libraries hide."""

import socket

import h2.config
import h2.connection
import h2.events
from hyperframe.frame import Frame

from harness.raw import TIMEOUT_SECONDS


class Connection:
    """One connection; its events are kept by stream in the order in which they came."""

    def __init__(self, address):
        self.socket = socket.create_connection(address, timeout=TIMEOUT_SECONDS)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self.h2.initiate_connection()
        self.events = []
        self._flush()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def _flush(self):
        self.socket.sendall(self.h2.data_to_send())

    def request(self, path, *fields, method="POST", body=None):
        """Sends a head, and a body that ends the stream if there is one."""
        stream = self.h2.get_next_available_stream_id()
        pseudo = [(":method", method), (":path", path), (":scheme", "http"), (":authority", "gateway")]
        self.h2.send_headers(stream, [*pseudo, *fields], end_stream=False)
        if body is not None:
            self.h2.send_data(stream, body, end_stream=True)
        self._flush()
        return stream

    def upload(self, stream, body):
        """Sends a body as fast as the other side takes it."""
        while body:
            room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
            if room:
                self.h2.send_data(stream, body[:room], end_stream=room >= len(body))
                self._flush()
                body = body[room:]
            else:
                self._take(self.socket.recv(65536))

    def reset(self, stream):
        self.h2.reset_stream(stream)
        self._flush()

    def await_event(self, kind, stream=None):
        """The first event of this kind on the stream."""
        while True:
            for event in self.events:
                if isinstance(event, kind) and stream in (None, getattr(event, "stream_id", None)):
                    return event
            self.read_more()

    def read_more(self):
        """Reads what comes next, whatever it is."""
        data = self.socket.recv(65536)
        if not data:
            raise EOFError
        self._take(data)

    def read_frames(self):
        """The frames that come until the connection is closed. To `h2` a GOAWAY would be the end."""
        data = b""
        while part := self.socket.recv(65536):
            data += part
        while data:
            frame, length = Frame.parse_frame_header(memoryview(data[:9]))
            frame.parse_body(memoryview(data[9:9 + length]))
            yield frame
            data = data[9 + length:]

    def _take(self, data):
        for event in self.h2.receive_data(data):
            if isinstance(event, h2.events.DataReceived):
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            self.events.append(event)
        self._flush()

    def status(self, stream):
        """The status of its answer."""
        headers = dict(self.await_event(h2.events.ResponseReceived, stream).headers)
        return int(headers[b":status"])
