"""Who leaves a stream pays for the prompt and for what was received, wherever in the stream that is."""

import concurrent.futures
import json

import h2.events
import pytest

from harness import books, http2, raw
from harness.edge import priced
from harness.gateway import INPUT_PRICE, OUTPUT_PRICE, chat
from harness.waiting import until

EVENTS = 20
# Apart far enough that it is known how many have been received, on a busy machine too.
PACE_MS = 60
# One token each to any tokenizer of today, so that our own count is the provider's.
TEXT = " ".join(["the"] * EVENTS)
TOLD, UNTOLD = f"echo+pace-{PACE_MS}+usage-every-chunk+tag-told", f"echo+pace-{PACE_MS}+tag-untold"
MODELS = "".join(priced(model, input=INPUT_PRICE, output=OUTPUT_PRICE) for model in (TOLD, UNTOLD))
# What our own count of a prompt may be beside the provider's: names of roles and separators count too.
PROMPT_TOKENS_OFF = 8
# At once: the pace is what takes time, not the machine.
CALLERS = 10


@pytest.fixture(scope="module")
def nodes(tmp_path_factory, provider):
    from harness.edge import Fleet

    nodes = Fleet(tmp_path_factory.mktemp("disconnect"), provider, models=MODELS, listen="h2c = true").start()
    yield nodes
    nodes.stop()


def speaking(text):
    """How many events say something."""
    return text.count(b'"content":"') - text.count(b'"content":""')


def reset_after(edge, key, model, events):
    """The same as below on a stream of HTTP/2, which is reset. Its connection stays."""
    with http2.Connection(edge.address) as connection:
        body = json.dumps(chat(f"box/{model}", TEXT, stream=True)).encode()
        fields = [("authorization", f"Bearer {key}"), ("content-type", "application/json")]
        stream = connection.request("/v1/chat/completions", *fields, body=body)
        head = dict(connection.await_event(h2.events.ResponseReceived, stream).headers)
        received = 0
        while received < events:
            connection.read_more()
            received = speaking(b"".join(one.data for one in connection.events if isinstance(one, h2.events.DataReceived)))
        connection.reset(stream)
        call = head[b"x-request-id"].decode()
        assert edge.record(call)
        return call, received


def leave_after(edge, key, model, events, how):
    """Leaves when so many events that say something have come, and tells the call and how many those were."""
    if how == "reset":
        return reset_after(edge, key, model, events)
    connection = raw.Connection(edge.address)
    connection.send(edge.request(chat(f"box/{model}", TEXT, stream=True), key=key))
    head = connection.read_head()
    assert head.status == 200
    received, text = 0, b""
    while received < events:
        text += connection.read_chunk()
        received = speaking(text)
    connection.reset() if how == "rst" else connection.close()
    return head.header("x-request-id"), received


@pytest.mark.parametrize("how", ["fin", "rst", "reset"])
@pytest.mark.parametrize("model", [TOLD, UNTOLD])
def test_leaving_at_every_event_costs_the_prompt_and_what_came(nodes, model, how):
    edge = nodes.first
    name = f"leaver-{model.rpartition('-')[2]}-{how}"
    books.open_account(edge, name, "5.00")
    key, _ = books.open_key(edge, name)

    def leave(events):
        return events, *leave_after(edge, key, model, events, how)

    with concurrent.futures.ThreadPoolExecutor(CALLERS) as callers:
        left = list(callers.map(leave, range(EVENTS)))
    charges = {}
    for events, call, received in left:
        record = edge.record(call)
        assert record["outcome"] == "client_gone", record
        assert record["charge"] == record["cost_nano_usd"], record
        output = (record["charge"] - record["input"] * books.INPUT) / books.OUTPUT
        assert abs(output - received) <= 1, (events, received, record)
        told = record["usage_source"] == "provider"
        assert EVENTS - (0 if told else PROMPT_TOKENS_OFF) <= record["input"] <= EVENTS + (0 if told else PROMPT_TOKENS_OFF), record
        charges[call] = record["charge"]
    # And that is what is gone from the account.
    credit = 5 * books.NANO_USD
    until(lambda: books.balance(nodes.books, name) == credit - sum(charges.values()), "the charges are posted")


def test_leaving_before_anything_was_said_is_free(nodes):
    """No output, no charge: the provider had not begun."""
    edge = nodes.first
    books.open_account(edge, "hasty", "5.00")
    key, _ = books.open_key(edge, "hasty")
    with raw.Connection(edge.address) as connection:
        connection.send(edge.request(chat(f"box/{TOLD}", TEXT, stream=True), key=key))
    until(lambda: edge.metric("tokenroute_calls_in_flight") == 0, "it is over")
    account = books.account_id(nodes.books, "hasty")
    rows = until(lambda: nodes.books.rows(f"SELECT output, charge FROM records WHERE account = '{account}'"), "its record")
    # It may have got as far as the first pieces before anybody noticed.
    assert rows[0]["charge"] <= EVENTS * books.INPUT + 2 * books.OUTPUT
