"""Streams that break off after the caller has read something: what goes on, and what ends in an honest error."""

import collections
import json

import openai
import pytest

from harness import ports, raw
from harness.gateway import CREDENTIAL, chat
from harness.provider import Provider, count_tokens
from harness.routes import (
    chunks_of, error_of, play, price_text, provider_text, route_text, tagged, target, text_of,
)
from harness.scale import millis, scaled

# 60 tokens; a role chunk comes first, so the 41st event is the 40th token.
SIXTY = " ".join(["word", *(f"word{index}" for index in range(1, 60))])
FORTY = " ".join(SIXTY.split(" ")[:40])
CUT = "words-60+cut-after-41"
# Longer than what is said, so that two prompts could not pass for one.
QUESTION = " ".join(["hello"] * 200)
STALL_SECONDS = scaled(30)
IN_NANO, OUT_NANO = 1_000, 4_000


def a(model):
    return target("a", model, rank=0)


def b(model, **more):
    return target("b", model, rank=1, **more)


PREFILL = b("words-60+prefill", prefill=True)
ROUTES = {
    # Who goes on, and how.
    "prefill": [a(CUT), PREFILL],
    "prefill-fin": [a("words-60+fin-after-41"), PREFILL],
    "prefill-spaces": [a("said-long_repetitive+cut-after-10"), b("said-long_repetitive+prefill", prefill=True)],
    "reject": [a(CUT), b("words-60+prefill-reject", prefill=True)],
    "afresh": [a(CUT), b("words-60")],
    "afresh-pieces": [a(CUT), b("words-60+pieces-7")],
    "afresh-thinking": [a(CUT), b("words-60+after-reasoning-5")],
    "divergent": [a(CUT), b("words-60+divergent-20")],
    "divergent-late": [a(CUT), b("words-60+divergent-41")],
    "shorter": [a(CUT), b("words-30")],
    "nobody": [a(CUT)],
    "twice": [a(CUT), b("words-60+prefill+cut-after-11", prefill=True),
              target("c", "words-60+prefill", rank=2, prefill=True)],
    "all-break": [a(CUT), b("words-60+prefill+cut-after-11", prefill=True),
                  target("c", "words-60+prefill+cut-after-6", rank=2, prefill=True)],
    "sick-then-well": [a(CUT), b("status-503"), target("c", "words-60+prefill", rank=2, prefill=True)],
    "form-prefix": [a(CUT), target("prefix", "words-60+prefill-prefix", rank=1, prefill=True)],
    "form-partial": [a(CUT), target("partial", "words-60+prefill-partial", rank=1, prefill=True)],
    "form-continue": [a(CUT), target("continue", "words-60+prefill-continue", rank=1, prefill=True)],
    # What breaks.
    "stall": [a("words-60+stall-after-41"), PREFILL],
    "stall-alone": [a("words-60+stall-after-41")],
    "comments-stall": [a(f"words-60+stall-after-41+stall-pings-{millis(5)}"), PREFILL],
    "garbage-one": [a("words-20+garbage-at-10"), PREFILL],
    "garbage-on": [a("words-60+garbage-from-41"), PREFILL],
    "garbage-on-alone": [a("words-60+garbage-from-41")],
    "error-event": [a("words-60+error-event-at-41"), PREFILL],
    "error-event-alone": [a("words-60+error-event-at-41")],
    "bad-chunk": [a("bad-chunk"), b("words-9")],
    # What cannot be gone on with.
    "tools": [a("echo+cut-after-3"), b("echo+prefill", prefill=True)],
    "choices": [a("words-9+cut-after-9"), b("words-9+prefill", prefill=True)],
    "reasoning": [a("after-reasoning-9+words-9+cut-after-6"), b("words-9+prefill", prefill=True)],
    # What is whole.
    "no-done": [a("words-9+no-done"), PREFILL],
    "no-done-fin": [a("words-9+no-done+no-length"), PREFILL],
    "no-done-reset": [a("words-9+no-done+cut-after-99"), PREFILL],
    "no-done-lingers": [a("words-9+no-done+usage-always+stall-after-99"), PREFILL],
    "done-lingers": [a("words-9+done-then-linger"), PREFILL],
    "reset-before-done": [a("words-9+cut-after-12"), PREFILL],
    "long-event": [a("big-event-20000000+words-9"), PREFILL],
}
ERROR_ROUTES = {"on-break-error": [a(CUT), PREFILL]}
PRICED = ("prefill", "reject", "nobody")
# Each route is there so often: its first target breaks each time, and would be left alone after the third.
COPIES = 20
_used = collections.Counter()


def fresh(name):
    """The next copy of a route: its targets have not been used before."""
    _used[name] += 1
    assert _used[name] <= COPIES
    return f"{name}.{_used[name]}"


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    running = Provider(tmp_path_factory.mktemp("box"), ports.free(), key=CREDENTIAL)
    yield running
    running.process.stop()


@pytest.fixture(scope="module")
def edge(tmp_path_factory, box, start_in):
    here = [provider_text(name, box.base_url()) for name in "abc"]
    for form in ("prefix", "partial"):
        here.append(provider_text(form, box.base_url(), quirks={"prefill": form}))
    here.append(provider_text("continue", box.base_url(), quirks={"prefill": "continue_final_message"}))
    deadlines = {"stall_seconds": STALL_SECONDS}
    for copy in range(1, COPIES + 1):
        for name in PRICED:
            for one in ROUTES[name]:
                model = tagged(one["model"], f"{name}.{copy}")
                here.append(price_text(one["provider"], model, IN_NANO / 1_000, OUT_NANO / 1_000))
        here += [route_text(f"{name}.{copy}", targets, deadlines=deadlines) for name, targets in ROUTES.items()]
        here += [route_text(f"{name}.{copy}", targets, on_break="error") for name, targets in ERROR_ROUTES.items()]
    return start_in(tmp_path_factory.mktemp("edge"), provider=box, routes="\n".join(here))


def stream(edge, box, name, **more):
    return play(edge, box, fresh(name), QUESTION, stream=True, **more)


def assert_one_voice(played):
    """Every chunk is the same answer's, whoever said it: the first one's number, model and time, one role, one end."""
    chunks = [chunk for chunk in chunks_of(played.answer.body) if "error" not in chunk]
    for name in ("id", "model", "created", "object", "system_fingerprint"):
        assert len({json.dumps(chunk.get(name)) for chunk in chunks}) == 1, name
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    assert {choice["index"] for choice in choices} == {0}
    assert [choice["delta"].get("role") for choice in choices].count("assistant") == 1
    assert not any("reasoning_content" in choice["delta"] for choice in choices)


def assert_one_prompt(played):
    """The record counts one prompt, and what the caller was given."""
    record = played.record
    tokens = count_tokens(QUESTION)
    inputs = record["input"] + record["input_cache_read"] + record["input_cache_write"]
    assert 0.5 * tokens <= inputs <= 1.5 * tokens


GOES_ON = {
    "prefill": [("a", "cut", 200), ("b", "ok", 200)],
    "prefill-fin": [("a", "cut", 200), ("b", "ok", 200)],
    "reject": [("a", "cut", 200), ("b", "request_rejected", 400), ("b", "ok", 200)],
    "afresh": [("a", "cut", 200), ("b", "ok", 200)],
    "afresh-pieces": [("a", "cut", 200), ("b", "ok", 200)],
    "afresh-thinking": [("a", "cut", 200), ("b", "ok", 200)],
    "twice": [("a", "cut", 200), ("b", "cut", 200), ("c", "ok", 200)],
    "sick-then-well": [("a", "cut", 200), ("b", "server_error", 503), ("c", "ok", 200)],
    "form-prefix": [("a", "cut", 200), ("prefix", "ok", 200)],
    "form-partial": [("a", "cut", 200), ("partial", "ok", 200)],
    "form-continue": [("a", "cut", 200), ("continue", "ok", 200)],
    "garbage-on": [("a", "garbage", 200), ("b", "ok", 200)],
    "error-event": [("a", "error_event", 200), ("b", "ok", 200)],
    "stall": [("a", "stall", 200), ("b", "ok", 200)],
    "comments-stall": [("a", "stall", 200), ("b", "ok", 200)],
}


@pytest.mark.parametrize("name", GOES_ON)
def test_another_target_goes_on(edge, box, name):
    played = stream(edge, box, name)
    assert played.tried == GOES_ON[name]
    assert [one.why for one in played.tried][:2] == ["chosen", "continue"]
    assert (played.text, played.ends_well, played.error) == (SIXTY, True, None)
    assert_one_voice(played)
    assert_one_prompt(played)
    assert played.record["outcome"] == "answered"
    assert len(played.seen) == len(played.attempts)
    if "stall" in name:
        assert 0.75 * STALL_SECONDS < played.gaps()[0]


@pytest.mark.parametrize("name", ["prefill", "form-prefix", "form-partial", "form-continue"])
def test_a_target_is_given_what_was_said(edge, box, name):
    played = stream(edge, box, name, temperature=0)
    first, second = (played.body(box, index) for index in (0, 1))
    opening = second["messages"].pop()
    assert first["messages"] == second["messages"] and second["temperature"] == 0
    assert (opening["role"], opening["content"]) == ("assistant", FORTY)
    marks = {"prefix": opening.get("prefix"), "partial": opening.get("partial"),
             "continue": second.get("continue_final_message")}
    assert [form for form, mark in marks.items() if mark] == [name.removeprefix("form-")] * (name != "prefill")


def test_a_target_that_cannot_go_on_is_asked_afresh(edge, box):
    for name, requests in [("reject", 3), ("afresh", 2)]:
        played = stream(edge, box, name)
        bodies = [played.body(box, index) for index in range(requests)]
        assert bodies[-1]["messages"] == bodies[0]["messages"]
        # What it repeats is not the caller's to pay for, and the provider has said all of it.
        assert played.seen[-1]["tokens_sent"] == 60


def test_white_space_where_it_was_cut_is_said_once(edge, box):
    whole = "".join(["ha", " ha", " ha", " ha", "ha", "ha", " ha ", "ha", " ", " ", "ha", "\n", "\n", "ha", " ha", "ha "])
    assert stream(edge, box, "prefill-spaces").text == whole


def test_the_caller_reads_one_answer_with_the_sdk(edge):
    """Usage is asked for: one prompt, and all that was delivered."""
    for name in ("prefill", "afresh", "twice"):
        with edge.client().chat.completions.create(
            model=fresh(name), messages=[{"role": "user", "content": QUESTION}], stream=True,
            stream_options={"include_usage": True},
        ) as answer:
            chunks = list(answer)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert text == SIXTY
        usage = chunks[-1].usage
        assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
        tokens = count_tokens(QUESTION)
        assert 0.5 * tokens <= usage.prompt_tokens <= 1.5 * tokens
        # The provider's tokens are words, those of our own counting parts of them.
        assert 60 <= usage.completion_tokens <= 240
        assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_each_leg_is_paid_for_at_its_own_rate(edge, box):
    """The caller pays for one prompt and what was delivered; what had to be said again is the house's."""
    for name, second in [("prefill", "b"), ("reject", "b")]:
        played = stream(edge, box, name)
        record, legs = played.record, json.loads(played.record["attempts"])
        assert record["cost_nano_usd"] == record["input"] * IN_NANO + record["output"] * OUT_NANO
        assert sum(leg["output_tokens"] for leg in legs) == record["output"]
        assert all(leg["output_tokens"] > 0 for leg in (legs[0], legs[-1]))
        assert legs[-1]["target"].startswith(second)
        # Two prompts were read, one is the caller's; and of the one who began afresh, forty tokens too.
        assert record["house_cost"] >= 100 * IN_NANO + (name == "reject") * 40 * OUT_NANO
        assert record["house_cost"] == sum(leg["house_cost"] for leg in legs)
    alone = stream(edge, box, "nobody").record
    assert alone["house_cost"] == 0 and alone["cost_nano_usd"] > 0


ENDS = {
    # What had been said, the attempts, and the reason that the caller reads.
    "divergent": (FORTY, [("a", "cut", 200), ("b", "diverged", 200)], "upstream_diverged"),
    "shorter": (FORTY, [("a", "cut", 200), ("b", "diverged", 200)], "upstream_diverged"),
    "nobody": (FORTY, [("a", "cut", 200)], "upstream_cut"),
    "on-break-error": (FORTY, [("a", "cut", 200)], "upstream_cut"),
    "all-break": (None, [("a", "cut", 200), ("b", "cut", 200), ("c", "cut", 200)], "upstream_cut"),
    "stall-alone": (FORTY, [("a", "stall", 200)], "upstream_stalled"),
    "garbage-on-alone": (FORTY, [("a", "garbage", 200)], None),
    "error-event-alone": (FORTY, [("a", "error_event", 200)], None),
    "reasoning": ("", [("a", "cut", 200)], "upstream_cut"),
}


@pytest.mark.parametrize("name", ENDS)
def test_what_cannot_go_on_ends_in_an_error(edge, box, name):
    text, tried, reason = ENDS[name]
    played = stream(edge, box, name)
    assert played.tried == tried and len(played.seen) == len(tried)
    if text is None:
        # Forty words, ten more, and five more.
        assert played.text == " ".join(SIXTY.split(" ")[:55])
    else:
        assert played.text == text
    assert played.error and not played.answer.complete
    if reason:
        assert played.reason == reason
    assert [one for one in chunks_of(played.answer.body) if "error" in one] == chunks_of(played.answer.body)[-1:]
    assert_one_prompt(played)
    assert played.record["outcome"] == "cut"


@pytest.mark.parametrize("name", ["nobody", "divergent", "garbage-on-alone", "error-event-alone", "reasoning"])
def test_the_sdk_raises_on_what_is_not_whole(edge, name):
    text = ""
    with pytest.raises((openai.APIError, openai.APIConnectionError)):
        for chunk in edge.client().chat.completions.create(
            model=fresh(name), messages=[{"role": "user", "content": QUESTION}], stream=True,
        ):
            text += chunk.choices[0].delta.content or ""
    assert SIXTY.startswith(text)


def test_what_differs_after_the_break_is_another_end_of_the_same_answer(edge, box):
    """Nobody can tell what the first would have said next."""
    played = stream(edge, box, "divergent-late")
    assert played.text.startswith(FORTY + " otherword40") and played.ends_well


def test_a_call_of_a_tool_is_not_gone_on_with(edge, box):
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {
        "type": "object", "properties": {"city": {"type": "string"}}}}}]
    played = play(edge, box, fresh("tools"), "the weather in Bern", stream=True, tools=tools)
    assert played.tried == [("a", "cut", 200)] and played.reason == "upstream_cut"


def test_several_choices_are_not_gone_on_with(edge, box):
    played = play(edge, box, fresh("choices"), stream=True, n=2)
    assert played.tried == [("a", "cut", 200)] and played.reason == "upstream_cut"


def test_a_completion_is_not_gone_on_with(edge):
    body = {"model": fresh("prefill"), "prompt": QUESTION, "stream": True}
    answer = edge.ask(body, path="/v1/completions")
    assert not answer.complete and error_of(answer.body)["metadata"]["reason"] == "upstream_cut"


def test_a_malformed_event_is_not_forwarded(edge, box):
    """F16: the stream goes on if the rest is sound."""
    played = stream(edge, box, "garbage-one")
    assert b"no JSON" not in played.answer.body
    assert played.text == " ".join(SIXTY.split(" ")[:20]) and played.ends_well
    assert played.tried == [("a", "ok", 200)]


def test_a_bad_chunk_before_anything_was_said_is_another_targets_turn(edge, box):
    played = stream(edge, box, "bad-chunk")
    assert [one.result for one in played.tried] in (["protocol", "ok"], ["cut", "ok"])
    assert played.ends_well


@pytest.mark.parametrize("name", ["no-done", "no-done-fin", "no-done-reset", "no-done-lingers", "done-lingers",
                                  "reset-before-done"])
@pytest.mark.parametrize("asked", [False, True])
def test_a_whole_answer_ends_well_whatever_follows(edge, box, name, asked):
    """F24, and what lacks its `[DONE]`: it is finished with its usage and not asked for again."""
    more = {"stream_options": {"include_usage": True}} if asked else {}
    played = stream(edge, box, name, **more)
    assert (played.text, played.ends_well) == (" ".join(SIXTY.split(" ")[:9]), True)
    assert played.tried == [("a", "ok", 200)]
    assert (played.record["outcome"], played.record["output"]) == ("answered", 9)
    last = chunks_of(played.answer.body)[-1]
    assert ("usage" in last and last["usage"]["completion_tokens"] == 9) == asked
    assert len([one for one in chunks_of(played.answer.body) if one.get("usage")]) == asked
    if name == "done-lingers":
        assert box.await_observed(id=played.seen[0]["id"], end="client_closed")


def test_a_very_long_event_is_passed_in_pieces(edge, box):
    """F18, at a fifth of its length: what cannot be kept is not kept."""
    def peak():
        with open(f"/proc/{edge.process.pid}/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

    stream(edge, box, "prefill")
    before = peak()
    played = stream(edge, box, "long-event")
    assert len(played.answer.body) > 20_000_000 and played.ends_well
    # kB: far less than the event. The allocator's own room is in it.
    assert peak() - before < 12_000


def test_an_error_comes_soon_after_the_cut(edge):
    """The caller is not left waiting, and nothing follows the error."""
    with raw.Connection(edge.address) as connection:
        connection.send(edge.request(chat(fresh("nobody"), QUESTION, stream=True)))
        answer = connection.read_answer()
    assert text_of(answer.body) == FORTY
    assert not answer.complete


def test_comments_do_not_hold_off_the_deadline_of_the_first_token(start, box):
    """Only what says something counts."""
    gateway = start(provider=box, routes="\n".join([
        provider_text("a", box.base_url()), provider_text("b", box.base_url()),
        route_text("pings", [a(f"replay-long_empty_deltas+pace-{millis(8)}"), b("words-9")],
                   deadlines={"first_token_seconds": scaled(10), "stall_seconds": scaled(100)}),
    ]))
    # The first word comes after the role and a comment: 1.6 s of 1.0.
    played = play(gateway, box, "pings", stream=True)
    assert played.tried == [("a", "first_token_timeout", 200), ("b", "ok", 200)]
