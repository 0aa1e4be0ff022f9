"""A provider of answers that are too much: longer, deeper or emptier than any that a model gives. They are made as they
are sent, so that they cost whoever sends them nothing.

What is answered is in `ANSWERS`, by the model's name.
"""

import asyncio
import contextlib
import dataclasses
import json
import socket
import threading
import zlib

from harness import ports

PART_BYTES = 65_536
DEPTH = 5_000_000
LINE_BYTES = 100_000_000
EVENTS = 1_000_000
# So much of nothing that compressing it leaves a thousandth.
BOMB_BYTES = 100_000_000
WORDS = 20


def chunk(content, finish=None, **more):
    """An event of a chat, or the end of one."""
    delta = {} if finish else {"content": content}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + json.dumps({"id": "chatcmpl-g", "object": "chat.completion.chunk", "created": 1_750_000_000,
                                   "model": "g", "choices": [choice], **more}).encode() + b"\n\n"


def words():
    return b"".join(chunk(" word" if index else "word") for index in range(WORDS))


def end():
    return chunk("", "stop") + b"data: [DONE]\n\n"


def repeated(unit, count):
    """The same bytes over and over, in parts of a fitting size."""
    each = max(1, PART_BYTES // len(unit))
    part = unit * each
    for _ in range(count // each):
        yield part
    yield unit * (count % each)


def around(middle, before=None, after=None):
    """A good stream with something in it."""
    yield words() if before is None else before
    yield from middle
    yield end() if after is None else after


def document(content):
    """The two halves of a chat answer in one object, around its text."""
    text = json.dumps({"id": "chatcmpl-g", "object": "chat.completion", "created": 1_750_000_000, "model": "g", "choices": [
        {"index": 0, "message": {"role": "assistant", "content": content, "x": "MIDDLE"}, "finish_reason": "stop"}]})
    before, after = text.split('"MIDDLE"')
    return before.encode(), after.encode()


def deep_document():
    before, after = document("word")
    yield before
    yield from repeated(b"[", DEPTH)
    yield from repeated(b"]", DEPTH)
    yield after


def long_document():
    before, after = document("word")
    yield before + b'"'
    yield from repeated(b"x", LINE_BYTES)
    yield b'"' + after


def deep_event():
    yield b'data: {"id":"g","choices":[{"index":0,"delta":{"content":"word","x":'
    yield from repeated(b"[", DEPTH)
    yield from repeated(b"]", DEPTH)
    yield b"}}]}\n\n"


def long_line():
    yield b'data: {"id":"g","choices":[{"index":0,"delta":{"content":"'
    yield from repeated(b"x", LINE_BYTES)
    yield b'"}}]}\n\n'


def compressed(parts):
    squeeze = zlib.compressobj(wbits=31)
    for part in parts:
        if squeezed := squeeze.compress(part):
            yield squeezed
    yield squeeze.flush()


def flood():
    """A stream that does not end: first as much text as is ever kept of an answer, then less of it, which is read faster."""
    yield from repeated(chunk("x" * 300), 1_000)
    part = chunk("x" * 300) + b": " + b"." * PART_BYTES + b"\n\n"
    while True:
        yield part


EVENT_STREAM, JSON = "text/event-stream", "application/json"
ANSWERS = {
    "flood": (EVENT_STREAM, "", flood),
    "line": (EVENT_STREAM, "", lambda: around(long_line())),
    "line-without-end": (EVENT_STREAM, "", lambda: around(repeated(b"x", LINE_BYTES), after=b"")),
    "deep-event": (EVENT_STREAM, "", lambda: around(deep_event())),
    "empty-events": (EVENT_STREAM, "", lambda: around(repeated(b"data:\n\n", EVENTS))),
    "empty-events-first": (EVENT_STREAM, "", lambda: around(repeated(b"data:\n\n", EVENTS), before=b"", after=words() + end())),
    "comments": (EVENT_STREAM, "", lambda: around(repeated(b": on it\r\n\r\n", EVENTS))),
    "blank-lines": (EVENT_STREAM, "", lambda: around(repeated(b"\n", EVENTS))),
    "data-lines": (EVENT_STREAM, "", lambda: around(repeated(b"data: x\n", EVENTS))),
    "bomb": (EVENT_STREAM, "content-encoding: gzip\r\n", lambda: compressed(around(repeated(b" ", BOMB_BYTES)))),
    "bomb-json": (JSON, "content-encoding: gzip\r\n", lambda: compressed(repeated(b" ", BOMB_BYTES))),
    "deep": (JSON, "", deep_document),
    "long": (JSON, "", long_document),
}


@dataclasses.dataclass
class Served:
    """An answer on its way, or over."""

    model: str
    sent: int = 0
    # `whole`, or `left` if the other side did.
    end: str = "open"


class Giant:
    """Serves until it is closed; what it served is in `served`."""

    def __init__(self):
        self.port, self.served = ports.free(), []
        self.loop = asyncio.new_event_loop()
        listener = socket.create_server(("127.0.0.1", self.port))
        # What is on its way and unread is the machine's, and little of it.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PART_BYTES)
        self.server = self.loop.run_until_complete(asyncio.start_server(self._serve, sock=listener))
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    @property
    def base_url(self):
        return f"http://127.0.0.1:{self.port}/v1"

    def close(self):
        asyncio.run_coroutine_threadsafe(self._end(), self.loop).result(5)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(5)
        self.loop.close()

    async def _end(self):
        """Drops what is under way."""
        self.server.close()
        under_way = asyncio.all_tasks() - {asyncio.current_task()}
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)

    def sent(self):
        """Bytes that were taken of all answers."""
        return sum(one.sent for one in self.served)

    async def _serve(self, reader, writer):
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = int(head.split("content-length:")[1].split("\r\n")[0])
            asked = json.loads(await reader.readexactly(length))
            await self._answer(asked["model"].split("+")[0], reader, writer)
        writer.close()

    async def _answer(self, model, reader, writer):
        served = Served(model)
        self.served.append(served)
        kind, fields, parts = ANSWERS[model]
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n{fields}\r\n".encode())
        leaving = asyncio.create_task(reader.read(1))
        try:
            for part in parts():
                if part:
                    writer.write(b"%x\r\n%s\r\n" % (len(part), part))
                    await _either(writer.drain(), leaving)
                    served.sent += len(part)
            writer.write(b"0\r\n\r\n")
            await writer.drain()
            served.end = "whole"
        except OSError:
            served.end = "left"
        finally:
            leaving.cancel()


async def _either(drained, leaving):
    """Waits for room, unless the other side leaves first."""
    drained = asyncio.ensure_future(drained)
    await asyncio.wait([drained, leaving], return_when=asyncio.FIRST_COMPLETED)
    if leaving.done():
        drained.cancel()
        raise ConnectionResetError
    await drained
