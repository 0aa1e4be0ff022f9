"""The table of faults: what the caller saw, what the providers saw, and what the record says.

Rows are named after the fault matrix where they are in it. Those of its rows that are not here:

- F8 (a connection that is half open) looks to a peer like a stall: `test_failover_streams.py`, with F9 and F16.
- F17, F19 to F22: `test_relay.py` (every split and framing byte for byte, gzip) and `test_records.py` (usage that is
  missing, spread, or absurd); F18 and F24 in `test_failover_streams.py`.
- F25 and F26: `test_failover_connections.py`.

A reset, a fin and silence at every place of a stream: `test_recovery.py`. Breakers: `test_failover_breakers.py`.
"""

import dataclasses
import json

import pytest

from harness import ports
from harness.broken import Hole, Stranger, nobody
from harness.gateway import CREDENTIAL, chat
from harness.provider import Provider
from harness.routes import play, provider_text, route_text, target
from harness.scale import millis, scaled

WORDS = "word word1 word2 word3 word4 word5 word6 word7 word8"
# More than a machine with other things to do needs for what takes no time.
SLACK_SECONDS = 2.0
BOTH, STREAM, WHOLE = ("stream", "whole"), ("stream",), ("whole",)


@dataclasses.dataclass
class Row:
    """A fault and what becomes of it. Without other words, the caller reads nine words."""

    name: str
    targets: list
    tried: list
    status: int = 200
    # The reason in our own error, or the code in the provider's.
    reason: str | None = None
    code: str | None = None
    whys: list | None = None
    # Seconds between the first request that a provider saw and the next; or, with none, of the call.
    waits: float = 0.0
    retry_after: tuple | None = None
    deadlines: dict | None = None
    settings: dict = dataclasses.field(default_factory=dict)
    forms: tuple = BOTH


def a(model, **more):
    return target("a", model, **more)


def b(model="words-9", **more):
    return target("b", model, **more)


GOOD = ("b", "ok", 200)
SHORT = {"head_seconds": scaled(10), "first_token_seconds": scaled(10), "stall_seconds": scaled(10)}


def next_does(name, fault, result, status=None, **more):
    """The fault is at `a`, and `b` answers."""
    row = {"tried": [("a", result, status), GOOD], "whys": ["chosen", "fallback"]} | more
    return Row(name, [a(fault, rank=0), b(rank=1)], **row)


ROWS = [
    # F1 to F3: no connection.
    Row("f1-refused", [target("refused", "words-9", rank=0), b(rank=1)], [("refused", "connect", None), GOOD]),
    Row("f1-refused-alone", [target("refused", "words-9")], [("refused", "connect", None)], 502, "upstream_unreachable"),
    Row("f2-hole", [target("hole", "words-9", rank=0), b(rank=1)], [("hole", "connect", None), GOOD], waits=scaled(3)),
    Row("f2-hole-alone", [target("hole", "words-9")], [("hole", "connect", None)], 502, "upstream_unreachable",
        waits=scaled(3)),
    Row("f3-certificate", [target("stranger", "words-9", rank=0), b(rank=1)], [("stranger", "connect", None), GOOD]),
    Row("f3-certificate-alone", [target("stranger", "words-9")], [("stranger", "connect", None)], 502,
        "upstream_unreachable"),
    # F4 to F7: no answer.
    next_does("f4-reset", "words-9+reset-before-head", "reset"),
    next_does("f4-fin", "words-9+fin-before-head", "reset"),
    Row("f4-reset-alone", [a("words-9+first-1-reset-before-head")], [("a", "reset", None), ("a", "ok", 200)],
        whys=["chosen", "retry"]),
    Row("f4-reset-always", [a("words-9+reset-before-head")], [("a", "reset", None)] * 2, 502, "upstream_reset"),
    next_does("f6-half-head", "words-9+half-head", "reset"),
    next_does("f7-silence", "silence+words-9", "head_timeout", deadlines=SHORT, waits=scaled(10)),
    Row("f7-silence-alone", [a("silence+words-9")], [("a", "head_timeout", None)], 504, "upstream_timeout",
        deadlines=SHORT, waits=scaled(10)),
    next_does("late-first-token", f"words-9+late-first-token-{millis(20)}", "first_token_timeout", 200,
              deadlines=SHORT, waits=scaled(10), forms=STREAM),
    next_does("late-after-role", f"words-9+role-only-first-{millis(20)}", "first_token_timeout", 200,
              deadlines=SHORT, waits=scaled(10), forms=STREAM),
    Row("late-first-token-alone", [a(f"words-9+late-first-token-{millis(20)}")], [("a", "first_token_timeout", 200)],
        504, "upstream_timeout", deadlines=SHORT, waits=scaled(10), forms=STREAM),
    # F10: asked to slow down.
    Row("f10-retry-after-2", [a(f"words-9+first-1-status-429-retry-ms-{millis(2)}")],
        [("a", "rate_limited", 429), ("a", "ok", 200)], whys=["chosen", "retry"], waits=scaled(2),
        settings={"wait_seconds_max": scaled(3)}),
    next_does("f10-another", f"status-429-retry-ms-{millis(2)}", "rate_limited", 429),
    Row("f10-too-long", [a("status-429-retry-7")], [("a", "rate_limited", 429)], 429, code="rate_limit_exceeded",
        retry_after=(6, 7), settings={"wait_seconds_max": scaled(3)}),
    Row("f10-smallest", [a("status-429-retry-5", rank=0), b("status-429-retry-9", rank=1)],
        [("a", "rate_limited", 429), ("b", "rate_limited", 429)], 429, code="rate_limit_exceeded", retry_after=(4, 5),
        settings={"wait_seconds_max": scaled(3)}),
    # F11: faults of the provider.
    next_does("f11-one-500", "words-9+first-1-status-500", "server_error", 500),
    Row("f11-one-500-alone", [a("words-9+first-1-status-500")], [("a", "server_error", 500), ("a", "ok", 200)],
        whys=["chosen", "retry"]),
    *[next_does(f"f11-{code}", f"status-{code}", "server_error", code) for code in (502, 503, 504, 529)],
    next_does("f11-html", "status-500-html", "server_error", 500),
    next_does("f11-empty", "status-500-empty", "server_error", 500),
    Row("f11-persistent", [a("status-503")], [("a", "server_error", 503)] * 2, 503),
    Row("f11-all", [a("status-503", rank=0), b("status-503", rank=1), target("c", "status-503", rank=2),
                    target("d", "words-9", rank=3)],
        [("a", "server_error", 503), ("b", "server_error", 503), ("c", "server_error", 503)], 503),
    Row("f11-budget-of-4", [a("status-503", rank=0), b("status-503", rank=1), target("c", "status-503", rank=2),
                            target("d", "words-9", rank=3)],
        [("a", "server_error", 503), ("b", "server_error", 503), ("c", "server_error", 503), ("d", "ok", 200)],
        settings={"attempts_max": 4}),
    Row("f11-budget-of-1", [a("status-503", rank=0), b(rank=1)], [("a", "server_error", 503)], 503,
        settings={"attempts_max": 1}),
    next_does("error-event-first", "words-9+error-event-at-0", "error_event", 200, forms=STREAM),
    # F12: our credential is no good there.
    Row("f12-credential", [target("keyless", "words-9", rank=0), b(rank=1)], [("keyless", "provider_auth", 401), GOOD]),
    *[next_does(f"f12-{code}", f"status-{code}", "provider_auth", code) for code in (401, 402, 403)],
    Row("f12-alone", [a("status-403")], [("a", "provider_auth", 403)], 502, "provider_auth"),
    # F13: faults of the caller are passed on as they are.
    *[Row(f"f13-{code}", [a(f"status-{code}", rank=0), b(rank=1)], [("a", "request_rejected", code)], code)
      for code in (400, 404, 413, 422)],
    Row("content-policy", [a("status-400-policy", rank=0), b(rank=1)], [("a", "content_policy", 400)], 400,
        code="content_policy_violation"),
    Row("context-larger", [a("status-400-context", rank=0, context_tokens=8_000), b(rank=1, context_tokens=128_000)],
        [("a", "context_length", 400), GOOD], whys=["chosen", "fallback"]),
    Row("context-not-larger", [a("status-400-context", rank=0, context_tokens=8_000), b(rank=1, context_tokens=8_000),
                               target("c", "words-9", rank=2)],
        [("a", "context_length", 400)], 400, code="context_length_exceeded"),
    Row("context-larger-behind", [a("status-400-context", rank=0, context_tokens=8_000),
                                  b(rank=1, context_tokens=4_000),
                                  target("c", "words-9", rank=2, context_tokens=32_000)],
        [("a", "context_length", 400), ("c", "ok", 200)]),
    # F14: refused before the body was read.
    Row("f14-early-429", [target("early", "words-9", rank=0), b(rank=1)], [("early", "rate_limited", 429), GOOD]),
    # F15: redirects are not followed.
    next_does("f15-redirect", "status-302", "redirect", 302),
    Row("f15-redirect-alone", [a("status-307")], [("a", "redirect", 307)], 502, "upstream_redirect"),
    # F23: broken HTTP.
    next_does("f23-not-http", "words-9+not-http", "protocol"),
    next_does("f23-two-lengths", "words-9+two-lengths", "protocol", forms=WHOLE),
]
CASES = [(row, form) for row in ROWS for form in row.forms]


def name_of(row, form):
    return f"{row.name}-{form}"


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    """A provider whose log is of these tests alone."""
    running = Provider(tmp_path_factory.mktemp("box"), ports.free(), key=CREDENTIAL)
    yield running
    running.process.stop()


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    running = Stranger(tmp_path_factory.mktemp("stranger"))
    yield running
    running.close()


@pytest.fixture(scope="module")
def edge(tmp_path_factory, box, stranger, start_in):
    """One gateway with a route for each row; no two rows share a target."""
    hole = Hole()
    # Connections are hardly ever used again, so that what is done to them is done to new ones.
    short = {"pool_idle_seconds": 0.01}
    here = [provider_text(name, box.base_url(), deadlines=short) for name in "abcd"]
    here += [
        provider_text("refused", nobody()),
        provider_text("hole", hole.base_url, deadlines={"connect_seconds": scaled(3)}),
        provider_text("stranger", stranger.base_url),
        provider_text("early", box.base_url("early-429")),
        f'[providers.keyless]\nbase_url = "{box.base_url()}"\n',
    ]
    here += [
        route_text(name_of(row, form), row.targets, deadlines=row.deadlines, **row.settings) for row, form in CASES
    ]
    yield start_in(tmp_path_factory.mktemp("edge"), provider=box, routes="\n".join(here))
    hole.close()


@pytest.mark.parametrize(("row", "form"), CASES, ids=lambda one: one if isinstance(one, str) else one.name)
def test_row(edge, box, row, form):
    name = name_of(row, form)
    played = play(edge, box, name, stream=form == "stream")

    assert played.tried == row.tried
    if row.whys:
        assert [one.why for one in played.tried] == row.whys
    # One request for each attempt that got so far, and no more; those whose body was not read name no model.
    reached = [one for one in played.attempts if one.provider in "abcd"]
    assert len(played.seen) == len(reached)
    assert all(one["model"].endswith(name) and "?" not in one["path"] for one in played.seen)
    if row.waits:
        gaps = played.gaps() or [played.seconds]
        # A request is seen a little later than it was sent, the first one too.
        assert 0.75 * row.waits < gaps[0] < row.waits + SLACK_SECONDS
    if row.status != 200:
        assert played.answer.status == row.status
        if row.reason:
            assert played.reason == row.reason
        if row.code:
            assert played.error["code"] == row.code
        assert played.record["outcome"] in ("failed", "refused")
        if row.retry_after:
            low, high = row.retry_after
            assert low <= int(played.answer.header("retry-after")) <= high
        return
    assert (played.answer.status, played.text) == (200, WORDS)
    assert played.ends_well or form == "whole"
    record = played.record
    last = played.tried[-1]
    assert (record["outcome"], record["error"], record["output"]) == ("answered", None, 9)
    assert record["target"].startswith(f"{last.provider}/") and played.answer.header("x-tokenroute-target") == record["target"]
    assert sum(one.output for one in played.attempts) == 9


def test_a_good_answer_tells_of_no_attempts(edge, box):
    """The header is there when there is something to tell."""
    assert play(edge, box, "box/words-9").told is None


def test_an_untrusted_server_is_asked_once_a_call(edge, box, stranger):
    before = stranger.accepted
    play(edge, box, "f3-certificate-whole")
    assert stranger.accepted - before <= 1


def test_the_whole_request_goes_to_each_target(edge, box):
    """The body is kept for replay, but for the model's name."""
    text = "a long question " * 5_000
    played = play(edge, box, "f11-503-whole", text, seed=7)
    sizes = {one["body_bytes"] - len(one["model"]) for one in played.seen}
    assert len(played.seen) == 2 and len(sizes) == 1 and sizes.pop() > 80_000
    assert all(one["body_complete"] and one["body_is_json"] for one in played.seen)
    short = play(edge, box, "f11-502-whole", "what is new?", seed=7)
    bodies = [json.loads(box.body(one)) for one in short.seen]
    expected = chat("", "what is new?", seed=7)
    assert [body | {"model": ""} for body in bodies] == [expected] * len(bodies)


def test_a_body_too_long_to_keep_is_tried_once(edge, box):
    """What was passed on while it arrived cannot be sent again."""
    played = play(edge, box, "f11-504-whole", "x" * 9_000_000)
    assert played.tried == [("a", "server_error", 504)] and played.answer.status == 504


def test_the_callers_faults_never_count(edge, box):
    for _ in range(12):
        assert play(edge, box, "f13-422-whole").tried == [("a", "request_rejected", 422)]
        assert play(edge, box, "context-not-larger-whole").tried == [("a", "context_length", 400)]


def test_a_refused_credential_is_counted(edge, box):
    play(edge, box, "f12-401-stream")
    assert edge.metric("tokenroute_attempt_failures_total", reason="provider_auth") >= 1
    assert edge.metric("tokenroute_provider_auth_failures_total") >= 1
