"""Many calls by one thread: at once, or at a steady rate, whatever becomes of those before."""

import asyncio
import collections
import contextlib
import dataclasses
import json
import random
import threading
import time

# Longer than any call of these tests takes.
CALL_SECONDS_MAX = 30


@dataclasses.dataclass
class Called:
    """A call and its answer, as far as it came. Times are the monotonic clock's."""

    began: float
    ended: float = 0.0
    # 0 without a head.
    status: int = 0
    fields: dict = dataclasses.field(default_factory=dict)
    body: bytes = b""
    complete: bool = False
    error: str = ""

    @property
    def reason(self):
        """The stable word of a refusal."""
        with contextlib.suppress(ValueError, KeyError, AttributeError):
            return json.loads(self.body)["error"]["metadata"]["reason"]
        return None


async def read_answer(reader, called):
    """Reads an answer to its end."""
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    called.status = int(lines[0].split(" ")[1])
    called.fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)}
    if called.fields.get("transfer-encoding") == "chunked":
        while size := int(await reader.readuntil(b"\r\n"), 16):
            called.body += (await reader.readexactly(size + 2))[:size]
        await reader.readexactly(2)
    else:
        called.body = await reader.readexactly(int(called.fields.get("content-length", 0)))
    called.complete = True


async def call(address, request, connection=None):
    """One call; `connection` is a reader and a writer that it may have, and the next after it."""
    called = Called(time.monotonic())
    writer = None
    try:
        async with asyncio.timeout(CALL_SECONDS_MAX):
            reader, writer = connection or await asyncio.open_connection(*address)
            writer.write(request)
            await read_answer(reader, called)
    except (OSError, EOFError, ValueError) as error:
        called.error = repr(error)
    if writer and not connection:
        writer.close()
    called.ended = time.monotonic()
    return called


def at_once(addresses, requests):
    """All of these calls, sent when every connection stands; the addresses take turns."""

    async def run():
        places = [addresses[turn % len(addresses)] for turn in range(len(requests))]
        connections = [await asyncio.open_connection(*place) for place in places]
        calls = await asyncio.gather(*(
            call(place, request, connection)
            for place, request, connection in zip(places, requests, connections, strict=True)))
        for _, writer in connections:
            writer.close()
        return calls

    return asyncio.run(run())


class Steady:
    """Calls so many a second until it is stopped. `pick` gives an address and a request for each, or nothing any more."""

    def __init__(self, pick, rate):
        self.pick, self.rate, self.calls, self.stopped = pick, rate, [], False
        self.thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self.failure = None
        self.thread.start()

    async def _run(self):
        try:
            await self._call_until_stopped()
        except BaseException as failure:
            self.failure = failure
            raise

    async def _call_until_stopped(self):
        open_calls, began, count = set(), time.monotonic(), 0
        while not self.stopped:
            picked = self.pick()
            if picked is None:
                break
            task = asyncio.create_task(self._one(*picked))
            open_calls.add(task)
            task.add_done_callback(open_calls.discard)
            count += 1
            await asyncio.sleep(max(0.0, began + count / self.rate - time.monotonic()))
        await asyncio.gather(*open_calls)

    async def _one(self, address, request):
        self.calls.append(await call(address, request))

    def stop(self):
        """All calls, when the last has ended."""
        self.stopped = True
        self.thread.join(CALL_SECONDS_MAX + 10)
        assert not self.thread.is_alive() and not self.failure, self.failure
        return self.calls


class Warm(Steady):
    """The same over connections that stay, so that a machine of few cores can keep the rate up."""

    def __init__(self, pick, rate, connections=16):
        self.idle = collections.defaultdict(list)
        self.connections = connections
        super().__init__(pick, rate)

    async def _one(self, address, request):
        kept = self.idle[address]
        connection = kept.pop() if kept else None
        called = Called(time.monotonic())
        if connection is None:
            try:
                connection = await asyncio.open_connection(*address)
            except OSError as error:
                called.error, called.ended = repr(error), time.monotonic()
                self.calls.append(called)
                return
        called = await call(address, request, connection)
        if called.complete and called.fields.get("connection") != "close" and len(kept) < self.connections:
            kept.append(connection)
        else:
            connection[1].close()
        self.calls.append(called)


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def shuffled(values, seed):
    values = list(values)
    random.Random(seed).shuffle(values)
    return values
