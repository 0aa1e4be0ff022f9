"""What keys and accounts may do is changed while the gateway runs, and every edge knows within a second."""

import time

import pytest

from harness import books
from harness.edge import priced
from harness.gateway import INPUT_PRICE, OUTPUT_PRICE, chat
from harness.waiting import until

MODEL, OTHER = "echo+tag-terms", "echo+tag-other"
MODELS = priced(MODEL, input=INPUT_PRICE, output=OUTPUT_PRICE) + priced(OTHER, input=INPUT_PRICE, output=OUTPUT_PRICE)
TIERS = """
[tiers.narrow]
requests_per_minute = 1
"""
# From the command's end until it holds; and what a busy machine may take longer.
LIVE_SECONDS, GRACE_SECONDS = 1.0, 0.5


@pytest.fixture(params=["one node", "two edges"])
def nodes(request, fleet, truth):
    box, _ = truth
    if request.param == "one node":
        return fleet(provider=box, models=MODELS, sections=TIERS)
    postgres, redis = request.getfixturevalue("postgres"), request.getfixturevalue("redis")
    return fleet(provider=box, edges=2, postgres=postgres, redis=redis, models=MODELS, sections=TIERS)


def statuses(nodes, key, model=MODEL):
    return {edge.ask(chat(f"box/{model}"), key=key).status for edge in nodes.edges}


def are_narrow(nodes, key):
    """Whether each edge goes by the tier. What is left of it is not the question."""
    limits = [edge.ask(chat(f"box/{MODEL}"), key=key).header("x-ratelimit-limit-requests") for edge in nodes.edges]
    return {limit == "1" for limit in limits}


def await_everywhere(look, wanted):
    """Every edge is so, soon, and stays so: an old value that somebody finds in Redis is not believed."""
    said_at = time.monotonic()
    until(lambda: look() == {wanted}, f"it is {wanted}", LIVE_SECONDS + GRACE_SECONDS)
    while time.monotonic() < said_at + LIVE_SECONDS + GRACE_SECONDS:
        assert look() == {wanted}
        time.sleep(0.1)


def test_a_key_is_changed_while_it_is_used(nodes):
    books.open_account(nodes.first, "payer", "10.00")
    key, identity = books.open_key(nodes.first, "payer")
    change = lambda *words: books.run(nodes.first, "keys", "set", identity, *words)
    until(lambda: statuses(nodes, key) == {200}, "the key is known")
    change("--model", f"box/{OTHER}")
    await_everywhere(lambda: statuses(nodes, key), 403)
    assert statuses(nodes, key, OTHER) == {200}
    change("--clear", "models", "--provider", "box")
    await_everywhere(lambda: statuses(nodes, key), 200)
    # Spent already: a ceiling of nothing leaves nothing.
    change("--ceiling", "0/day")
    await_everywhere(lambda: statuses(nodes, key), 402)
    change("--ceiling", "5.00/day")
    await_everywhere(lambda: statuses(nodes, key), 200)
    change("--tier", "narrow")
    await_everywhere(lambda: are_narrow(nodes, key), True)
    change("--clear", "tier", "--expires-in-days", "1")
    await_everywhere(lambda: are_narrow(nodes, key), False)
    refused = nodes.first.command("keys", "set", identity, "--provider", "bxo")
    assert refused.returncode == 1 and "the configuration has box" in refused.stderr


def test_an_account_is_changed_while_its_keys_are_used(nodes):
    books.open_account(nodes.first, "payer", "10.00")
    keys = [books.open_key(nodes.first, "payer", name=name)[0] for name in ("one", "two")]
    for key in keys:
        until(lambda key=key: statuses(nodes, key) == {200}, "the key is known")
    books.run(nodes.first, "accounts", "set", "payer", "--tier", "narrow")
    narrow = lambda: {is_narrow for key in keys for is_narrow in are_narrow(nodes, key)}
    await_everywhere(narrow, True)
    books.run(nodes.first, "accounts", "set", "payer", "--clear", "tier")
    await_everywhere(narrow, False)
