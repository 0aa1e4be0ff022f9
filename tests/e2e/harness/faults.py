"""What can go wrong around a gateway that works: each fault does its harm, and heals."""

import collections
import os
import random
import signal
import time

from harness import books
from harness.calls import at_once
from harness.gateway import chat
from harness.waiting import until

# How long what stands still or fails goes on, seconds.
OUTAGE_SECONDS = 3
# From the revocation of a key until every edge refuses it, on a machine that is busy with everything else.
REVOKED_SECONDS = 5
# Calls of a noisy key, at once, and how many of them are admitted each second.
NOISE, NOISE_PER_SECOND = 200, 5
TIERS = f"""
[tiers.noisy]
requests_per_second = {NOISE_PER_SECOND}
"""
# Requests of the provider whose model has the part `on-…` of this name meet its outages.
OUTAGE = "soak"
OUTAGES = ("status-500", "reset-before-head", "silence", "late-first-token-800", "cut-after-9", "stall-after-5")
# What a free call asks for.
FREE = "echo+tag-free"


class Faults:
    """Faults in an order that a seed decides: each kind once before any comes again."""

    def __init__(self, nodes, box, stores, seed):
        self.nodes, self.box, (self.postgres, self.redis) = nodes, box, stores
        self.random, self.bag, self.done = random.Random(seed), [], collections.Counter()
        self.free, _ = nodes.first.create_key("free")
        self.noisy, _ = nodes.first.create_key("noisy", "--tier", "noisy")
        self.kinds = [name for name in dir(self) if name.startswith("do_")] + [f"provider_{part}" for part in OUTAGES]

    def strike(self):
        """The next fault, from its harm to its healing; its name."""
        if not self.bag:
            self.bag = self.random.sample(self.kinds, len(self.kinds))
        name = self.bag.pop()
        part = name.removeprefix("provider_")
        if part != name:
            self.fail_provider(part)
        else:
            getattr(self, name)()
        self.done[name.removeprefix("do_")] += 1
        return name

    def edge(self):
        return self.random.choice(self.nodes.edges)

    # Nodes.

    def do_kill_edge(self):
        edge = self.edge()
        edge.kill()
        edge.start()

    def do_kill_control(self):
        self.nodes.control.kill()
        self.nodes.control.start()

    def do_restart_edge(self):
        edge = self.edge()
        edge.end(signal.SIGTERM)
        edge.start()

    def do_upgrade_edge(self):
        self.edge().upgrade()

    def do_kill_two(self):
        """An edge and who posts, together."""
        edge, control = self.edge(), self.nodes.control
        edge.kill()
        control.kill()
        control.start()
        edge.start()

    # Stores.

    def do_kill_redis(self):
        self.redis.kill()
        time.sleep(self.random.uniform(0, OUTAGE_SECONDS))
        self.redis.start()

    def do_restart_redis(self):
        self.redis.process.send(signal.SIGTERM)
        self.redis.process.await_end()
        self.redis.start()

    def do_freeze_redis(self):
        self.redis.freeze()
        time.sleep(OUTAGE_SECONDS)
        self.redis.thaw()

    def do_empty_redis(self):
        assert self.redis.ask("FLUSHALL") == b"+OK"

    def do_restart_postgres(self):
        self.postgres.restart()

    def do_freeze_postgres(self):
        self.postgres.freeze()
        time.sleep(OUTAGE_SECONDS)
        self.postgres.thaw()

    # The provider.

    def fail_provider(self, part):
        self.box.begin_outage(OUTAGE, part)
        time.sleep(OUTAGE_SECONDS)
        self.box.end_outage(OUTAGE)

    # Operators and keys.

    def do_reload(self):
        """The same configuration but for a bound that nobody reaches."""
        edge = self.edge()
        before = edge.metric("tokenroute_generation")
        bound = self.random.randrange(50_000, 100_000)
        edge.write_config(edge.config_text() + f"\n[tiers.again]\nrequests_per_second = {bound}\n")
        os.kill(edge.pid, signal.SIGHUP)
        until(lambda: edge.metric("tokenroute_generation") > before, "the configuration is taken")

    def do_reload_broken(self):
        edge = self.edge()
        before = edge.metric("tokenroute_config_reload_failures_total")
        edge.write_config(edge.config_text() + "\n[listen\n")
        os.kill(edge.pid, signal.SIGHUP)
        until(lambda: edge.metric("tokenroute_config_reload_failures_total") > before, "the configuration is refused")
        edge.write_config()

    def do_revoke_key(self):
        key, identity = self.nodes.first.create_key("leaver")
        statuses = lambda: {edge.ask(chat(f"box/{FREE}"), key=key).status for edge in self.nodes.edges}
        until(lambda: statuses() == {200}, "the key is known")
        books.run(self.nodes.first, "keys", "revoke", identity)
        until(lambda: statuses() == {401}, "it is refused everywhere", REVOKED_SECONDS)

    def do_noisy_key(self):
        addresses = [edge.address for edge in self.nodes.edges]
        requests = [edge.request(chat(f"box/{FREE}"), key=self.noisy) for edge in self.nodes.edges]
        calls = at_once(addresses, [requests[turn % len(requests)] for turn in range(NOISE)])
        statuses = collections.Counter(one.status for one in calls)
        # It is held to its own bounds; an edge that has just come back may have a second's worth anew.
        assert set(statuses) <= {200, 429, 503} and statuses[200] <= NOISE / 2, statuses
