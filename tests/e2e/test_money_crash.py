"""Nodes are killed at any instruction while calls go on, and then an auditor compares the provider's truth with SQL."""

import collections
import itertools
import os
import random
import threading
import time

import pytest

from harness import books
from harness.calls import Steady
from harness.edge import priced
from harness.gateway import INPUT_PRICE, OUTPUT_PRICE, chat
from harness.waiting import until

# `make soak-kills` has 1,000.
KILLS = int(os.environ.get("TOKENROUTE_KILLS", "50"))
# The stores' own crashes are fewer: each takes everybody's time.
KILLS_WITH_STORES = max(10, KILLS * 2 // 5)
CALLS_PER_SECOND = 25
# Between a node's return and the next kill, seconds.
PAUSE_SECONDS = (0.1, 1.8)
# What a kill takes at most with its pause, for how many pairs of key and model are needed.
KILL_SECONDS = 3.0
MID_STREAM_SHARE = 0.3
# Of all calls, how many had their whole answer all the same: kills of the only node break off all the others.
ANSWERED_SHARE = 0.2
# From a kill to the provider's notice of it.
NOTICED_SECONDS = 1.0
# How soon everything has come to rest: what a killed edge left behind, too.
REST_SECONDS = 60
# A store is restarted at every so many kills.
STORE_EVERY = 3

ACCOUNTS = 4
WORDS = 40
TEXT = " ".join(["the"] * WORDS)
SCRIPTS = [
    # Usage on each chunk, at the end, or never; about a second a stream. JSON that thinks, and JSON at once.
    (True, "echo+pace-20+usage-every-chunk"), (True, "echo+pace-20"), (True, "echo+pace-40+no-usage"),
    (True, "echo+pace-10+late-head-200"), (False, "echo+late-head-300"), (False, "echo"),
]
MODELS_EACH = 10
MODELS = [(stream, f"{script}+tag-{number}") for stream, script in SCRIPTS for number in range(MODELS_EACH)]
CATALOGUE = "".join(priced(model, input=INPUT_PRICE, output=OUTPUT_PRICE) for _, model in MODELS)
# One attempt a call: another would be the house's, and the truth would not tell them apart.
ONE_ATTEMPT = "\n[routing]\nattempts_max = 1\non_break = \"error\"\n"


class Load:
    """Streams and JSON calls at a steady rate. Each pair of key and model is used once, so that the auditor knows a call by it."""

    def __init__(self, nodes, kills, seed):
        keys_needed = int(kills * KILL_SECONDS * CALLS_PER_SECOND / len(MODELS)) + 2
        self.keys = []
        for number in range(ACCOUNTS):
            books.open_account(nodes.first, f"payer-{number}", "1000.00")
        for number in range(keys_needed):
            self.keys.append(books.open_key(nodes.first, f"payer-{number % ACCOUNTS}", name=f"key-{number}"))
        self.random, self.edges = random.Random(seed), nodes.edges
        # Every model with a key before the next key, so that all accounts are at work in every second.
        self.pairs = itertools.product(range(len(self.keys) // ACCOUNTS + 1), self.random.sample(MODELS, len(MODELS)), range(ACCOUNTS))
        self.steady = Steady(self.pick, CALLS_PER_SECOND)

    def pick(self):
        for group, (stream, model), account in self.pairs:
            place = group * ACCOUNTS + account
            if place >= len(self.keys):
                continue
            key, identity = self.keys[place]
            edge = self.random.choice(self.edges)
            body = chat(f"box/{model}", TEXT, stream=stream)
            body["messages"].insert(0, {"role": "system", "content": f"mark-{identity}"})
            return edge.address, edge.request(body, key=key)
        return None

    def stop(self):
        calls = self.steady.stop()
        assert next(self.pairs, None), "there were too few pairs of keys and models"
        return calls


class Killer:
    """Kills nodes and starts them again at once."""

    def __init__(self, nodes, seed, stores=(), environment=None):
        self.nodes, self.stores, self.random = nodes, itertools.cycle(stores) if stores else None, random.Random(seed)
        self.environment = environment or {}
        # Monotonic microseconds of each kill of an edge.
        self.edge_kills, self.kills = [], 0

    def kill(self):
        self.kills += 1
        time.sleep(self.random.uniform(*PAUSE_SECONDS))
        store = None
        if self.stores and self.kills % STORE_EVERY == 0:
            # It comes back while nodes fall: nothing waits for the other.
            store = threading.Thread(target=next(self.stores))
            store.start()
        control = self.nodes.control
        victim = control if control and self.random.random() < 0.2 else self.random.choice(self.nodes.edges)
        if victim is not control:
            self.edge_kills.append(time.monotonic_ns() // 1_000)
        victim.kill()
        victim.environment |= self.environment
        victim.start()
        if store:
            store.join()


def mid_stream(kills, served):
    """How many kills broke off an answer whose beginning had been sent, by the provider's own account."""
    ends = sorted(one.ended_us for one in served if one.end == "client_closed" and one.sent > 0)
    within = NOTICED_SECONDS * 1e6
    return sum(any(at <= end <= at + within for end in ends) for at in kills)


def run(nodes, truth, kills, seed, stores=(), environment=None):
    """Kills so often, then looks: the auditor's findings by kind, and all that it printed."""
    load, killer = Load(nodes, kills, seed), Killer(nodes, seed, stores, environment)
    until(lambda: truth.exists() and books.audit.read_truth(truth), "calls are served")
    for _ in range(kills):
        killer.kill()
    made = load.stop()
    found, text = books.run_audit(truth, nodes.database, REST_SECONDS)
    served = books.audit.read_truth(truth)
    broken = mid_stream(killer.edge_kills, served)
    told = f"{len(made)} calls, {len(served)} served, {kills} kills, {broken} of {len(killer.edge_kills)} in mid-stream"
    print(told, collections.Counter(found))
    # That there was something to lose, and that somebody was served.
    assert broken >= MID_STREAM_SHARE * kills, told
    assert len(served) > kills and sum(one.status == 200 and one.complete for one in made) > ANSWERED_SHARE * len(made), told
    assert {one.status for one in made} <= {0, 200, 502, 503}, collections.Counter((one.status, one.reason) for one in made)
    return collections.Counter(found), text


def long_enough(kills):
    return pytest.mark.timeout(240 + kills * 6)


@long_enough(KILLS)
def test_kills_of_one_node_lose_nothing_and_double_nothing(fleet, truth):
    box, path = truth
    nodes = fleet(provider=box, models=CATALOGUE, sections=ONE_ATTEMPT)
    found, text = run(nodes, path, KILLS, seed=1)
    assert not found, text
    assert not books.reconcile(nodes.first)


@long_enough(KILLS)
def test_kills_of_edges_and_poster_lose_nothing_and_double_nothing(fleet, truth, postgres, durable_redis):
    box, path = truth
    nodes = fleet(provider=box, edges=2, postgres=postgres, redis=durable_redis, models=CATALOGUE, sections=ONE_ATTEMPT)
    found, text = run(nodes, path, KILLS, seed=2)
    assert not found, text


@long_enough(KILLS_WITH_STORES)
def test_kills_with_redis_killed_too(fleet, truth, postgres, durable_redis):
    box, path = truth
    nodes = fleet(provider=box, edges=2, postgres=postgres, redis=durable_redis, models=CATALOGUE, sections=ONE_ATTEMPT)

    def restart_redis():
        durable_redis.kill()
        durable_redis.start()

    found, text = run(nodes, path, KILLS_WITH_STORES, seed=3, stores=[restart_redis])
    assert not found, text


@long_enough(KILLS_WITH_STORES)
def test_kills_with_postgres_restarted_too(fleet, truth, own_postgres, durable_redis):
    box, path = truth
    nodes = fleet(provider=box, edges=2, postgres=own_postgres, redis=durable_redis, models=CATALOGUE, sections=ONE_ATTEMPT)
    found, text = run(nodes, path, KILLS_WITH_STORES, seed=4, stores=[own_postgres.restart])
    assert not found, text


@long_enough(10)
def test_without_the_journals_replay_calls_are_lost(fleet, truth, monkeypatch):
    """The same with replay switched off must fail: else the tests above prove nothing."""
    box, path = truth
    monkeypatch.setattr("test_money_crash.REST_SECONDS", 5)
    nodes = fleet(provider=box, models=CATALOGUE, sections=ONE_ATTEMPT)
    found, text = run(nodes, path, 10, seed=5, environment={"TOKENROUTE_JOURNAL_REPLAY": "off"})
    assert found["lost"] > 0, text
