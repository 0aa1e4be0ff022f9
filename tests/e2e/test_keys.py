"""Keys: made, listed, revoked everywhere within a second, and never lost with Redis or the database."""

import json
import re
import sqlite3
import threading
import time

import pytest

from harness.gateway import KEY, chat
from harness.redis import Redis
from harness.waiting import until

# What the gateway promises between a revocation and the last call that it lets through.
REVOKED_SECONDS = 1.0


@pytest.fixture
def edges(start, redis):
    """Two edges that share one database and one Redis."""
    sections = f'[redis]\nurl = "{redis.url}"'
    first = start("first", sections=sections)
    second = start("second", sections=sections, state=first.state)
    second.key = first.key
    return [first, second]


def status(gateway, key=None):
    return gateway.ask(chat("box/echo"), key=key).status


def reason(answer):
    return json.loads(answer.body)["error"]["metadata"]["reason"]


def test_a_key_is_made_shown_once_listed_and_revoked(start):
    gateway = start()
    assert status(gateway) == 200
    made = gateway.command("keys", "create", "--name", "ci", "--account", "acme")
    key = made.stdout.strip()
    assert KEY.fullmatch(key) and key not in made.stderr
    identity = re.search(r"key_\w+", made.stderr)[0]
    assert status(gateway, key) == 200
    listed = gateway.command("keys", "list")
    assert identity in listed.stdout and key not in listed.stdout and key[:8] in listed.stdout
    entries = [json.loads(line) for line in gateway.command("keys", "list", "--json").stdout.splitlines()]
    entry = next(one for one in entries if one["id"] == identity)
    assert (entry["name"], entry["account"], entry["state"]) == ("ci", "acme", "active")
    assert gateway.command("keys", "revoke", identity).returncode == 0
    until(lambda: status(gateway, key) == 401, "the key is refused", REVOKED_SECONDS)
    assert status(gateway) == 200
    assert identity in gateway.command("keys", "list").stdout
    assert gateway.command("keys", "revoke", "key_00000000000000000000000000").returncode == 1
    assert gateway.command("keys", "revoke", "nonsense").returncode == 1
    assert gateway.command("keys", "create", "--name", "").returncode == 1


def test_a_key_that_has_expired(start):
    gateway = start()
    key, identity = gateway.create_key("short", "--expires-in-days", "1")
    with sqlite3.connect(gateway.state / "tokenroute.db") as database:
        database.execute("UPDATE api_keys SET expires = created + 1 WHERE id = ?", [identity])
    database.close()
    answer = gateway.ask(chat("box/echo"), key=key)
    assert (answer.status, reason(answer)) == (401, "key_expired")


def test_a_key_of_another_gateway_is_unknown(start):
    """Its checksum is right, its hash is nobody's here."""
    gateway, other = start(), start("other")
    answer = gateway.ask(chat("box/echo"), key=other.key)
    assert (answer.status, reason(answer)) == (401, "key_unknown")
    assert status(gateway) == 200


def test_one_digit_off_is_refused_without_a_look_up(start):
    gateway = start()
    before = gateway.page("/metrics")[1]
    for place in range(6, 55, 4):
        digit = "A" if gateway.key[place] != "A" else "B"
        assert status(gateway, gateway.key[:place] + digit + gateway.key[place + 1:]) == 401
    lookups = re.compile(r"^tokenroute_key_lookups_total.*$", re.M)
    assert lookups.findall(before)
    assert lookups.findall(gateway.page("/metrics")[1]) == lookups.findall(before)


def revoke_within_a_second(edges, break_redis=lambda: None):
    """Revokes a key that both edges have in their caches, and times how long it works."""
    key, identity = edges[0].create_key()
    for edge in edges:
        assert status(edge, key) == 200
    break_redis()
    assert edges[0].command("keys", "revoke", identity).returncode == 0
    revoked = time.monotonic()
    for edge in edges:
        until(lambda edge=edge: status(edge, key) == 401, f"{edge.name} refuses the key", REVOKED_SECONDS)
        until_now = time.monotonic() - revoked
        assert until_now < 2 * REVOKED_SECONDS
        assert status(edge) == 200
    # Nothing brings it back, no cache and no late fill.
    for _ in range(20):
        assert {status(edge, key) for edge in edges} == {401}


def test_revoking_reaches_both_edges(edges):
    revoke_within_a_second(edges)


def test_revoking_reaches_both_edges_while_redis_hangs(edges, redis):
    revoke_within_a_second(edges, redis.freeze)
    redis.thaw()
    revoke_within_a_second(edges)


def test_revoking_reaches_both_edges_without_redis(edges, redis):
    revoke_within_a_second(edges, redis.kill)
    redis.start()
    revoke_within_a_second(edges)


def test_revoking_outlives_a_redis_that_forgot(edges, redis):
    key, identity = edges[0].create_key()
    assert status(edges[0], key) == 200
    assert edges[0].command("keys", "revoke", identity).returncode == 0
    redis.ask("FLUSHALL")
    until(lambda: status(edges[0], key) == 401, "the key is refused", REVOKED_SECONDS)
    assert status(edges[1], key) == 401


def test_an_edge_that_starts_cold_refuses_what_was_revoked(edges, start, redis):
    key, identity = edges[0].create_key()
    assert status(edges[0], key) == 200
    redis.kill()
    assert edges[0].command("keys", "revoke", identity).returncode == 0
    redis.start()
    third = start("third", sections=edges[0].parts["sections"], state=edges[0].state)
    assert status(third, key) == 401
    assert status(third, edges[0].key) == 200


class Callers:
    """A few callers that go on calling until told to stop; every status is kept."""

    def __init__(self, edges, count=4):
        self.statuses, self.slowest = [], 0.0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(edges, place)) for place in range(count)]

    def _call(self, edges, place):
        number = place
        while not self._stop.is_set():
            began = time.monotonic()
            self.statuses.append(status(edges[number % len(edges)]))
            self.slowest = max(self.slowest, time.monotonic() - began)
            number += 1

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def await_more(self, count):
        """Until that many more calls have ended."""
        aim = len(self.statuses) + count
        until(lambda: len(self.statuses) >= aim, f"{count} more calls")


def test_redis_hanging_dying_and_coming_back_turns_nobody_away(edges, redis):
    with Callers(edges) as callers:
        callers.await_more(50)
        for disturb in [redis.freeze, redis.thaw, redis.kill, redis.start, lambda: redis.ask("FLUSHALL")]:
            disturb()
            callers.await_more(50)
            # A key that no edge has seen is looked up in the database.
            fresh, _ = edges[0].create_key()
            assert {status(edge, fresh) for edge in edges} == {200}
    assert set(callers.statuses) == {200}
    # No call has waited for a time-out of Redis: a generous bound against seconds.
    assert callers.slowest < 5


def test_edges_start_without_redis(start, redis):
    redis.kill()
    gateway = start(sections=f'[redis]\nurl = "{redis.url}"')
    assert gateway.page("/readyz")[0] == 200
    assert status(gateway) == 200
    assert status(gateway, "sk-tr-" + "d" * 49) == 401


def test_edges_start_with_a_redis_that_hangs(start, folder):
    hanging = Redis(folder, "hanging")
    try:
        hanging.freeze()
        gateway = start(sections=f'[redis]\nurl = "{hanging.url}"')
        assert status(gateway) == 200
    finally:
        hanging.process.stop()


def test_cached_keys_go_on_without_the_database(start, redis):
    """Without its stores an edge serves the keys that it knows; of others it says that it cannot tell."""
    gateway = start(sections=f'[redis]\nurl = "{redis.url}"')
    known, _ = gateway.create_key()
    unseen, _ = gateway.create_key()
    assert status(gateway, known) == 200
    redis.kill()
    # Its pages are overwritten in place: whatever the edge reads next is no database any more.
    for path in gateway.state.glob("tokenroute.db*"):
        path.write_bytes(b"\x00" * max(path.stat().st_size, 1))
    answer = until(
        lambda: (found := gateway.ask(chat("box/echo"), key=unseen)).status == 503 and found,
        "the edge has noticed",
    )
    assert reason(answer) == "keys_unavailable" and answer.header("retry-after")
    assert [status(gateway, known) for _ in range(20)] == [200] * 20
    # Checksums need no store.
    assert status(gateway, "sk-tr-" + "e" * 49) == 401
    gateway.process.child.kill()
