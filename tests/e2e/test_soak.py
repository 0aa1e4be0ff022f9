"""Everything at once for a while: mixed traffic over edges that share books, and a fault every so often. Afterwards the
money is right to the last call, nothing has panicked, and nothing is left over."""

import asyncio
import collections
import itertools
import os
import random
import time

import h2.exceptions
import httpx2
import pytest

from harness import books
from harness.calls import CALL_SECONDS_MAX, Called, Steady, call, read_answer
from harness.edge import priced
from harness.faults import FREE, OUTAGE, TIERS, Faults
from harness.gateway import INPUT_PRICE, OUTPUT_PRICE, chat
from harness.lasting import Lasting
from harness.waiting import until

# `make soak` takes 30, and a fault every 30 seconds. Here each kind of fault comes once.
MINUTES = min(240.0, max(0.5, float(os.environ.get("SOAK_MINUTES", "2"))))
FAULT_SECONDS = float(os.environ.get("SOAK_FAULT_SECONDS", "5"))
SEED = int(os.environ.get("SOAK_SEED", "1"))

CALLS_PER_SECOND = 15
ACCOUNTS, CREDIT = 4, "1000.00"
TEXT = " ".join(["the"] * 40)
# About a second a stream, half a second a text.
SCRIPTS = [(True, "echo+pace-20+usage-every-chunk"), (True, "echo+pace-20"), (True, "echo+pace-40+no-usage"),
           (False, "echo+late-head-300"), (False, "echo")]
MODELS_EACH = 20
MODELS = [(stream, f"{script}+on-{OUTAGE}+tag-{number}") for stream, script in SCRIPTS for number in range(MODELS_EACH)]
CATALOGUE = "".join(priced(model, input=INPUT_PRICE, output=OUTPUT_PRICE) for _, model in MODELS)
# One attempt a call: another would be the house's, and the truth would not tell them apart. What is idle is soon closed, so
# that what is left over shows.
SECTIONS = TIERS + """
[routing]
attempts_max = 1
on_break = "error"

[deadlines]
head_seconds = 2
first_token_seconds = 2
stall_seconds = 2
pool_idle_seconds = 2
"""
# Kinds of calls, and how often each comes: paid ones and free ones, h1 and h2, and clients that leave.
KINDS = {"paid": 8, "paid_h2": 3, "paid_cut": 2, "free": 2, "free_h2": 1}
# How long until everything is answered again, and until everything has come to rest.
WELL_SECONDS, LATELY_SECONDS, REST_SECONDS = 30, 3, 60
# Of all calls, how many were answered all the same: faults are close together here.
ANSWERED_SHARE = 0.4
# What may stay open that was not at the beginning: connections to stores of a pool that opens them as they are used.
DESCRIPTORS_MORE, THREADS_MORE, TASKS_MORE, MEMORY_FACTOR = 30, 6, 60, 2.0


class Mixed(Steady):
    """Paid and free calls, streams and texts, over both versions of HTTP, some of which their client leaves. Each pair of key
    and model is paid for once, so that the auditor knows a call by it."""

    def __init__(self, nodes, free, seconds):
        self.nodes, self.free, self.random = nodes, free, random.Random(SEED)
        self.kinds = collections.defaultdict(list)
        for number in range(ACCOUNTS):
            books.open_account(nodes.first, f"payer-{number}", CREDIT)
        keys = int(seconds * CALLS_PER_SECOND / len(MODELS)) + 2
        keys = [books.open_key(nodes.first, f"payer-{number % ACCOUNTS}", name=f"key-{number}") for number in range(keys)]
        self.pairs = itertools.product(keys, self.random.sample(MODELS, len(MODELS)))
        self.clients = {}
        super().__init__(self.pick, CALLS_PER_SECOND)

    def pick(self):
        (kind,) = self.random.choices(list(KINDS), list(KINDS.values()))
        edge = self.random.choice(self.nodes.edges)
        if kind.startswith("free"):
            return kind, edge, chat(f"box/{FREE}", TEXT, stream=self.random.random() < 0.5), self.free
        pair = next(self.pairs, None)
        if pair is None:
            return None
        (key, identity), (stream, model) = pair
        body = chat(f"box/{model}", TEXT, stream=stream)
        body["messages"].insert(0, {"role": "system", "content": f"mark-{identity}"})
        return kind, edge, body, key

    async def _one(self, kind, edge, body, key):
        if kind.endswith("h2"):
            called = await self._call_h2(edge, body, key)
        elif kind.endswith("cut"):
            called = await self._leave(edge, edge.request(body, key=key))
        else:
            called = await call(edge.address, edge.request(body, key=key))
        self.kinds[kind].append(called)
        self.calls.append(called)

    async def _call_h2(self, edge, body, key):
        """Calls to one edge share connections."""
        client = self.clients.setdefault(edge.name, httpx2.AsyncClient(http1=False, http2=True, timeout=CALL_SECONDS_MAX))
        called = Called(time.monotonic())
        try:
            fields = {"authorization": f"Bearer {key}"}
            answer = await client.post(f"{edge.base_url}/chat/completions", json=body, headers=fields)
            called.status, called.fields, called.body = answer.status_code, dict(answer.headers), answer.content
            called.complete = True
        except (httpx2.HTTPError, h2.exceptions.H2Error, OSError, KeyError, RuntimeError) as error:
            # The library takes an edge's GOAWAY for the end of all its streams.
            called.error = repr(error)
        called.ended = time.monotonic()
        return called

    async def _leave(self, edge, request):
        """Leaves before the answer can be at its end, sometimes by a reset."""
        called = Called(time.monotonic())
        patience, abrupt = self.random.uniform(0.05, 0.6), self.random.random() < 0.5
        try:
            reader, writer = await asyncio.open_connection(*edge.address)
            writer.write(request)
            try:
                async with asyncio.timeout(patience):
                    await read_answer(reader, called)
            finally:
                writer.transport.abort() if abrupt else writer.close()
        except (OSError, EOFError, ValueError) as error:
            called.error = repr(error)
        called.ended = time.monotonic()
        return called

    async def _call_until_stopped(self):
        try:
            await super()._call_until_stopped()
        finally:
            for client in self.clients.values():
                await client.aclose()


def warm_up(nodes, free):
    """Each edge has done of everything; what it takes then is what it takes."""
    for edge in nodes.edges:
        # One without usage, so that our own tokenizer is loaded.
        for model in [FREE] * 20 + [f"{FREE}+no-usage"]:
            until(lambda edge=edge, model=model: edge.ask(chat(f"box/{model}", TEXT), key=free).status == 200, "it answers")
    time.sleep(5)
    return {node.name: node.taken() for node in nodes.nodes}


def is_well(load):
    """Whether all that were paid for lately, and did not leave, had their answers."""
    since = time.monotonic() - LATELY_SECONDS
    lately = [one for kind in ("paid", "paid_h2") for one in load.kinds[kind] if one.began > since]
    return len(lately) > CALLS_PER_SECOND / 2 and all(one.status == 200 and one.complete for one in lately)


def rests(node, before):
    """What a node takes, if it is no more than at the beginning."""
    now = node.taken()
    small = (now.descriptors <= before.descriptors + DESCRIPTORS_MORE and now.threads <= before.threads + THREADS_MORE
             and now.tasks <= before.tasks + TASKS_MORE and now.megabytes <= before.megabytes * MEMORY_FACTOR)
    return now if small else None


def check_calls(load):
    """Nobody was told that it has no money or no right, and most were answered."""
    for kind, calls in load.kinds.items():
        statuses = collections.Counter(one.status for one in calls)
        print(f"{kind}: {len(calls)} calls, {dict(sorted(statuses.items()))}")
        assert set(statuses) <= {0, 200, 500, 502, 503, 504}, (kind, statuses)
        assert all("retry-after" in one.fields for one in calls if one.status == 503), kind
    whole = [one for kind, calls in load.kinds.items() if not kind.endswith("cut") for one in calls]
    answered = sum(one.status == 200 and one.complete for one in whole)
    assert answered >= ANSWERED_SHARE * len(whole), (answered, len(whole))


def strike_all(faults, load):
    """One fault after the other, and what calls were answered meanwhile."""
    starts_at = time.monotonic()
    while (began := time.monotonic()) < starts_at + MINUTES * 60:
        before = len(load.calls)
        name = faults.strike()
        took = time.monotonic() - began
        time.sleep(max(0.0, FAULT_SECONDS - took))
        statuses = collections.Counter(one.status for one in load.calls[before:])
        print(f"{began - starts_at:7.1f} s: {name}, {took:.1f} s; {dict(sorted(statuses.items()))}", flush=True)


@pytest.mark.timeout(int(MINUTES * 60) + 480)
def test_soak(truth, own_postgres, durable_redis, fleet):
    box, path = truth
    nodes = fleet(provider=box, edges=2, postgres=own_postgres, redis=durable_redis, models=CATALOGUE, sections=SECTIONS,
                  listen="h2c = true", node=Lasting)
    faults = Faults(nodes, box, (own_postgres, durable_redis), SEED)
    before = warm_up(nodes, faults.free)
    load = Mixed(nodes, faults.free, MINUTES * 60 + WELL_SECONDS)
    strike_all(faults, load)
    until(lambda: is_well(load), "everything is answered again", WELL_SECONDS)
    load.stop()
    assert next(load.pairs, None), "there were too few pairs of keys and models"
    print(f"seed {SEED}: {sum(faults.done.values())} faults of {len(faults.done)} kinds")
    check_calls(load)
    found, text = books.run_audit(path, nodes.database, REST_SECONDS)
    assert not found, text
    until(lambda: not books.reconcile(nodes.control), "reconciling finds nothing", REST_SECONDS)
    for node in nodes.edges:
        until(lambda node=node: node.metric("tokenroute_calls_in_flight") == 0, "no call is left")
        assert node.metric("tokenroute_panics_total") == 0
    for node in nodes.nodes:
        assert "panicked" not in node.process.log()
        now = until(lambda node=node: rests(node, before[node.name]), f"{node.name} takes what it took: {before[node.name]}", REST_SECONDS)
        print(f"{node.name}: {before[node.name]} before, {now} after")
