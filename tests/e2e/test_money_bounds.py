"""A call is never worth more than what is held for it: caps that are injected, refusals that say what can be afforded, ceilings
that end a runaway answer."""

import json

import pytest

from harness import books
from harness.edge import priced
from harness.gateway import INPUT_PRICE, OUTPUT_PRICE, chat
from harness.routes import chunks_of, payloads_of
from harness.waiting import until

# The second does not care what it was asked for; the third says one token a word.
MODEL, RUNAWAY, FAILING, CUT = "echo+tag-bound", "load-sse-3000-2", "status-500+tag-bound", "words-40+cut-after-9+tag-bound"
MODELS = "".join(priced(one, input=INPUT_PRICE, output=OUTPUT_PRICE) for one in (MODEL, RUNAWAY, FAILING, CUT))
DEFAULT_CAP, LEAST_CAP = 4096, 256
CREDIT = "1.00"


def dollars(tokens):
    """What so many output tokens cost, as a decimal string of USD."""
    return f"{tokens * books.OUTPUT / books.NANO_USD:.9f}"


@pytest.fixture
def nodes(fleet, truth):
    box, _ = truth
    return fleet(provider=box, models=MODELS, sections="\n[routing]\nattempts_max = 1\n")


@pytest.fixture
def open_with(nodes):
    """A key of a new account with so much in it."""

    def one(name, usd, *terms):
        books.open_account(nodes.first, name, usd)
        return books.open_key(nodes.first, name, *terms)[0]

    return one


def cap_seen(nodes, model=MODEL):
    """The cap on output that the provider was last sent."""
    provider = nodes.first.provider
    body = json.loads(provider.body(provider.observed(model=model)[-1]))
    return body.get("max_completion_tokens", body.get("max_tokens"))


def test_a_cap_is_injected_where_there_is_none(nodes, open_with):
    key = open_with("rich", "100.00")
    assert nodes.first.ask(chat(f"box/{MODEL}"), key=key).status == 200
    assert cap_seen(nodes) == DEFAULT_CAP
    # The client's own stays, whichever it uses.
    for name in ("max_tokens", "max_completion_tokens"):
        assert nodes.first.ask(chat(f"box/{MODEL}", **{name: 77}), key=key).status == 200
        assert cap_seen(nodes) == 77


def test_a_text_completion_has_sixteen_tokens_where_it_names_none(nodes, open_with):
    key = open_with("rich", "100.00")
    body = {"model": f"box/{MODEL}", "prompt": " ".join(["the"] * 40)}
    answer = nodes.first.ask(body, path="/v1/completions", key=key)
    assert answer.status == 200 and cap_seen(nodes) == 16, answer.body
    assert json.loads(answer.body)["usage"]["completion_tokens"] <= 16
    assert nodes.first.ask(body | {"max_tokens": 77}, path="/v1/completions", key=key).status == 200
    assert cap_seen(nodes) == 77


def test_with_little_credit_the_cap_is_what_can_be_afforded(nodes, open_with):
    key = open_with("thrifty", dollars(1_000))
    assert nodes.first.ask(chat(f"box/{MODEL}"), key=key).status == 200
    assert LEAST_CAP <= cap_seen(nodes) < 1_000


def test_a_refusal_says_what_can_be_afforded(nodes, open_with):
    key = open_with("poor", dollars(500))
    answer = nodes.first.ask(chat(f"box/{MODEL}", max_tokens=100_000), key=key)
    assert (answer.status, books.reason(answer)) == (402, "insufficient_quota"), answer.body
    assert answer.header("x-should-retry") == "false"
    afford = json.loads(answer.body)["error"]["metadata"]["can_afford_tokens"]
    assert 0 < afford < 500
    # And that is true: so many, and not one more.
    assert nodes.first.ask(chat(f"box/{MODEL}", max_tokens=afford + 1), key=key).status == 402
    assert nodes.first.ask(chat(f"box/{MODEL}", max_tokens=afford), key=key).status == 200


def test_a_runaway_answer_ends_at_its_keys_ceiling(nodes, open_with):
    ceiling = 600
    key = open_with("runaway", "100.00", "--ceiling", dollars(ceiling))
    answer = nodes.first.ask(chat(f"box/{RUNAWAY}", stream=True), key=key)
    assert answer.status == 200 and "[DONE]" not in payloads_of(answer.body)
    assert chunks_of(answer.body)[-1]["error"]["metadata"]["reason"] == "key_ceiling_reached", answer.body[-400:]
    record = nodes.first.record(answer.header("x-request-id"))
    assert LEAST_CAP * books.OUTPUT <= record["charge"] <= ceiling * books.OUTPUT
    # What is left does not do for another.
    answer = nodes.first.ask(chat(f"box/{MODEL}", max_tokens=ceiling), key=key)
    assert (answer.status, books.reason(answer)) == (402, "key_ceiling"), answer.body


def test_a_ceiling_holds_for_who_does_not_pay(nodes):
    key, identity = nodes.first.create_key("capped", "--ceiling", dollars(300) + "/day")
    statuses = [nodes.first.ask(chat(f"box/{MODEL}", " ".join(["the"] * 50), max_tokens=60), key=key).status for _ in range(12)]
    assert statuses[0] == 200 and statuses[-1] == 402 and set(statuses) == {200, 402}, statuses
    spent = f"SELECT coalesce(sum(cost_nano_usd), 0) FROM records WHERE key_id = '{identity}'"
    until(lambda: int(nodes.books.value(spent)) > 0, "its calls are recorded")
    assert int(nodes.books.value(spent)) <= 300 * books.OUTPUT


def test_what_fails_is_free_and_what_is_cut_costs_what_came(nodes, open_with):
    key = open_with("unlucky", CREDIT)
    failed = nodes.first.ask(chat(f"box/{FAILING}"), key=key)
    assert failed.status == 500
    assert nodes.first.record(failed.header("x-request-id"))["charge"] == 0
    cut = nodes.first.ask(chat(f"box/{CUT}", stream=True), key=key)
    record = nodes.first.record(cut.header("x-request-id"))
    assert record["outcome"] == "cut" and not cut.complete
    # The role is the first of nine events; "word7" may be two tokens by our own count.
    assert 8 * books.OUTPUT <= record["charge"] <= 16 * books.OUTPUT + 20 * books.INPUT
    left = 1 * books.NANO_USD - record["charge"]
    until(lambda: books.balance(nodes.books, "unlucky") == left, "nothing else is gone")


def test_usage_is_what_the_records_say(nodes, open_with):
    key = open_with("reader", CREDIT)
    for _ in range(5):
        assert nodes.first.ask(chat(f"box/{MODEL}"), key=key).status == 200
    account = books.account_id(nodes.books, "reader")
    totals = f"SELECT count(*) AS calls, coalesce(sum(charge), 0) AS charge FROM records WHERE account = '{account}'"
    row = until(lambda: (one := nodes.books.rows(totals)[0])["calls"] == 5 and one, "five records")
    assert row["charge"] == 5 * 2 * (books.INPUT + books.OUTPUT)
    shown = until(lambda: books.run(nodes.first, "usage", "--days", "1", "--account", "reader"), "usage")
    assert "reader" in shown and "5" in shown.split()
    assert "charge" in books.run(nodes.first, "ledger", "--account", "reader")
    assert not books.reconcile(nodes.first)


def test_what_stands_behind_a_long_prompt_is_held_for_too(nodes, open_with):
    """`n` multiplies what a call can come to, also where it comes after more than is read ahead of other calls."""
    prompt = "word " * 300_000
    # Enough for the prompt, by its bytes even, and for one answer; not for a hundred.
    key = open_with("long-winded", dollars(len(prompt) + 300_000))
    body = chat(f"box/{MODEL}", text=prompt, max_tokens=100_000, n=100)
    answer = nodes.first.ask(body, key=key)
    assert answer.status == 402, answer.body
    assert nodes.first.ask(chat(f"box/{MODEL}", max_tokens=10, service_tier="ultrafast"), key=key).status == 400
