"""Every call leaves exactly one record, however it ends, and nothing secret is in it."""

import itertools
import json
import re
import signal
import subprocess
import threading
import time

import pytest

from harness import programs, raw
from harness.gateway import CREDENTIAL, INPUT_PRICE, KEY, OUTPUT_PRICE, chat
from harness.provider import count_tokens
from harness.waiting import until

PATH = "/v1/chat/completions"
# Generous: the gateway lets go of the provider within 100 ms on a machine that has nothing else to do.
LETS_GO_SECONDS = 2.0
NANO_USD_PER_TOKEN = 1_000
NUMBERS = itertools.count()


def own(model):
    """The same model at a target of its own, which is not off because of other calls' failures."""
    return f"{model}+tag-{next(NUMBERS)}"


@pytest.fixture
def gateway(start, provider):
    return start(routes=f"""
[providers.drained]
base_url = "{provider.base_url()}"
credential_file = "credential"
on_disconnect = "drain"
[[routes]]
model = "drained/*"
targets = [{{ provider = "drained", model = "*" }}]
""")


def open_stream(gateway, model, **more):
    """A connection on which the first piece of a stream has arrived."""
    connection = raw.Connection(gateway.address)
    connection.send(gateway.request(chat(model, stream=True, **more)))
    head = connection.read_head()
    assert head.status == 200
    connection.read_chunk()
    return connection, head.header("x-request-id")


# Ways for a call to end: what the caller does, and the record's outcome, status and error.


def answered(gateway):
    assert gateway.ask(chat("box/echo")).status == 200


def streamed(gateway):
    assert gateway.ask(chat("box/words-5", stream=True)).complete


def listed(gateway):
    assert raw.exchange(gateway.address, gateway.head("/v1/models", method="GET")).status == 200


def without_a_key(gateway):
    assert raw.exchange(gateway.address, raw.head("POST", PATH, ("content-length", 5)) + b"hello").status == 401


def with_an_unknown_key(gateway):
    assert gateway.ask(chat("box/echo"), key="sk-tr-" + "c" * 49).status == 401


def to_an_unknown_model(gateway):
    assert gateway.ask(chat("acme/none")).status == 404


def to_an_unknown_path(gateway):
    assert gateway.ask(b"{}", path="/v1/nothing").status == 404


def with_a_broken_body(gateway):
    assert gateway.ask(b"{").status == 400


def with_a_long_body(gateway):
    assert raw.exchange(gateway.address, gateway.head(PATH, ("content-length", 40 << 20))).status == 413


def failing(gateway):
    assert gateway.ask(chat(own("box/status-500"))).status == 500


def unreachable(gateway):
    assert gateway.ask(chat(own("box/reset-before-head"))).status == 502


def cut(gateway):
    assert not gateway.ask(chat(own("box/words-9+cut-after-4"), stream=True)).complete


def left_in_the_body(gateway):
    with raw.Connection(gateway.address) as connection:
        connection.send(gateway.head(PATH, ("content-length", 1_000)) + b'{"model"')


def left_before_the_head(gateway):
    with raw.Connection(gateway.address) as connection:
        connection.send(gateway.request(chat("box/silence")))
        gateway.provider.await_observed(model="silence", end="silent")


def left_by_reset(gateway):
    connection, _ = open_stream(gateway, "box/sse-500x20ms")
    connection.reset()


def left_in_mid_stream(gateway):
    connection, _ = open_stream(gateway, "box/sse-500x20ms")
    connection.close()


ENDS = [
    (answered, "answered", 200, None), (streamed, "answered", 200, None), (listed, "answered", 200, None),
    (without_a_key, "refused", 401, "key_missing"), (with_an_unknown_key, "refused", 401, "key_unknown"),
    (to_an_unknown_model, "refused", 404, "model_not_found"), (to_an_unknown_path, "refused", 404, "path_not_found"),
    (with_a_broken_body, "refused", 400, "invalid_json"), (with_a_long_body, "refused", 413, "body_too_large"),
    (failing, "failed", 500, "upstream_error"), (unreachable, "failed", 502, "upstream_reset"),
    (cut, "cut", 200, "upstream_cut"), (left_in_the_body, "client_gone", 0, "client_gone"),
    (left_before_the_head, "client_gone", 0, "client_gone"), (left_by_reset, "client_gone", 200, "client_gone"),
    (left_in_mid_stream, "client_gone", 200, "client_gone"),
]


def test_every_end_leaves_one_record(gateway):
    gateway.provider.forget()
    for count, (end, outcome, status, error) in enumerate(ENDS, 1):
        end(gateway)
        last = gateway.await_records(count)[-1]
        assert (last["outcome"], last["status"], last["error"]) == (outcome, status, error), end.__name__
        known = outcome != "refused" or last["error"] not in ("key_missing", "key_unknown", "path_not_found")
        assert (last["key_id"] is not None) == known, end.__name__
        assert last["latency_micros"] > 0
    counted = sum(
        gateway.metric("tokenroute_calls_total", outcome=outcome)
        for outcome in {outcome for _, outcome, _, _ in ENDS}
    )
    assert counted == len(ENDS)


def test_many_at_once_leave_one_record_each(gateway):
    """Each of several callers does all of it, over and over."""
    ends = [end for end, _, _, _ in ENDS if end is not left_before_the_head]
    rounds, callers = 3, 4
    failures = []

    def call():
        try:
            for end in ends * rounds:
                end(gateway)
        except BaseException as failure:
            failures.append(failure)
            raise

    threads = [threading.Thread(target=call) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    gateway.await_records(len(ends) * rounds * callers)


def test_counts_and_cost_of_an_answer(gateway):
    text = "one two three four five"
    answer = gateway.ask(chat("box/echo", text))
    record = gateway.record(answer.header("x-request-id"))
    tokens = count_tokens(text)
    assert (record["input"], record["output"], record["usage_source"]) == (tokens, tokens, "provider")
    assert record["cost_nano_usd"] == tokens * (INPUT_PRICE + OUTPUT_PRICE) * NANO_USD_PER_TOKEN
    assert (record["model"], record["target"], record["streamed"]) == ("box/echo", "box/echo", 0)
    attempts = json.loads(record["attempts"])
    assert len(attempts) == 1 and attempts[0]["result"] == "ok" and attempts[0]["status"] == 200
    assert attempts[0]["why"] == "chosen" and attempts[0]["house_cost"] == record["house_cost"] == 0
    assert abs(record["started"] / 1e6 - time.time()) < 60


def test_times_of_a_stream(gateway):
    answer = gateway.ask(chat("box/sse-20x10ms+late-first-token-100", stream=True))
    record = gateway.record(answer.header("x-request-id"))
    assert 100_000 <= record["first_token_micros"] < record["latency_micros"]
    assert record["latency_micros"] >= 290_000
    assert (record["output"], record["streamed"]) == (20, 1)


# What the provider's own tally is read from, and what that makes of it in disjoint kinds.
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("form", ["openai", "anthropic", "deepseek", "gemini", "groq", "minimax", "mistral", "moonshot", "ollama",
                                  "openrouter", "qwen", "vllm", "zai"])
def test_every_providers_form_of_usage_is_read(shared, form, stream):
    text = "a b c d e f g h"
    answer = shared.ask(chat(f"plain/echo+usage-always+usage-forms-{form}" if form == "mistral"
                             else f"box/echo+usage-always+usage-forms-{form}", text, stream=stream))
    assert answer.complete and answer.status == 200, answer.body[:300]
    record = shared.record(answer.header("x-request-id"))
    assert record["usage_source"] == "provider"
    assert record["input"] + record["input_cache_read"] + record["input_cache_write"] == 8
    # Reasoning is the provider's to add or not; visible tokens are there in any case.
    assert record["output"] + record["output_reasoning"] in (8, 15)


@pytest.mark.parametrize("stream", [False, True])
def test_what_the_provider_does_not_tell_is_estimated(gateway, stream):
    answer = gateway.ask(chat("box/no-usage+words-50", stream=stream))
    record = gateway.record(answer.header("x-request-id"))
    assert record["usage_source"] == "estimated"
    assert 40 <= record["output"] <= 150 and 1 <= record["input"] <= 20
    cost = (record["input"] * INPUT_PRICE + record["output"] * OUTPUT_PRICE) * NANO_USD_PER_TOKEN
    assert record["cost_nano_usd"] == cost
    assert gateway.metric("tokenroute_usage_estimated_total") == 1


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("script", ["usage-negative", "usage-text", "usage-float", "usage-huge"])
def test_absurd_usage_is_clamped_and_flagged(shared, script, stream):
    flagged = shared.metric("tokenroute_usage_suspect_total")
    answer = shared.ask(chat(f"box/{script}+words-50", stream=stream))
    assert answer.status == 200
    record = shared.record(answer.header("x-request-id"))
    assert all(0 <= record[kind] <= 10**9 for kind in ("input", "output", "output_reasoning"))
    assert 0 <= record["cost_nano_usd"] < 2**63 - 1
    assert shared.metric("tokenroute_usage_suspect_total") == flagged + 1


def test_a_client_that_leaves_cancels_the_provider(gateway):
    gateway.provider.forget()
    connection, call = open_stream(gateway, "box/sse-2000x10ms")
    left = time.monotonic()
    connection.close()
    seen = gateway.provider.await_observed(model="sse-2000x10ms", end="client_closed")
    assert time.monotonic() - left < LETS_GO_SECONDS
    record = gateway.record(call)
    assert (record["outcome"], record["usage_source"]) == ("client_gone", "estimated")
    assert 1 <= record["output"] <= 3 * seen["events_sent"]


def test_a_client_that_leaves_before_the_head_cancels_the_provider(gateway):
    gateway.provider.forget()
    with raw.Connection(gateway.address) as connection:
        connection.send(gateway.request(chat("box/late-head-20000+words-3")))
        gateway.provider.await_observed(model="late-head-20000+words-3")
    left = time.monotonic()
    gateway.provider.await_observed(model="late-head-20000+words-3", end="client_closed")
    assert time.monotonic() - left < LETS_GO_SECONDS


def test_a_provider_that_bills_anyway_is_read_to_its_end(gateway):
    gateway.provider.forget()
    connection, call = open_stream(gateway, "drained/sse-60x10ms")
    connection.close()
    record = gateway.record(call)
    assert (record["outcome"], record["usage_source"], record["output"]) == ("client_gone", "provider", 60)
    assert gateway.provider.observed(model="sse-60x10ms")[-1]["end"] == "finished"


def test_an_unread_stream_does_not_pile_up(gateway):
    """A client that reads nothing holds up its provider, and is recorded like any other that leaves."""
    gateway.provider.forget()
    connection, call = open_stream(gateway, "box/words-200000")
    seen = gateway.provider.await_observed(model="words-200000")
    until(lambda: gateway.metric("tokenroute_calls_in_flight") == 1, "the call is in flight")
    assert seen["end"] == "open"
    connection.close()
    assert gateway.record(call)["outcome"] == "client_gone"


@pytest.mark.parametrize(("sent", "streams_seconds"), [(signal.SIGTERM, 1), (signal.SIGINT, 60)])
def test_a_signal_ends_open_streams_honestly(start, provider, sent, streams_seconds):
    gateway = start(sections="")
    gateway.write_config(gateway.config_text().replace("streams_seconds = 2", f"streams_seconds = {streams_seconds}"))
    gateway.stop()
    gateway.start()
    streams = [open_stream(gateway, "box/sse-3000x10ms") for _ in range(20)]
    silent = raw.Connection(gateway.address)
    silent.send(gateway.request(chat("box/silence")))
    until(lambda: gateway.metric("tokenroute_calls_in_flight") == 21, "21 calls are in flight")
    gateway.process.send(sent)
    for connection, _ in streams:
        text = b""
        with pytest.raises((EOFError, ConnectionResetError)):
            while True:
                text += connection.read_chunk()
        assert b'"reason":"shutdown"' in text and b"[DONE]" not in text
    answer = silent.read_answer()
    assert (answer.status, json.loads(answer.body)["error"]["metadata"]["reason"]) == (503, "shutdown")
    assert gateway.process.await_end() == 0
    records = gateway.records()
    assert sorted(one["outcome"] for one in records) == ["shutdown"] * 21
    assert {call for _, call in streams} < {one["call"] for one in records}
    assert all(one["output"] > 0 and one["usage_source"] == "estimated" for one in records if one["streamed"])


def test_a_term_lets_short_streams_end(start):
    gateway = start()
    connection, call = open_stream(gateway, "box/sse-60x10ms")
    gateway.process.send(signal.SIGTERM)
    text = b""
    while part := connection.read_chunk():
        text += part
    assert text.endswith(b"data: [DONE]\n\n")
    assert gateway.process.await_end() == 0
    assert gateway.record(call)["outcome"] == "answered"


def test_a_term_first_says_that_it_is_not_ready(start):
    gateway = start()
    gateway.write_config(gateway.config_text().replace("delay_seconds = 0", "delay_seconds = 60"))
    gateway.stop()
    gateway.start()
    gateway.process.send(signal.SIGTERM)
    until(lambda: gateway.page("/readyz")[0] == 503, "it is not ready")
    assert gateway.page("/healthz")[0] == 200
    # It still takes calls, and asks to be left.
    answer = gateway.ask(chat("box/echo"))
    assert answer.status == 200 and answer.header("connection") == "close"
    gateway.process.send(signal.SIGTERM)
    assert gateway.process.await_end() == 0
    assert len(gateway.records()) == 1


CANARY = "canary-4f1c-do-not-keep"


def test_nothing_secret_is_kept(start, provider):
    """No prompt, answer, key, credential or address in database, logs or metrics; logs as JSON too."""
    for form in ("text", "json"):
        gateway = start(f"edge-{form}", sections=f'[log]\nformat = "{form}"\nlevel = "info"')
        for model in ["box/echo", "box/echo+no-usage", "box/status-500", "box/words-9+cut-after-3", "box/" + CANARY, CANARY,
                      "box/status-400-context", "box/reset-before-head"]:
            for stream in (False, True):
                gateway.ask(chat(model, f"my {CANARY} is", stream=stream, user=CANARY, metadata={CANARY: CANARY}))
        gateway.ask(f'{{"model":"{CANARY}'.encode())
        gateway.ask(chat("box/echo"), key="sk-tr-" + CANARY)
        gateway.ask(chat("box/echo"), path=f"/v1/{CANARY}")
        gateway.ask(chat("box/echo"), path=f"/v1/models/{CANARY}?{CANARY}")
        gateway.await_records(20)
        metrics = gateway.page("/metrics")[1]
        shown = gateway.command("records", "--json", "--limit", "1000").stdout
        listed = gateway.command("keys", "list").stdout
        gateway.stop()
        kept = [metrics, shown, listed, gateway.process.log()]
        kept += [path.read_bytes().decode("latin-1") for path in gateway.state.iterdir() if path.is_file()]
        out = gateway.process.out().replace(gateway.key, "", 2)
        # A wildcard route keeps the name of the model that was asked for: it is the route's, not the prompt's.
        text = "\n".join([*kept, out]).replace(f"box/{CANARY}", "")
        assert CANARY not in text
        assert CREDENTIAL not in text
        assert gateway.key not in text and gateway.key[6:] not in text and not KEY.search(text)
        records = json.dumps(gateway.records())
        assert not re.search(r"\b127\.0\.0\.1\b|\b::1\b", records + shown + metrics)
        assert shown.count("\n") == len(gateway.records())


def test_records_are_shown_and_followed(gateway):
    gateway.ask(chat("box/echo"))
    gateway.await_records(1)
    shown = gateway.command("records")
    assert shown.returncode == 0 and "box/echo" in shown.stdout and "answered" in shown.stdout
    following = subprocess.Popen(
        [programs.find("tokenrouted"), "records", "--follow", "--json", "--config", str(gateway.config)],
        stdout=subprocess.PIPE, env={"HOME": str(gateway.folder)},
    )
    try:
        assert json.loads(following.stdout.readline())["outcome"] == "answered"
        answer = gateway.ask(chat("acme/none"))
        line = json.loads(following.stdout.readline())
        assert (line["call"], line["error"]) == (answer.header("x-request-id"), "model_not_found")
        assert line["usage"]["input"] == 0 and line["cost_nano_usd"] == 0
    finally:
        following.kill()
        following.wait()
        following.stdout.close()


def test_a_full_outbox_refuses_and_counts(start):
    """With room for few records, callers over that are told to come back; nothing is lost."""
    gateway = start(sections="[limits]\nrecords_max = 4")
    streams = [open_stream(gateway, "box/sse-3000x10ms") for _ in range(4)]
    answer = gateway.ask(chat("box/echo"))
    assert (answer.status, json.loads(answer.body)["error"]["metadata"]["reason"]) == (503, "overloaded")
    assert answer.header("retry-after")
    assert gateway.metric("tokenroute_calls_without_slot_total") == 1
    for connection, _ in streams:
        connection.close()
    gateway.await_records(4)
    assert gateway.ask(chat("box/echo")).status == 200
