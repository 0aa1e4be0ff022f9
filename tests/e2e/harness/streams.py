"""Many streams at once, read by one thread: what each got, and when it ended."""

import asyncio
import dataclasses
import threading
import time

LAST_CHUNK = b"0\r\n\r\n"


@dataclasses.dataclass
class Stream:
    """One call, its answer as it came."""

    request: bytes
    data: bytes = b""
    # Whether the framing of its body came to an end.
    complete: bool = False
    error: str = ""
    ended_at: float = 0.0

    @property
    def is_done(self):
        """Whether it is a whole answer."""
        return self.complete and b"data: [DONE]\n\n" in self.data

    @property
    def is_told(self):
        """Whether it was ended with a reason, and does not look like a whole answer."""
        return b'"reason":"shutdown"' in self.data and not self.complete and b"[DONE]" not in self.data

    @property
    def events(self):
        return self.data.count(b"data: ")


class Streams:
    """Calls that all begin at once, each on a connection of its own."""

    def __init__(self, address, requests):
        self.address = address
        self.all = [Stream(request) for request in requests]
        self.thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self.thread.start()

    async def _run(self):
        await asyncio.gather(*map(self._read, self.all))

    async def _read(self, stream):
        try:
            reader, writer = await asyncio.open_connection(*self.address)
            writer.write(stream.request)
            while not stream.complete and (data := await reader.read(1 << 16)):
                stream.data += data
                stream.complete = stream.data.endswith(LAST_CHUNK)
            writer.close()
        except OSError as error:
            stream.error = repr(error)
        stream.ended_at = time.monotonic()

    @property
    def begun(self):
        """How many have an event."""
        return sum(stream.events > 0 for stream in self.all)

    @property
    def open(self):
        """How many have not ended."""
        return sum(not stream.ended_at for stream in self.all)

    def join(self, seconds=60.0):
        """All of them, ended."""
        self.thread.join(seconds)
        assert not self.thread.is_alive(), f"{self.open} streams are open after {seconds} s"
        return self.all
