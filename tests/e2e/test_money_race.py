"""Many calls at once on money for few: exactly so many are answered, and nothing is left or missing."""

import collections
import concurrent.futures
import os

import pytest

from harness import books, calls
from harness.edge import priced
from harness.gateway import chat
from harness.waiting import until

CALLS, PAID = 200, 10
ACCOUNTS = int(os.environ.get("TOKENROUTE_RACES", "100"))
# Priced by the request alone, so that a hold is what it will cost, to the nano.
MODEL = "echo+tag-race"
MODELS = priced(MODEL, input="0", output="0", request="0.10")
FUNDS, PRICE = "1.00", 100_000_000
# Commands at once that make accounts and keys.
CLERKS = 3


def open_accounts(edge, names):
    """The key of each."""

    def one(name):
        books.open_account(edge, name, FUNDS)
        return name, books.open_key(edge, name)[0]

    with concurrent.futures.ThreadPoolExecutor(CLERKS) as clerks:
        return list(clerks.map(one, names))


def race(fleet, key):
    """All calls of one account at once, over all edges: how many came to what."""
    request = fleet.first.request(chat(f"box/{MODEL}"), key=key)
    answers = calls.at_once([edge.address for edge in fleet.edges], [request] * CALLS)
    for one in answers:
        assert one.complete, one
        if one.status == 402:
            # The official SDKs must not try again what cannot succeed.
            assert one.fields.get("x-should-retry") == "false", one
    return collections.Counter((one.status, one.reason) for one in answers)


@pytest.mark.timeout(280)
@pytest.mark.parametrize("form", ["sqlite", "redis_and_postgres"])
def test_funds_for_ten_answer_ten_of_two_hundred(fleet, request, form):
    parts = {} if form == "sqlite" else {
        "edges": 3, "postgres": request.getfixturevalue("postgres"), "redis": request.getfixturevalue("durable_redis")}
    nodes = fleet(models=MODELS, **parts)
    accounts = open_accounts(nodes.first, [f"racer-{number}" for number in range(ACCOUNTS)])
    for name, key in accounts:
        counts = race(nodes, key)
        statuses = collections.Counter()
        for (status, _), count in counts.items():
            statuses[status] += count
        assert statuses == {200: PAID, 402: CALLS - PAID}, (name, counts)
    # All of it is posted: what was granted is what was charged, to the nano.
    charged = "SELECT count(*) AS calls, coalesce(sum(charge), 0) AS charge FROM records WHERE charge > 0"
    until(lambda: int(nodes.books.rows(charged)[0]["calls"]) == PAID * ACCOUNTS, "all calls are posted", 60)
    assert int(nodes.books.rows(charged)[0]["charge"]) == PAID * ACCOUNTS * PRICE
    for name, _ in accounts:
        until(lambda name=name: books.balance(nodes.books, name) == 0, f"{name} has nothing left")
    until(lambda: not books.reconcile(nodes.control or nodes.first), "reconciling finds nothing")


def test_what_is_added_is_there_at_once(fleet):
    """A refusal is not remembered: money that comes is spent."""
    nodes = fleet(models=MODELS)
    ((name, key),) = open_accounts(nodes.first, ["late"])
    assert {status for status, _ in race(nodes, key)} == {200, 402}
    answer = nodes.first.ask(chat(f"box/{MODEL}"), key=key)
    assert (answer.status, answer.header("x-should-retry")) == (402, "false"), answer.body
    added = ("credit", "add", "--account", name, "--amount", "0.20", "--id", "the-same")
    # Told twice, as an operator does who has seen no answer: added once.
    for _ in range(2):
        books.run(nodes.first, *added)
    assert until(lambda: nodes.first.ask(chat(f"box/{MODEL}"), key=key).status == 200, "it is answered", 2)
    assert nodes.first.ask(chat(f"box/{MODEL}"), key=key).status == 200
    assert nodes.first.ask(chat(f"box/{MODEL}"), key=key).status == 402


def test_a_model_without_a_price_is_not_given_away(fleet):
    nodes = fleet(models=MODELS)
    ((_, key),) = open_accounts(nodes.first, ["asker"])
    answer = nodes.first.ask(chat("box/echo+tag-unpriced"), key=key)
    assert (answer.status, books.reason(answer)) == (400, "model_not_priced")
    # Who does not pay by money may ask for it.
    assert nodes.first.ask(chat("box/echo+tag-unpriced")).status == 200
