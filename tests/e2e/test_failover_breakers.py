"""Targets that fail are left alone, and asked again soon: breakers, cooldowns, benches, probes, hints between edges."""

import collections
import concurrent.futures
import time

import pytest

from harness import ports, raw
from harness.broken import Hole
from harness.gateway import CREDENTIAL, chat
from harness.provider import Provider
from harness.routes import PATH, is_tagged, play, provider_text, route_text, tagged, target
from harness.scale import scaled
from harness.waiting import until

# What the domain holds, and no configuration: the first cooldown with its jitter, and the time within which
# traffic is back after a recovery.
COOLDOWN_SECONDS, COOLDOWN_MAX_SECONDS, BACK_SECONDS = 5.0, 6.0, 30.0
IN_A_ROW_COLD = 3


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    running = Provider(tmp_path_factory.mktemp("box"), ports.free(), key=CREDENTIAL)
    yield running
    running.process.stop()


def two(name, first="words-9", second="words-9", **settings):
    """A route whose first target is subject to the outage of its name."""
    targets = [target("a", f"{first}+on-{name}", rank=0), target("b", second, rank=1)]
    return route_text(name, targets, **settings)


ROUTES = [
    two("steady"), two("opens"), two("one-probe"), two("visible"), two("leavers", "sse-500x20ms"),
    two("limited", f"words-9+first-1-status-429-retry-ms-{round(1_000 * scaled(20))}"),
    route_text("only", [target("a", "words-9+on-only")]),
    route_text("benched", [target("keyless", "words-9", rank=0), target("b", "words-9", rank=1)]),
]


@pytest.fixture(scope="module")
def edge(tmp_path_factory, box, start_in):
    here = [provider_text(name, box.base_url()) for name in "ab"]
    here.append(f'[providers.keyless]\nbase_url = "{box.base_url()}"\n')
    return start_in(tmp_path_factory.mktemp("edge"), provider=box, routes="\n".join(here + ROUTES))


def state(gateway, name, provider="a"):
    """The state of a route's target."""
    targets = gateway.targets()
    return next(one["state"] for key, one in targets.items()
                if key.startswith(f"{provider}/") and key.endswith(f"+tag-{name}"))


def ask(gateway, name):
    """The provider that has answered a call, or the status of an error."""
    answer = gateway.ask(chat(name))
    return answer.header("x-tokenroute-target").split("/")[0] if answer.status == 200 else answer.status


def asked(box, name, provider_part):
    """When requests of a route reached a target, told by a part of its model; seconds."""
    return [one["at_us"] / 1e6 for one in box.observed() if is_tagged(one, name) and provider_part in one["model"]]


@pytest.mark.timeout(300)
def test_an_outage_is_not_felt_and_traffic_comes_back(edge, box):
    """Down for a minute and up again, under steady traffic: nobody fails, the sick are spared, and are used again."""
    outage, pause = scaled(60), 0.05
    answers = collections.Counter()
    for _ in range(10):
        answers[ask(edge, "steady")] += 1
    assert answers == {"a": 10}

    box.begin_outage("steady", "status-503")
    began = time.monotonic()
    while time.monotonic() - began < outage:
        answers[ask(edge, "steady")] += 1
        time.sleep(pause)
    box.end_outage("steady")
    ended = time.monotonic()
    during = [at for at in asked(box, "steady", "on-steady") if at >= began]

    def back():
        answers[ask(edge, "steady")] += 1
        return answers["a"] > 10

    until(back, "the first target is used again", BACK_SECONDS + COOLDOWN_MAX_SECONDS)
    assert time.monotonic() - ended < BACK_SECONDS
    until(lambda: state(edge, "steady") == "closed", "the target is well again")
    assert set(answers) == {"a", "b"}, answers
    assert [ask(edge, "steady") for _ in range(5)] == ["a"] * 5
    # Five failures open it, or the rate of them; then one probe for each cooldown, which grow.
    assert len(during) <= 20 + outage / COOLDOWN_SECONDS
    late = [at for at in during if at > began + 2]
    assert all(after - before > 0.75 * COOLDOWN_SECONDS for before, after in zip(late, late[1:], strict=False))


def test_three_failures_in_a_row_open_a_cold_target(edge, box):
    box.begin_outage("opens", "status-500")
    tried = [play(edge, box, "opens").tried for _ in range(IN_A_ROW_COLD + 3)]
    assert tried == [[("a", "server_error", 500), ("b", "ok", 200)]] * IN_A_ROW_COLD + [[("b", "ok", 200)]] * 3
    last = play(edge, box, "opens")
    assert [one.why for one in last.tried] == ["fallback"] and last.told is None
    box.end_outage("opens")


def test_one_probe_at_a_time(edge, box):
    """When the cooldown is over, one call finds out; the others do not wait for it."""
    box.begin_outage("one-probe", "status-503")
    for _ in range(IN_A_ROW_COLD):
        assert ask(edge, "one-probe") == "b"
    assert state(edge, "one-probe") == "open"
    before = len(asked(box, "one-probe", "on-one-probe"))
    box.begin_outage("one-probe", "late-head-1500")
    until(lambda: state(edge, "one-probe") == "half_open", "the cooldown is over")
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        answers = collections.Counter(pool.map(lambda _: ask(edge, "one-probe"), range(20)))
    assert len(asked(box, "one-probe", "on-one-probe")) == before + 1
    assert answers == {"a": 1, "b": 19}
    box.end_outage("one-probe")
    assert state(edge, "one-probe") == "closed" and ask(edge, "one-probe") == "a"


def test_a_limit_is_a_cooldown_and_no_failure(edge, box):
    played = play(edge, box, "limited")
    assert played.tried == [("a", "rate_limited", 429), ("b", "ok", 200)]
    until(lambda: state(edge, "limited") == "cooling", "the target cools down", 1)
    assert ask(edge, "limited") == "b"
    assert state(edge, "limited") != "open"
    until(lambda: ask(edge, "limited") == "a", "the target is used again", scaled(20) + 2)
    first, second = asked(box, "limited", "first-1")[:2]
    assert second - first > 0.75 * scaled(20)


def test_a_refused_credential_benches_the_target(edge, box):
    assert play(edge, box, "benched").tried == [("keyless", "provider_auth", 401), ("b", "ok", 200)]
    name = f"keyless/{tagged('words-9', 'benched')}"
    seen = edge.targets()[name]
    assert (seen["state"], seen["last_failure"]) == ("benched", "provider_auth")
    # Longer than after any other first failure.
    assert seen["left_ms"] > COOLDOWN_MAX_SECONDS * 1_000
    assert play(edge, box, "benched").tried == [("b", "ok", 200)]
    assert edge.metric("tokenroute_provider_auth_failures_total") == 1


def test_a_route_with_no_target_left_says_when_to_come_back(edge, box):
    """A breaker refuses quickly, and the provider hears nothing of it."""
    box.begin_outage("only", "status-503")
    while play(edge, box, "only").tried:
        pass
    played = play(edge, box, "only")
    assert (played.answer.status, played.reason, played.seen) == (503, "targets_unavailable", [])
    assert 1 <= int(played.answer.header("retry-after")) <= COOLDOWN_MAX_SECONDS + 1
    box.end_outage("only")
    until(lambda: ask(edge, "only") == "a", "the target is used again", BACK_SECONDS)


def test_every_decision_is_visible(edge, box):
    box.begin_outage("visible", "status-503")
    for _ in range(IN_A_ROW_COLD):
        ask(edge, "visible")
    name = f"a/{tagged('words-9+on-visible', 'visible')}"
    seen = edge.targets()[name]
    assert (seen["provider"], seen["state"], seen["last_failure"]) == ("a", "open", "server_error")
    assert 0 < seen["left_ms"] <= COOLDOWN_MAX_SECONDS * 1_000
    assert seen["failures"] == IN_A_ROW_COLD and seen["outstanding"] == 0
    assert edge.metric("tokenroute_target_state", target=name) > 0
    explained = edge.command("explain", "--model", "visible")
    assert explained.returncode == 0, explained.stderr
    assert name in explained.stdout and "open" in explained.stdout
    # The one that is tried first now is told before the others.
    assert edge.command("explain", "--model", "no-such").returncode != 0
    box.end_outage("visible")


def test_callers_who_leave_count_against_nobody(edge, box):
    for _ in range(8):
        with raw.Connection(edge.address) as connection:
            connection.send(edge.request(chat("leavers", stream=True)))
            assert connection.read_head().status == 200
            connection.read_chunk()
    until(lambda: edge.metric("tokenroute_calls_in_flight") == 0, "no call is in flight")
    assert state(edge, "leavers") == "closed"
    name = f"a/{tagged('sse-500x20ms+on-leavers', 'leavers')}"
    assert edge.targets()[name]["failures"] == 0


@pytest.mark.parametrize("kind", ["completion", "models"])
def test_probes_find_out_without_callers(start, folder, kind):
    """Nobody calls; the provider dies and comes back."""
    port = ports.free()
    own = Provider(folder, port, name="own", key=CREDENTIAL)
    gateway = start(provider=own, routes="\n".join([
        provider_text("a", own.base_url(), probe={"every_seconds": scaled(2), "kind": kind}),
        route_text("probed", [target("a", "words-9")]),
    ]))
    until(lambda: gateway.targets(), "there are targets")
    if kind == "completion":
        seen = until(lambda: [one for one in own.observed() if is_tagged(one, "probed")], "a probe arrives")[0]
        assert seen["path"].split("?")[0] == PATH and seen["body_bytes"] < 1_000
        until(lambda: any(one["tokens_sent"] == 1 for one in own.observed()), "one token is asked for")
    own.process.stop()
    until(lambda: state(gateway, "probed") == "open", "the target is known to be off")
    assert gateway.ask(chat("probed")).status == 503
    own = Provider(folder, port, name="own", key=CREDENTIAL)
    try:
        until(lambda: state(gateway, "probed") == "closed", "the target is known to be well", BACK_SECONDS)
        assert gateway.ask(chat("probed")).status == 200
        assert not gateway.records() or all(one["model"] == "probed" for one in gateway.records())
    finally:
        own.process.stop()


def test_edges_tell_each_other(start, redis, box):
    """What one edge found out is a hint to the other: it prefers another target, and never goes without one."""
    routes = "\n".join([
        provider_text("a", box.base_url()), provider_text("b", box.base_url()), two("hinted"),
        route_text("alone", [target("a", "words-9+on-hinted")]),
    ])
    sections = f'[redis]\nurl = "{redis.url}"'
    first = start("first", provider=box, routes=routes, sections=sections)
    second = start("second", provider=box, routes=routes, sections=sections)
    box.begin_outage("hinted", "status-503")
    for _ in range(IN_A_ROW_COLD):
        assert ask(first, "hinted") == "b"
        ask(first, "alone")
    name = f"a/{tagged('words-9+on-hinted', 'hinted')}"
    until(lambda: second.targets()[name]["hinted"], "the other edge is told")
    before = len(asked(box, "hinted", "on-hinted"))
    assert ask(second, "hinted") == "b"
    assert len(asked(box, "hinted", "on-hinted")) == before
    # A hint is no veto: with nothing else there, the target is asked, and is well again.
    box.end_outage("hinted")
    assert ask(second, "alone") == "a"
    # An edge that starts later learns it too, and one without Redis goes on.
    third = start("third", provider=box, routes=routes, sections=sections)
    assert ask(third, "hinted") in ("a", "b")
    redis.kill()
    assert ask(second, "hinted") in ("a", "b") and ask(third, "alone") == "a"
    redis.start()


def test_a_black_hole_costs_its_deadline_a_few_times_only(start, box):
    """F2: once the breaker is open, nothing is added."""
    hole = Hole()
    gateway = start(provider=box, routes="\n".join([
        provider_text("hole", hole.base_url, deadlines={"connect_seconds": scaled(3)}), provider_text("b", box.base_url()),
        route_text("hole", [target("hole", "words-9", rank=0), target("b", "words-9", rank=1)]),
    ]))
    played = [play(gateway, box, "hole") for _ in range(IN_A_ROW_COLD + 3)]
    assert [len(one.tried) for one in played] == [2] * IN_A_ROW_COLD + [1] * 3
    assert all(0.75 * scaled(3) < one.seconds for one in played[:IN_A_ROW_COLD])
    hole.close()
