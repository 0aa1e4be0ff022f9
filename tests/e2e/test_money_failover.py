"""Redis hands over to its replica, and a primary that was deposed comes back: no money is made or lost, nobody is told
that they have none, and it is over soon."""

import time

import pytest

from harness import books
from harness.payers import MODELS, begin_load, check_books, check_never_misjudged, kinds, open_keys, warm_up
from harness.redis import Redis
from harness.relay import Relay
from harness.waiting import until

CALLS_PER_SECOND = 100
# From the moment that the address leads to a primary again until everything is answered.
BACK_SECONDS = 5.0
# What a deposed primary believes of a balance, in nano-USD.
FORGED = 77 * books.NANO_USD


@pytest.fixture
def pair(folder, durable_redis):
    """A primary, its replica, and the address that leads to the primary."""
    replica = Redis(folder, name="replica", durable=True, replica_of=durable_redis)
    relay = Relay(durable_redis.port)
    yield durable_redis, replica, relay
    relay.close()
    replica.process.stop()


@pytest.fixture
def nodes(fleet, truth, postgres, pair):
    box, _ = truth
    _, replica, relay = pair
    until(replica.is_in_step, "the replica follows")
    return fleet(provider=box, edges=2, postgres=postgres, redis=relay, models=MODELS)


def check(nodes, path, calls, changes):
    """Refused are calls for a moment after each change of the primary, and none otherwise."""
    check_never_misjudged(calls)
    refused = [one.began for one in calls if one.status == 503]
    late = [at for at in refused if not any(change <= at + 1 and at < change + BACK_SECONDS for change in changes)]
    assert not late, (kinds(calls), [[at - change for change in changes] for at in late][:5])
    # Calls of the last seconds are in: it does go on.
    assert all(one.status == 200 for one in calls if one.began > changes[-1] + BACK_SECONDS)
    check_books(nodes, path, calls)


@pytest.mark.timeout(180)
def test_a_replica_takes_over(nodes, pair, truth):
    primary, replica, relay = pair
    keys = open_keys(nodes)
    warm_up(nodes, keys)
    load = begin_load(nodes, keys, CALLS_PER_SECOND)
    time.sleep(2)
    primary.kill()
    replica.promote()
    relay.switch(replica.port)
    changed_at = time.monotonic()
    time.sleep(BACK_SECONDS + 3)
    check(nodes, truth[1], load.stop(), [changed_at])


@pytest.mark.timeout(240)
def test_a_deposed_primary_that_comes_back_is_not_believed(nodes, pair, truth):
    primary, replica, relay = pair
    keys = open_keys(nodes)
    warm_up(nodes, keys)
    load = begin_load(nodes, keys, CALLS_PER_SECOND)
    time.sleep(2)
    primary.freeze()
    replica.promote()
    relay.switch(replica.port)
    changes = [time.monotonic()]
    time.sleep(BACK_SECONDS + 2)
    # It goes on where it stood, with what was sent to it and with what it takes for its own.
    primary.thaw()
    payer = books.account_id(nodes.books, "payer")
    pools = [shard for shard in range(16) if primary.ask("EXISTS", f"tr:{{{shard:02}}}:pool:{payer}") == b":1"]
    assert len(pools) == 1
    assert primary.ask("HINCRBY", f"tr:{{{pools[0]:02}}}:pool:{payer}", "free", str(FORGED)).startswith(b":")
    relay.switch(primary.port)
    changes.append(time.monotonic())
    time.sleep(BACK_SECONDS + 3)
    check(nodes, truth[1], load.stop(), changes)
    epochs = nodes.books.rows("SELECT count(*) AS declared FROM hot_epochs")
    assert int(epochs[0]["declared"]) >= 3, "each of them began a life of its own"
