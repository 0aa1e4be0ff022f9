"""Which of several good targets is taken: by weight, by load, by the prompt's beginning; hedging; budgets of time."""

import collections
import concurrent.futures
import json

import pytest

from harness import ports
from harness.gateway import CREDENTIAL, chat
from harness.provider import Provider
from harness.routes import is_tagged, play, price_text, provider_text, route_text, tagged, target
from harness.scale import millis, scaled
from harness.waiting import until

# Enough for the bounds below to be missed less than once in ten thousand runs.
CALLS = 240
AT_ONCE = 16
# What the gateway must have seen of a target before it knows when one is late, and some more.
LEARN = 150
IN_NANO, OUT_NANO = 1_000, 4_000


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    running = Provider(tmp_path_factory.mktemp("box"), ports.free(), key=CREDENTIAL)
    yield running
    running.process.stop()


def pair(name, first, second, rank=1, **settings):
    return route_text(name, [target("a", first, rank=0), target("b", second, rank=rank)], **settings)


HEDGE = {"quantile": 0.95, "share": 0.5, "wait_seconds_min": scaled(1)}
ROUTES = [
    route_text("weights", [target("a", "words-1", weight=3), target("b", "words-1", weight=1)]),
    route_text("none", [target("a", "words-1", weight=1), target("b", "words-1", weight=0)]),
    route_text("none-else", [target("a", "status-503", weight=1), target("b", "words-1", weight=0)]),
    route_text("ranks", [target("a", "words-1", rank=1), target("b", "words-1", rank=0)]),
    route_text("loads", [target("a", f"words-1+late-head-{millis(3)}"), target("b", "words-1")], balance="least_loaded"),
    route_text("prefix", [target(one, "words-1+on-prefix") for one in "abcd"], affinity="prefix"),
    route_text("hot", [target(one, "words-1+late-head-100") for one in "abcd"], affinity="prefix"),
    pair("hedged", "words-5+on-hedged", "words-5", hedge=HEDGE),
    pair("hedged-both", "words-5+on-hedged-both", f"words-5+late-first-token-{millis(30)}", hedge=HEDGE),
    pair("hedged-rarely", "words-5+on-hedged-rarely", "words-5", hedge=HEDGE | {"share": 0.02}),
    pair("late", f"status-503+late-head-{millis(12)}", "words-9", attempts_seconds=scaled(10)),
    pair("total", f"sse-100x{millis(1)}ms", "words-100", deadlines={"total_seconds": scaled(20)}),
]


@pytest.fixture(scope="module")
def edge(tmp_path_factory, box, start_in):
    here = [provider_text(name, box.base_url()) for name in "abcd"]
    here += [price_text("a", tagged("words-5+on-hedged", "hedged"), 1, 4), price_text("b", tagged("words-5", "hedged"), 1, 4)]
    return start_in(tmp_path_factory.mktemp("edge"), provider=box, routes="\n".join(here + ROUTES))


def who(gateway, name, text="Hello there", **more):
    answer = gateway.ask(chat(name, text, **more))
    assert answer.status == 200, answer.body
    return answer.header("x-tokenroute-target").split("/")[0]


def many(gateway, name, texts, **more):
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda text: who(gateway, name, text, **more), texts))


def test_calls_are_shared_by_weight(edge):
    taken = collections.Counter(many(edge, "weights", ["Hello"] * CALLS))
    assert 0.62 < taken["a"] / CALLS < 0.88


def test_weight_zero_takes_none_but_in_need(edge):
    assert set(many(edge, "none", ["Hello"] * 40)) == {"a"}
    assert who(edge, "none-else") == "b"


def test_the_lowest_rank_comes_first(edge):
    assert set(many(edge, "ranks", ["Hello"] * 40)) == {"b"}


def test_the_less_loaded_of_two_takes_more(edge):
    """One is slow; calls that wait there keep others away."""
    taken = collections.Counter(many(edge, "loads", ["Hello"] * CALLS))
    assert taken["b"] > 2 * taken["a"], taken
    assert taken["a"] > 0


def prompts(count):
    """Prompts with long beginnings of their own, as conversations have them."""
    return [f"Document number {number}. " * 200 for number in range(count)]


def test_a_conversation_stays_where_its_prefix_is_cached(edge, box):
    homes = {}
    for prompt in prompts(12):
        taken = {who(edge, "prefix", prompt + end) for end in ("", " And then?", " Why is that so?")}
        assert len(taken) == 1, prompt[:20]
        homes[prompt] = taken.pop()
    assert len(set(homes.values())) >= 3
    played = play(edge, box, "prefix", prompts(1)[0])
    assert [one.why for one in played.tried] == ["affinity"]

    # A preference, no veto: with its home away it is answered elsewhere, and back there afterwards.
    home = homes[prompts(1)[0]]
    box.begin_outage("prefix", "status-503")
    failed = play(edge, box, "prefix", prompts(1)[0])
    box.end_outage("prefix")
    assert failed.tried[0] == (home, "server_error", 503) and len({one.provider for one in failed.tried}) > 1
    assert who(edge, "prefix", prompts(1)[0]) == home


def test_a_hot_prefix_overflows(edge):
    """Its home takes no more than a little over its share."""
    taken = collections.Counter(many(edge, "hot", [prompts(1)[0]] * 96))
    assert len(taken) >= 3 and max(taken.values()) < 64, taken


def learn(gateway, name):
    """Makes the gateway know how soon the first target speaks."""
    assert set(many(gateway, name, ["Hello there"] * LEARN, stream=True)) == {"a"}


def test_a_late_first_token_is_hedged(edge, box):
    """The first to speak wins; the other is let go and is not the caller's to pay for."""
    learn(edge, "hedged")
    assert not [one for one in box.observed() if is_tagged(one, "hedged") and "on-" not in one["model"]]
    box.begin_outage("hedged", f"late-first-token-{millis(50)}")
    played = play(edge, box, "hedged", stream=True)
    box.end_outage("hedged")
    assert (played.text, played.ends_well) == ("word word1 word2 word3 word4", True)
    assert played.answer.header("x-tokenroute-target").startswith("b/")
    assert {one.why for one in played.tried} == {"chosen", "hedge"}
    assert played.gaps()[0] > 0.75 * HEDGE["wait_seconds_min"]
    loser = box.await_observed(id=played.seen[0]["id"], end="client_closed")
    assert loser["tokens_sent"] == 0
    record, legs = played.record, json.loads(played.record["attempts"])
    assert (record["outcome"], record["input"], record["output"]) == ("answered", 2, 5)
    assert record["cost_nano_usd"] == 2 * IN_NANO + 5 * OUT_NANO
    # The loser has read the prompt too.
    assert record["house_cost"] == sum(leg["house_cost"] for leg in legs) > 0


def test_the_first_target_may_still_win(edge, box):
    learn(edge, "hedged-both")
    box.begin_outage("hedged-both", f"late-first-token-{millis(15)}")
    played = play(edge, box, "hedged-both", stream=True)
    box.end_outage("hedged-both")
    assert len(played.seen) == 2 and played.ends_well
    assert played.answer.header("x-tokenroute-target").startswith("a/")
    assert box.await_observed(id=played.seen[1]["id"], end="client_closed")


def test_hedges_are_few(edge, box):
    learn(edge, "hedged-rarely")
    box.begin_outage("hedged-rarely", f"late-first-token-{millis(3)}")
    many(edge, "hedged-rarely", ["Hello there"] * 100, stream=True)
    box.end_outage("hedged-rarely")
    until(lambda: edge.metric("tokenroute_calls_in_flight") == 0, "no call is in flight")
    seen = [one for one in box.observed() if is_tagged(one, "hedged-rarely")]
    extra = len(seen) - LEARN - 100
    assert 0 < extra <= 0.02 * (LEARN + 100) + 1


def test_no_attempt_begins_when_its_time_is_over(edge, box):
    played = play(edge, box, "late")
    assert played.tried == [("a", "server_error", 503)] and played.answer.status == 503


def test_the_whole_call_has_a_deadline(edge, box):
    """It ends in an error and is not begun anew."""
    played = play(edge, box, "total", stream=True)
    assert played.error and not played.ends_well
    assert 0.75 * scaled(20) < played.seconds
    assert played.text.startswith("word word1 ")
    assert [one.provider for one in played.tried] == ["a"]
    assert box.await_observed(id=played.seen[0]["id"], end="client_closed")["tokens_sent"] < 60
