"""What a client receives is what the provider sent, byte for byte, but for what the gateway asked for."""

import json
import re
import zlib

import pytest

from harness import raw
from harness.gateway import CREDENTIAL, chat

PATH = "/v1/chat/completions"
NUMBERED = re.compile(rb"chatcmpl-box\d+|cmpl-box\d+")


def direct(provider, body):
    """What the provider itself answers."""
    data = json.dumps(body).encode()
    fields = [("authorization", f"Bearer {CREDENTIAL}"), ("content-length", len(data)), ("connection", "close")]
    return raw.exchange(provider.address, raw.head("POST", PATH, *fields) + data)


def both(gateway, provider, script, **more):
    """The gateway's answer and the provider's own, without the number that it gives each answer."""
    # Once more if the number grew by a digit in between, as it does at 10, 100 and so on.
    for _ in range(2):
        answers = [gateway.ask(chat(f"box/{script}", **more)), direct(provider, chat(script, **more))]
        for answer in answers:
            if answer.header("content-encoding") == "gzip":
                answer.body = zlib.decompress(answer.body, wbits=31)
        if len({len(number) for answer in answers for number in NUMBERED.findall(answer.body)}) < 2:
            break
    for answer in answers:
        answer.body = NUMBERED.sub(b"box", answer.body)
    return answers


WITH_USAGE = {"stream": True, "stream_options": {"include_usage": True}}
STREAMS = [
    "words-40", "unicode", "sse-10x5ms", "crlf+words-9", "cr+words-9", "bom+words-9", "no-space+words-9",
    "comments+words-9", "split-1+words-3", "split-7+unicode", "one-write+words-40", "big-event-70000+words-9",
    "big-event-300000+words-9", "usage-always+words-9", "usage-every-chunk+words-9", "usage-last-content+words-9",
    "no-usage+words-9", "role-only-first+words-3", "no-length+words-9", "informational+words-9",
    "usage-forms-anthropic", "usage-forms-deepseek", "usage-forms-gemini", "usage-forms-groq", "usage-forms-moonshot",
    "usage-forms-openrouter", "usage-forms-vllm", "usage-forms-xai", "usage-forms-zai",
    "usage-negative+words-9", "usage-huge+words-9", "usage-text+words-9", "usage-float+words-9", "gzip+words-9",
]


@pytest.mark.parametrize("script", STREAMS)
def test_a_stream_passes_byte_for_byte(shared, provider, script):
    through, plain = both(shared, provider, script, **WITH_USAGE)
    assert (through.status, plain.status) == (200, 200)
    assert through.complete and through.body == plain.body
    for name in ("content-type", "content-encoding"):
        assert through.header(name) == plain.header(name)


@pytest.mark.parametrize("script", ["words-9", "unicode", "crlf+words-9", "bom+words-9", "split-5+words-9",
                                    "no-usage+words-9", "one-write+words-40"])
def test_a_stream_without_usage_is_as_if_it_had_not_been_asked_for(shared, provider, script):
    """The gateway asked for it; the client, who did not, reads what the provider sends those who do not."""
    through, plain = both(shared, provider, script, stream=True)
    assert through.body == plain.body and b'"usage"' not in through.body
    record = shared.record(through.header("x-request-id"))
    assert record["usage_source"] == ("estimated" if script.startswith("no-usage") else "provider")


@pytest.mark.parametrize("script", ["echo", "words-9", "unicode", "json-bytes-100000", "json-bytes-3000000", "blank-lines+words-9",
                                    "chunked-json+words-9", "no-length+words-9", "slow-json+words-9", "gzip+words-9",
                                    "usage-forms-qwen", "base-resp", "usage-zero+words-9"])
def test_a_whole_answer_passes_byte_for_byte(shared, provider, script):
    through, plain = both(shared, provider, script)
    assert (through.status, through.complete) == (200, True)
    assert through.body == plain.body


@pytest.mark.parametrize("script", ["status-400-context", "status-404", "status-422", "status-429-quota", "status-500"])
def test_a_providers_error_passes_byte_for_byte(shared, provider, script):
    through, plain = both(shared, provider, script)
    assert through.status == plain.status and through.body == plain.body
    assert through.header("content-type") == "application/json"


def test_heads_carry_what_they_should(shared):
    answer = shared.ask(chat("box/words-3", stream=True))
    assert answer.header("content-type").startswith("text/event-stream")
    assert answer.header("x-accel-buffering") == "no"
    assert answer.header("cache-control") in ("no-cache", "no-store")
    assert answer.header("content-length") is None
    assert answer.header("x-request-id").startswith("req_")
    assert answer.header("x-tokenroute-target") == "box/words-3"


CUTS = ["cut-after-1", "cut-after-4", "fin-after-4", "bad-chunk", "no-length+fin-after-4", "cut-after-4+split-7"]


@pytest.mark.parametrize("fault", CUTS)
def test_a_cut_stream_never_looks_complete(shared, fault):
    answer = shared.ask(chat(f"box/words-20+pace-10+{fault}+tag-relay", stream=True))
    if answer.status == 502:
        # Nothing had been said yet, so the client reads an ordinary error.
        assert json.loads(answer.body)["error"]["type"] == "upstream_error"
        return
    assert answer.status == 200 and not answer.complete
    assert b"[DONE]" not in answer.body
    last = answer.body.rstrip().rsplit(b"\n\n", 1)[-1]
    error = json.loads(last.removeprefix(b"data: "))["error"]
    assert (error["code"], error["metadata"]["reason"]) == (502, "upstream_cut")
    record = shared.record(answer.header("x-request-id"))
    assert (record["outcome"], record["error"], record["usage_source"]) == ("cut", "upstream_cut", "estimated")
    assert 0 < record["output"] < 20


def test_a_stream_without_done_is_given_one(shared, provider):
    """An answer with its finish reason is complete: it is ended as every client expects."""
    through, plain = both(shared, provider, "no-done+words-9", **WITH_USAGE)
    assert through.complete and through.body == plain.body + b"data: [DONE]\n\n"
    assert shared.record(through.header("x-request-id"))["outcome"] == "answered"


def test_what_cannot_be_read_passes_as_it_comes(shared, provider):
    """A compressed stream is not held until it is whole, as other bodies that are no events are."""
    with raw.Connection(shared.address) as connection:
        connection.send(shared.request(chat("box/gzip+sse-40x50ms+tag-early", stream=True)))
        assert connection.read_head().header("content-encoding") == "gzip"
        assert connection.read_chunk()
        seen = [one for one in provider.observed() if "tag-early" in (one["model"] or "")]
        assert [one["end"] for one in seen] == ["open"]


def test_an_event_that_is_no_json_is_left_out(shared, provider):
    through, plain = both(shared, provider, "garbage-at-3+words-9", **WITH_USAGE)
    events = plain.body.split(b"\n\n")
    sound = [event for event in events if event in (b"", b"data: [DONE]") or event.startswith(b'data: {"id"')]
    assert len(sound) == len(events) - 1
    assert through.complete and through.body == b"\n\n".join(sound)


def test_a_cut_json_body_never_looks_complete(shared):
    faults = ["short-body", "cut-after-1+json-bytes-100000", "cut-after-1+chunked-json", "fin-after-1+chunked-json"]
    # Often, since the end may arrive with the last bytes or after them.
    for number, fault in enumerate(faults * 10):
        answer = shared.ask(chat(f"box/{fault}+tag-{number}"))
        assert answer.status == 502 or not answer.complete, fault
        assert shared.record(answer.header("x-request-id"))["outcome"] in ("cut", "failed"), fault


def test_done_ends_a_stream_whatever_lingers(shared):
    for script in ["done-then-linger+words-3", "more-after-done+words-3"]:
        answer = shared.ask(chat(f"box/{script}", stream=True))
        assert answer.complete and answer.body.endswith(b"data: [DONE]\n\n"), script
        assert shared.record(answer.header("x-request-id"))["outcome"] == "answered"


def test_an_error_event_passes(shared):
    answer = shared.ask(chat("box/error-event-at-3+words-9", stream=True))
    assert b'"error"' in answer.body and b"[DONE]" not in answer.body
    record = shared.record(answer.header("x-request-id"))
    assert (record["outcome"], record["error"]) == ("cut", "upstream_error_event")


@pytest.mark.parametrize("script", ["length-and-chunked", "two-lengths", "two-answers", "not-http", "half-head"])
def test_broken_http_never_spills_into_the_next_answer(shared, script):
    with raw.Connection(shared.address) as connection:
        connection.send(shared.request(chat(f"box/{script}")))
        first = connection.read_answer()
        assert first.status in (200, 502)
        if first.header("connection") == "close" or not first.complete:
            return
        for _ in range(3):
            connection.send(shared.request(chat("box/echo", "after the storm")))
            answer = connection.read_answer()
            assert json.loads(answer.body)["choices"][0]["message"]["content"] == "after the storm"


def test_a_provider_that_closes_idle_connections_costs_no_call(shared):
    """A reset on a connection that was used before is tried again on a new one."""
    for _ in range(20):
        assert shared.ask(chat("box/reset-on-reuse+words-3")).status == 200
    for _ in range(5):
        assert shared.ask(chat("box/idle-close-1+words-3")).status == 200


def test_tokens_come_one_by_one(shared):
    """Each event reaches the client before the provider has sent the next."""
    with raw.Connection(shared.address) as connection:
        connection.send(shared.request(chat("box/words-3+stall-after-3", stream=True)))
        assert connection.read_head().status == 200
        text = b""
        while b"word1" not in text:
            text += connection.read_chunk()
    assert b"finish_reason\":\"stop" not in text
