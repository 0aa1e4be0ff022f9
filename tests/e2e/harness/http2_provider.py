"""A provider that speaks HTTP/2 without TLS, for what happens among the streams of one connection.

Models: `flood-BYTES` answers with that much text as fast as it is taken, `words-N` with N words at once, `json-N` the
same as one object, `refuse` with a stream that is refused before it was looked at, `leave` says GOAWAY, `reset-N`
resets the stream after N words.
"""

import contextlib
import json
import socket
import threading

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import hyperframe.frame

from harness import ports

PART_BYTES = 8_000


def event(number, content, finish=None):
    choice = {"index": 0, "delta": {"content": content} if finish is None else {}, "finish_reason": finish}
    chunk = {"id": f"chatcmpl-h2-{number}", "object": "chat.completion.chunk", "created": 1_750_000_000, "model": "h2",
             "choices": [choice]}
    return f"data: {json.dumps(chunk)}\n\n".encode()


class Http2Provider:
    """Serves until it is closed. What it saw is in `requests`: the connection's number and the model of each, and in
    `cancelled`: the model of each stream that the other side reset, and its code."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", ports.free()))
        self.requests, self.cancelled = [], []
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def base_url(self):
        return "http://127.0.0.1:%d/v1" % self.listener.getsockname()[1]

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def _accept(self):
        while True:
            try:
                one, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(one, self.connections), daemon=True).start()

    def _serve(self, connection, number):
        with contextlib.suppress(OSError, h2.exceptions.ProtocolError), connection:
            _Connection(self, connection, number).run()


class _Connection:
    def __init__(self, provider, connection, number):
        self.provider, self.socket, self.number = provider, connection, number
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self.bodies, self.models, self.pending, self.resets = {}, {}, {}, {}
        # The last stream that is answered, once it has said GOAWAY.
        self.last = None

    def run(self):
        self.h2.initiate_connection()
        while True:
            self.socket.sendall(self.h2.data_to_send())
            data = self.socket.recv(65536)
            if not data:
                return
            for one in self.h2.receive_data(data):
                self._take(one)
            for stream in list(self.pending):
                self._send(stream)

    def _take(self, one):
        if isinstance(one, h2.events.RequestReceived):
            self.bodies[one.stream_id] = b""
        elif isinstance(one, h2.events.DataReceived):
            self.bodies[one.stream_id] += one.data
            self.h2.acknowledge_received_data(one.flow_controlled_length, one.stream_id)
        elif isinstance(one, h2.events.StreamReset):
            self.pending.pop(one.stream_id, None)
            self.provider.cancelled.append((self.models.get(one.stream_id), one.error_code))
        if getattr(one, "stream_ended", None) or isinstance(one, h2.events.StreamEnded):
            self._answer(one.stream_id)

    def _answer(self, stream):
        body = self.bodies.pop(stream, None)
        if body is None or self.last is not None and stream > self.last:
            return
        model = json.loads(body)["model"].split("+")[0]
        self.models[stream] = model
        self.provider.requests.append((self.number, model))
        kind, _, count = model.partition("-")
        if kind == "refuse" and self.provider.requests.count((self.number, model)) == 1:
            self.h2.reset_stream(stream, h2.errors.ErrorCodes.REFUSED_STREAM)
            return
        if kind == "leave":
            # What it has begun is answered; what comes later on this connection is not. The library would answer
            # nothing after its own farewell.
            goodbye = hyperframe.frame.GoAwayFrame(0, last_stream_id=stream)
            self.socket.sendall(self.h2.data_to_send() + goodbye.serialize())
            self.last = stream
        if kind == "json":
            self._answer_whole(stream, int(count))
            return
        self.h2.send_headers(stream, [(":status", "200"), ("content-type", "text/event-stream")])
        if kind == "flood":
            parts = [event(stream, "x" * PART_BYTES)] * (int(count) // PART_BYTES)
        else:
            parts = [event(stream, "word" if index == 0 else f" word{index}") for index in range(int(count or 3))]
        if kind == "reset":
            self.resets[stream] = True
        else:
            parts += [event(stream, "", "stop"), b"data: [DONE]\n\n"]
        self.pending[stream] = b"".join(parts)

    def _answer_whole(self, stream, count):
        message = {"role": "assistant", "content": " ".join(["word"] * count)}
        usage = {"prompt_tokens": 2, "completion_tokens": count, "total_tokens": 2 + count}
        body = json.dumps({"id": "chatcmpl-h2", "object": "chat.completion", "created": 1_750_000_000, "model": "h2",
                           "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}).encode()
        self.h2.send_headers(stream, [(":status", "200"), ("content-type", "application/json"),
                                      ("content-length", str(len(body)))])
        self.pending[stream] = body

    def _send(self, stream):
        """Sends as much as flow control permits."""
        while data := self.pending.get(stream):
            room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
            if not room:
                return
            self.pending[stream] = data[room:]
            last = room >= len(data) and stream not in self.resets
            self.h2.send_data(stream, data[:room], end_stream=last)
        if self.pending.pop(stream, None) is not None and stream in self.resets:
            self.h2.reset_stream(stream, h2.errors.ErrorCodes.INTERNAL_ERROR)
