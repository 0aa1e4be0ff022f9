"""Recorded streams, broken off at every event and inside letters, with every kind of second target.

Read with the official SDK, the text is the whole answer, or the SDK raises: never both, never a word twice or missing.
"""

import asyncio
import collections
import dataclasses

import openai
import pytest

from harness import ports, recordings
from harness.gateway import CREDENTIAL
from harness.provider import Provider
from harness.routes import provider_text, route_text, target
from harness.scale import scaled

PROMPT = " ".join(["hello"] * 100)
PROMPT_TOKENS = 100
# For the provider that stalls alone: the others have time, however busy the machine is.
STALL_SECONDS = scaled(4)
# Calls at once; those that wait for a deadline cost nothing meanwhile.
CUTS_AT_ONCE, STALLS_AT_ONCE = 16, 64
# Places inside letters that are tried of each stream.
INSIDE_MAX = 6
# In how many ways the same text comes from the second target.
FLAVOURS = ("", "+pieces-1", "+pieces-3", "+crlf+split-7", "+after-reasoning-2")
# What the second target does.
KINDS = {
    "prefill": ("prefill", True),
    "reject": ("prefill-reject", True),
    "afresh": ("tag-plain", False),
    "divergent": ("divergent-1", False),
    "none": None,
}


# The whole of another answer.
OTHER = ("other", False)


@dataclasses.dataclass
class Case:
    """A break and what follows it."""

    kind: str
    fault: str
    # Events that came before it.
    events: int
    model: str
    text: str = ""
    raised: Exception | None = None
    ids: set = dataclasses.field(default_factory=set)
    call: str | None = None

    def __str__(self):
        return f"{self.model}: {self.text!r}, {self.raised!r} by {self.raised and self.raised.__cause__!r}, {self.ids}"


def cases_of(recording):
    """Every break of a stream, with every kind of second target."""
    count = len(recording.ends)
    step = max(1, len(recording.inside) // INSIDE_MAX)
    faults = [(f"{fault}-after-{at}", at) for fault in ("cut", "stall") for at in range(count + 1)]
    faults += [
        (f"{fault}-at-byte-{at}", recording.events_before(at))
        for fault in ("cut", "fin", "stall") for at in recording.inside[::step]
    ]
    return [Case(kind, fault, events, f"{kind}/{fault}") for kind in KINDS for fault, events in faults]


def routes_of(recording, cases):
    """A route for each case; no two share a target, since each first one breaks."""
    for number, case in enumerate(cases):
        breaks = "stalls" if case.fault.startswith("stall") else "a"
        targets = [target(breaks, f"replay-{recording.name}+{case.fault}", rank=0)]
        if KINDS[case.kind]:
            part, prefill = KINDS[case.kind]
            flavour = FLAVOURS[number % len(FLAVOURS)]
            targets.append(target("b", f"said-{recording.name}+{part}{flavour}", rank=1, prefill=prefill))
        yield route_text(case.model, targets)


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    running = Provider(tmp_path_factory.mktemp("box"), ports.free(), key=CREDENTIAL)
    yield running
    running.process.stop()


async def ask(client, case):
    """Reads an answer as the SDK gives it."""
    try:
        stream = await client.chat.completions.create(
            model=case.model, messages=[{"role": "user", "content": PROMPT}], stream=True,
        )
        case.call = stream.response.headers["x-request-id"]
        async for chunk in stream:
            for choice in chunk.choices:
                case.ids.add((chunk.id, chunk.model, chunk.created))
                case.text += choice.delta.content or ""
    except openai.APIStatusError as error:
        case.call, case.raised = error.request_id, error
    except openai.APIError as error:
        case.raised = error


async def ask_all(gateway, cases):
    limits = {fault: asyncio.Semaphore(count) for fault, count in
              [("cut", CUTS_AT_ONCE), ("fin", CUTS_AT_ONCE), ("stall", STALLS_AT_ONCE)]}

    async def one(client, case):
        async with limits[case.fault.split("-")[0]]:
            await ask(client, case)

    async with openai.AsyncOpenAI(base_url=gateway.base_url, api_key=gateway.key, max_retries=0, timeout=60) as client:
        await asyncio.gather(*(one(client, case) for case in cases))


def expected(recording, case):
    """The texts that may be read, and whether the SDK raises; `None` where either is honest."""
    said = recording.said(case.events)
    if case.events >= recording.whole_at:
        # It was over, whatever came after that.
        return recording.text, False
    if not recording.has_spoken(case.events):
        # Nothing has been said, so the second target answers as if it were the first.
        return {"none": ("", True), "divergent": OTHER}.get(case.kind, (recording.text, False))
    if not said:
        # Thoughts cannot be gone on with.
        return "", True
    if case.kind == "divergent" and not said.strip():
        # Another answer may begin with the same white space.
        return OTHER
    if case.kind in ("divergent", "none"):
        return said, True
    if recordings.is_torn(said):
        return None
    return recording.text, False


def check_text(recording, case):
    whole = recordings.joined(recording.text)
    text = recordings.joined(case.text)
    assert case.raised or text == whole or text.replace("other", "") == whole, str(case)
    assert len(case.ids) <= 1, str(case)
    allowed = expected(recording, case)
    if allowed is None:
        assert whole.startswith(text.rstrip("\ud83c\ud83d")) if case.raised else text == whole, str(case)
    elif allowed == OTHER:
        assert (text != whole, text.replace("other", ""), case.raised) == (True, whole, None), str(case)
    else:
        assert (text, bool(case.raised)) == (recordings.joined(allowed[0]), allowed[1]), str(case)


def check_record(recording, case, record):
    spoken = recording.has_spoken(case.events)
    broken = case.events < recording.whole_at
    if case.raised:
        assert record["outcome"] == ("cut" if spoken else "failed"), (str(case), record)
    else:
        assert record["outcome"] == "answered", (str(case), record)
    if spoken and broken:
        inputs = record["input"] + record["input_cache_read"] + record["input_cache_write"]
        assert 0 < inputs <= 1.5 * PROMPT_TOKENS, (str(case), record)


@pytest.mark.parametrize("name", recordings.NAMES)
def test_every_break_of_a_stream(start, box, name):
    recording = recordings.read(name)
    cases = cases_of(recording)
    gateway = start(provider=box, routes="\n".join([
        provider_text("a", box.base_url()), provider_text("b", box.base_url()),
        provider_text("stalls", box.base_url(),
                      deadlines={"stall_seconds": STALL_SECONDS, "first_token_seconds": STALL_SECONDS}),
        *routes_of(recording, cases),
    ]))
    box.forget()
    asyncio.run(ask_all(gateway, cases))
    for case in cases:
        check_text(recording, case)

    # One record for each call, whoever has answered it.
    records = {record["model"]: record for record in gateway.await_records(len(cases))}
    assert set(records) == {case.model for case in cases}
    for case in cases:
        assert case.call == records[case.model]["call"], str(case)
        check_record(recording, case, records[case.model])

    # The first target was asked once a call, but for what a cut before any word may have cost.
    asked = collections.Counter(one["model"] for one in box.observed())
    first = [count for model, count in asked.items() if model.startswith("replay-")]
    assert len(first) == len(cases) and max(first) <= 2


def test_there_are_enough_streams_and_each_breaks_everywhere():
    read = [recordings.read(name) for name in recordings.NAMES]
    assert len(read) >= 20
    assert sum(bool(one.inside) for one in read) >= 5
    for one in read:
        assert one.text and one.whole_at and one.whole_at <= len(one.ends)
        assert {case.events for case in cases_of(one)} == set(range(len(one.ends) + 1))
