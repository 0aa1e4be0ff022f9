"""Stores that go away, stand still, forget or fill up: known keys go on, nobody is told that they have no money or no key,
and the books are right afterwards."""

import contextlib
import json
import os
import sqlite3
import subprocess
import threading
import time

import pytest

from harness import books, raw
from harness.calls import percentile
from harness.edge import LEASE_SECONDS
from harness.gateway import chat
from harness.payers import (
    CALLS_PER_SECOND, CREDIT, DEAR, KEYS, MODEL, MODELS, SLOW, begin_load, check_books, check_never_misjudged, kinds, open_keys,
    warm_up)
from harness.scale import scaled
from harness.waiting import until

# How long Redis is away, and for how much of that known keys must not notice.
AWAY_SECONDS, UNNOTICED_SECONDS = scaled(120), scaled(45)
# From a store's return until everything is answered again.
BACK_SECONDS = 5.0
# A machine of few cores that starts a store and four nodes is not measured by the millisecond.
GRACE_SECONDS = 0.5
REVOKED_SECONDS, REVOCATIONS = 1.0, 34


@pytest.fixture
def hot(fleet, truth, own_postgres, durable_redis):
    """Three edges, a node that posts, and stores of their own."""
    box, path = truth
    nodes = fleet(provider=box, edges=3, postgres=own_postgres, redis=durable_redis, models=MODELS)
    keys = open_keys(nodes)
    warm_up(nodes, keys)
    return nodes, keys, path


class Away:
    """Two ways for Redis to be away."""

    def __init__(self, redis, how):
        self.redis, self.how = redis, how

    def begin(self):
        self.redis.freeze() if self.how == "stands still" else self.redis.kill()

    def end(self):
        self.redis.thaw() if self.how == "stands still" else self.redis.start()


@pytest.mark.timeout(180 + int(4 * AWAY_SECONDS))
@pytest.mark.parametrize("how", ["is gone", "stands still"])
def test_redis_is_away_for_two_minutes(hot, durable_redis, how):
    nodes, keys, path = hot
    away = Away(durable_redis, how)
    load = begin_load(nodes, keys)
    time.sleep(2)
    gone_at = time.monotonic()
    away.begin()
    time.sleep(AWAY_SECONDS)
    back_at = time.monotonic()
    away.end()
    # The clock runs from when it answers: starting is not our doing.
    answers_at = time.monotonic()
    time.sleep(BACK_SECONDS + 2)
    calls = load.stop()
    check_never_misjudged(calls)
    refused = [one for one in calls if one.status == 503]
    early = [one for one in refused if one.began < gone_at + UNNOTICED_SECONDS]
    assert not early, (kinds(early), early[0].began - gone_at)
    # Then the lease is over, and nothing that was not lent is spent.
    late = [one for one in calls if gone_at + scaled(LEASE_SECONDS) < one.began < back_at]
    assert late and {one.status for one in late} == {503}, kinds(late)
    after = [one for one in refused if one.began > answers_at + BACK_SECONDS]
    assert not after, (kinds(after), max(one.began for one in after) - answers_at)
    assert len(calls) > CALLS_PER_SECOND * AWAY_SECONDS / 2, "the load was kept up"
    check_books(nodes, path, calls)


def test_redis_forgets_everything_under_load(hot, durable_redis):
    nodes, keys, path = hot
    load = begin_load(nodes, keys)
    time.sleep(2)
    forgotten_at = time.monotonic()
    assert durable_redis.ask("FLUSHALL") == b"+OK"
    time.sleep(BACK_SECONDS + 3)
    calls = load.stop()
    check_never_misjudged(calls)
    late = [one for one in calls if one.status == 503 and one.began > forgotten_at + BACK_SECONDS]
    assert not late, kinds(late)
    check_books(nodes, path, calls)


def test_redis_is_not_there_at_the_start(fleet, truth, postgres, durable_redis):
    box, path = truth
    nodes = fleet(provider=box, postgres=postgres, redis=durable_redis, models=MODELS)
    keys = open_keys(nodes, count=1)
    ((key, _),) = keys
    free, _ = nodes.first.create_key("free")
    durable_redis.kill()
    nodes.first.stop()
    nodes.first.start()
    assert nodes.first.page("/readyz")[0] == 200
    # Who does not pay is served; who does is told to come back.
    assert nodes.first.ask(chat(f"box/{MODEL}"), key=free).status == 200
    answer = nodes.first.ask(chat(f"box/{MODEL}"), key=key)
    assert answer.status == 503 and int(answer.header("retry-after")) >= 1, answer.body
    durable_redis.start()
    until(lambda: nodes.first.ask(chat(f"box/{MODEL}"), key=key).status == 200, "it is paid", BACK_SECONDS + GRACE_SECONDS)


@pytest.mark.timeout(180)
def test_postgres_is_away(hot, own_postgres):
    nodes, keys, path = hot
    stranger, _ = books.open_key(nodes.first, "payer", name="stranger")
    load = begin_load(nodes, keys)
    time.sleep(1)
    own_postgres.crash()
    time.sleep(1)
    # A key that no edge has seen cannot be judged: that is no refusal of it.
    answer = nodes.edges[1].ask(chat(f"box/{MODEL}"), key=stranger)
    assert answer.status in (200, 503), answer.body
    assert answer.status == 200 or answer.header("retry-after"), answer.fields
    time.sleep(scaled(60))
    own_postgres.start()
    time.sleep(2)
    calls = load.stop()
    assert {one.status for one in calls} == {200}, kinds(calls)
    check_books(nodes, path, calls)


@pytest.mark.timeout(180)
def test_postgres_stands_still(hot, own_postgres):
    nodes, keys, path = hot
    load = begin_load(nodes, keys)
    time.sleep(1)
    own_postgres.freeze()
    try:
        time.sleep(scaled(60))
    finally:
        own_postgres.thaw()
    time.sleep(2)
    calls = load.stop()
    assert {one.status for one in calls} == {200}, kinds(calls)
    check_books(nodes, path, calls)


@pytest.mark.timeout(180)
def test_a_revoked_key_is_refused_everywhere_within_a_second(hot):
    nodes, _, _ = hot
    keys = [books.open_key(nodes.first, "payer", name=f"leaver-{number}") for number in range(REVOCATIONS)]
    warm_up(nodes, keys)
    seconds, last = [], threading.Lock()

    def watch(edge, key, revoked_at):
        """Goes on calling until it is refused."""
        while (status := edge.ask(chat(f"box/{MODEL}"), key=key).status) == 200:
            assert time.monotonic() < revoked_at + 10 * REVOKED_SECONDS
        assert status == 401
        with last:
            seconds.append(time.monotonic() - revoked_at)

    for key, identity in keys:
        books.run(nodes.first, "keys", "revoke", identity)
        revoked_at = time.monotonic()
        watchers = [threading.Thread(target=watch, args=(edge, key, revoked_at)) for edge in nodes.edges]
        for one in watchers:
            one.start()
        for one in watchers:
            one.join()
    assert len(seconds) == REVOCATIONS * len(nodes.edges)
    assert percentile(seconds, 0.99) < REVOKED_SECONDS, sorted(seconds)[-5:]


@pytest.mark.timeout(180)
def test_an_edge_that_never_comes_back_leaves_no_money_behind(fleet, truth, postgres, durable_redis):
    """All that an account has is held by a stream when its edge is killed for good."""
    box, _ = truth
    nodes = fleet(provider=box, edges=2, postgres=postgres, redis=durable_redis, models=MODELS)
    books.open_account(nodes.first, "widow", "0.10")
    key, _ = books.open_key(nodes.first, "widow")
    stream = raw.Connection(nodes.edges[0].address)
    stream.send(nodes.edges[0].request(chat(f"box/{DEAR}", " ".join(["the"] * 600), stream=True), key=key))
    assert stream.read_head().status == 200 and stream.read_chunk()
    # It is long enough lent for the pool to know that a call holds it.
    time.sleep(1.5)
    nodes.edges[0].kill()
    stream.close()
    body = chat(f"box/{DEAR}")
    first = nodes.edges[1].ask(body, key=key).status
    assert first in (402, 503), "what is held is not lent twice"
    until(lambda: nodes.edges[1].ask(body, key=key).status == 200, "the money is back", scaled(LEASE_SECONDS) + 12)
    found = "SELECT kind FROM findings"
    until(lambda: "abandoned" in {row["kind"] for row in nodes.books.rows(found)}, "it is a finding", 15)
    open_now = lambda: nodes.control.metric("tokenroute_findings_open", kind="abandoned")
    until(lambda: open_now() == 1, "it is counted")
    (line,) = map(json.loads, books.run(nodes.control, "findings", "list", "--json").splitlines())
    books.run(nodes.control, "findings", "close", line["id"], "--note", "the machine is scrap")
    until(lambda: open_now() == 0, "it is seen to")


@contextlib.contextmanager
def small_disk(folder, megabytes):
    """A file system of its own; skips where none can be mounted."""
    # A state folder is for its owner alone.
    folder.parent.mkdir(parents=True, mode=0o700)
    folder.mkdir(mode=0o700)
    words = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0700", "tmpfs", folder]
    if os.getuid() != 0 or subprocess.run(words, capture_output=True).returncode:
        pytest.skip("mounting a small file system is not permitted here: a full disk was not tested")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_refuses_paid_calls_and_heals_by_itself(fleet, truth, folder):
    box, path = truth
    with small_disk(folder / "fleet-0" / "edge-0" / "state" / "journal", 4):
        nodes = fleet(provider=box, models=MODELS)
        edge = nodes.first
        ((key, _),) = open_keys(nodes, count=1)
        warm_up(nodes, [(key, None)])
        streaming = raw.Connection(edge.address)
        streaming.send(edge.request(chat(f"box/{SLOW}", " ".join(["the"] * 60), stream=True), key=key))
        assert streaming.read_head().status == 200 and streaming.read_chunk()
        fill = edge.state / "journal" / "fill"
        with contextlib.suppress(OSError), fill.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        refused = until(lambda: (one := edge.ask(chat(f"box/{MODEL}"), key=key)).status == 503 and one, "it refuses")
        assert int(refused.header("retry-after")) >= 1 and books.reason(refused) not in (None, "overloaded"), refused.body
        # Who does not pay needs no journal, and what has begun goes on to its end.
        assert edge.ask(chat(f"box/{MODEL}")).status in (200, 503)
        text = b""
        while part := streaming.read_chunk():
            text += part
        assert text.endswith(b"data: [DONE]\n\n")
        fill.unlink()
        until(lambda: edge.ask(chat(f"box/{MODEL}"), key=key).status == 200, "it has recovered without a restart", BACK_SECONDS)
        # A journal that was cut off is read again as far as it is whole.
        edge.kill()
        edge.start()
        assert edge.ask(chat(f"box/{MODEL}"), key=key).status == 200
        until(lambda: not books.reconcile(edge), "reconciling finds nothing", 30)
        account = books.account_id(nodes.books, "payer")
        charged = f"SELECT coalesce(sum(charge), 0) FROM records WHERE account = '{account}'"
        left = CREDIT * books.NANO_USD
        until(lambda: books.balance(nodes.books, "payer") == left - int(nodes.books.value(charged)), "all is posted")
        edge.stop()


@pytest.mark.timeout(180)
def test_paid_calls_stop_when_nothing_is_posted_for_too_long(fleet, truth, postgres, durable_redis):
    """Nobody posts: what has been charged is in Redis alone. It stops, and begins again by itself."""
    box, path = truth
    lag = "posting_lag_max_seconds = 3"
    nodes = fleet(provider=box, postgres=postgres, redis=durable_redis, models=MODELS, money=lag)
    ((key, _),) = keys = open_keys(nodes, count=1)
    free, _ = nodes.first.create_key("free")
    warm_up(nodes, keys)
    nodes.control.kill()
    stopped_at = time.monotonic()
    calls = 1
    while (answer := nodes.first.ask(chat(f"box/{MODEL}"), key=key)).status == 200:
        calls += 1
        time.sleep(0.05)
    assert time.monotonic() - stopped_at > 3 - 1 and calls > 10
    assert answer.status == 503 and books.reason(answer) == "funds_unavailable", answer.body
    assert int(answer.header("retry-after")) >= 1
    assert nodes.first.metric("tokenroute_posting_lag_seconds") > 3
    assert nodes.first.ask(chat(f"box/{MODEL}"), key=free).status == 200, "who does not pay is served"
    nodes.control.start()
    until(lambda: nodes.first.ask(chat(f"box/{MODEL}"), key=key).status == 200, "it goes on", BACK_SECONDS)
    payer = books.account_id(nodes.books, "payer")
    until(lambda: nodes.books.value(f"SELECT count(*) FROM records WHERE account = '{payer}' AND charge > 0") >= calls,
          "all is posted")
    assert not books.reconcile(nodes.control)


def test_sqlite_is_locked(fleet, truth):
    """Calls go on from what is lent; who needs the database is told to come back, soon."""
    box, path = truth
    nodes = fleet(provider=box, models=MODELS)
    edge, keys = nodes.first, open_keys(nodes, count=2)
    warm_up(nodes, keys)
    books.open_account(edge, "newcomer", "5.00")
    newcomer, _ = books.open_key(edge, "newcomer")
    load = begin_load(nodes, keys, rate=50)
    time.sleep(1)
    lock = sqlite3.connect(edge.state / "tokenroute.db", isolation_level=None, timeout=5)
    lock.execute("BEGIN IMMEDIATE")
    try:
        began = time.monotonic()
        answer = edge.ask(chat(f"box/{MODEL}"), key=newcomer)
        assert answer.status == 503 and int(answer.header("retry-after")) >= 1, answer.body
        # Bounded: two seconds, on a machine with other things to do.
        assert time.monotonic() - began < 2 + 3 * GRACE_SECONDS
        time.sleep(max(0.0, began + 0.5 * scaled(LEASE_SECONDS) - time.monotonic()))
    finally:
        lock.execute("ROLLBACK")
        lock.close()
    until(lambda: edge.ask(chat(f"box/{MODEL}"), key=newcomer).status == 200, "the newcomer is served", BACK_SECONDS)
    calls = load.stop()
    assert {one.status for one in calls} == {200}, kinds(calls)
    check_books(nodes, path, calls)


def test_steady_calls_make_no_round_trips(fleet, truth, own_postgres, durable_redis):
    """What is exchanged with the bank does not grow with the calls. With the lease of the product, not a scaled one."""
    box, _ = truth
    nodes = fleet(provider=box, edges=3, postgres=own_postgres, redis=durable_redis, models=MODELS, lease=60)
    keys = open_keys(nodes)
    warm_up(nodes, keys)
    exchanges = lambda: sum(edge.metric("tokenroute_bank_exchanges_total") for edge in nodes.edges)
    load = begin_load(nodes, keys)
    time.sleep(3)
    before, made = exchanges(), len(load.calls)
    time.sleep(5)
    exchanged, made = exchanges() - before, len(load.calls) - made
    calls = load.stop()
    assert {one.status for one in calls} == {200}, kinds(calls)
    # One command for an account and edge, every second.
    assert made > CALLS_PER_SECOND * 5 / 2 and exchanged * 1_000 < 50 * made, (made, exchanged)
