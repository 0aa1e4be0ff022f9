"""Request bodies: what is read of them, what reaches the provider, and what does not."""

import functools
import json

import pytest

from harness import raw
from harness.gateway import chat
from harness.provider import fnv64
from harness.waiting import until

MEBIBYTE = 1 << 20
# What the gateway may have to inject into a body that it sends before it knows its end; spaces if not.
RESERVED = len(b',"stream_options":{"include_usage":true}')
PATH = "/v1/chat/completions"
FRAME_BYTES = 64 * 1024


@functools.lru_cache(maxsize=4)
def prompt(length):
    """Text of that length with escapes, decoys and several scripts in it."""
    piece = '{\\"model\\":\\"decoy/m\\"}, \\u006dodel \\\\" '.replace('\\\\" ', "\\\\ ") + "Grüße 世界 ☂ "
    return (piece * (length // len(piece.encode()) + 1)).encode()[:length - 1].decode(errors="ignore") \
        .rstrip("\\u006dolDé0123456789abcdef") + "."


def body(model_last, length, more=b""):
    """A chat body of about that length, and the same with the provider's name of the model."""
    def text(name):
        messages = b'"messages":[{"role":"user","content":"%s"}]' % prompt(length).encode()
        model = b'"model" : "%s"' % name
        members = [messages, model] if model_last else [model, messages]
        return b"{" + b" ,\n ".join(members) + more + b"}\n"

    return text(b"box/echo+close"), text(b"echo+close")


def upload(gateway, data, chunked):
    """Sends a body in frames and reads the answer."""
    framing = ("transfer-encoding", "chunked") if chunked else ("content-length", len(data))
    with raw.Connection(gateway.address, timeout=60) as connection:
        connection.send(gateway.head(PATH, framing))
        for start in range(0, len(data), FRAME_BYTES):
            part = data[start:start + FRAME_BYTES]
            connection.send(raw.chunk(part) if chunked else part)
        if chunked:
            connection.send(raw.chunk(b""))
        return connection.read_answer()


def with_spaces(data, count):
    """A body with spaces before its last brace."""
    before, brace, after = data.rpartition(b"}")
    return before + b" " * count + brace + after


@functools.lru_cache(maxsize=8)
def digest(data):
    return fnv64(data)


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("model_last", [True, False], ids=["model-last", "model-first"])
@pytest.mark.parametrize("length", [1_000, 60_000, MEBIBYTE - 400, MEBIBYTE + 400, 5 * MEBIBYTE])
def test_the_provider_gets_the_clients_bytes(shared, provider, length, model_last, chunked):
    check_body(shared, provider, body(model_last, length), chunked)


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_thirty_megabytes_with_the_model_last(shared, provider, chunked):
    check_body(shared, provider, body(True, 30 * MEBIBYTE), chunked)


def check_body(gateway, provider, bodies, chunked):
    sent, expected = bodies
    json.loads(sent)
    provider.forget()
    answer = upload(gateway, sent, chunked)
    assert answer.status == 200, answer.body[:500]
    seen = provider.observed()
    assert len(seen) == 1 and seen[0]["body_complete"] and seen[0]["body_is_json"]
    grown = seen[0]["body_bytes"] - len(expected)
    assert grown in (0, RESERVED)
    # Nothing was reserved where all was known before it was sent.
    assert grown == 0 or len(sent) > MEBIBYTE
    assert seen[0]["body_fnv64"] == digest(with_spaces(expected, grown))
    assert json.loads(answer.body)["choices"][0]["message"]["content"] == json.loads(sent)["messages"][0]["content"]


@pytest.mark.parametrize("key", [b'"\\u006dodel"', b'"\\u006d\\u006f\\u0064\\u0065\\u006c"', b'"mode\\u006C"'])
def test_an_escaped_model_is_the_model(shared, provider, key):
    data = b'{"messages":[{"role":"user","content":"Hi"}],%s:"box\\/ech\\u006f+close"}' % key
    provider.forget()
    assert upload(shared, data, False).status == 200
    seen = provider.observed()[0]
    assert provider.body(seen) == data.replace(b'"box\\/ech\\u006f+close"', b'"echo+close"')


DECOYS = b'''{"metadata":{"model":"decoy/a","stream":"maybe"},"messages":[{"role":"user","content":"{\\"model\\":\\"decoy/b\\"}",
"model":"decoy/c"}],"x_model":"decoy/d","model ":"decoy/e","model":"box/echo+close","stop":["model","\\"model\\":"]}'''


def test_decoys_are_not_the_model(shared, provider):
    provider.forget()
    assert upload(shared, DECOYS, False).status == 200
    expected = DECOYS.replace(b'"box/echo+close"', b'"echo+close"')
    assert provider.body(provider.observed()[0]) == expected


UNKNOWN = b'''{ "model":"box/echo+close" , "messages":[{"role":"user","content":"Hi","x-cache":{"ttl":1e2}}],
 "reasoning":{"effort":"high"}, "x_unknown":[1.0e+05, -0.0, 12345678901234567890, "\\ud83d\\ude00", null], "seed":1E300 }'''


def test_unknown_members_pass_byte_for_byte(shared, provider):
    provider.forget()
    assert upload(shared, UNKNOWN, False).status == 200
    assert provider.body(provider.observed()[0]) == UNKNOWN.replace(b'"box/echo+close"', b'"echo+close"')


STREAM_OPTIONS = [
    (b'"stream":true', b'"stream":true,"stream_options":{"include_usage":true}'),
    (b'"stream":true,"stream_options":{}', b'"stream":true,"stream_options":{"include_usage":true}'),
    (b'"stream":true,"stream_options":null', b'"stream":true,"stream_options":{"include_usage":true}'),
    (b'"stream_options":{"include_obfuscation":false},"stream":true',
     b'"stream_options":{"include_usage":true,"include_obfuscation":false},"stream":true'),
    (b'"stream":true,"stream_options":{"include_usage":false}', b'"stream":true,"stream_options":{"include_usage":true}'),
    (b'"stream":true,"stream_options":{"include_usage":true}', b'"stream":true,"stream_options":{"include_usage":true}'),
    (b'"stream":false', b'"stream":false'),
]


@pytest.mark.parametrize(("options", "expected"), STREAM_OPTIONS)
@pytest.mark.parametrize("length", [100, 2 * MEBIBYTE])
def test_usage_is_asked_for_where_it_can_be(shared, provider, options, expected, length):
    sent, wanted = body(False, length, b"," + options), body(False, length, b"," + expected)
    provider.forget()
    assert upload(shared, sent[0], False).complete
    seen = provider.observed()[0]
    if length < MEBIBYTE:
        assert provider.body(seen) == wanted[1]
    else:
        grown = seen["body_bytes"] - len(wanted[1])
        # `false` is one byte longer than the `true` that takes its place.
        assert 0 <= grown <= RESERVED + 1 and seen["body_fnv64"] == digest(with_spaces(wanted[1], grown))


def test_usage_is_not_asked_of_a_provider_that_cannot_tell(shared, provider):
    provider.forget()
    data = b'{"model":"plain/echo+strict-fields","stream":true,"messages":[{"role":"user","content":"Hi"}]}'
    answer = upload(shared, data, False)
    assert answer.status == 200
    assert provider.body(provider.observed()[0]) == data.replace(b"plain/", b"")
    assert shared.record(answer.header("x-request-id"))["usage_source"] == "estimated"


BROKEN = {
    "duplicate": b'{"model":"box/echo","messages":[],"model":"box/echo"}',
    "escaped-duplicate": b'{"model":"box/echo","messages":[],"\\u006dodel":"box/other"}',
    "other-case": b'{"model":"box/echo","messages":[],"Model":"box/other"}',
    "duplicate-stream": b'{"model":"box/echo","stream":true,"stream":false}',
    "deep": b'{"model":"box/echo","x":' + b"[" * 64 + b"]" * 64 + b"}",
    "utf-8": b'{"model":"box/echo","x":"\xff"}',
    "bom": b'\xef\xbb\xbf{"model":"box/echo"}',
    "utf-16": '{"model":"box/echo"}'.encode("utf-16"),
    "trailing": b'{"model":"box/echo"} {}',
    "nan": b'{"model":"box/echo","temperature":NaN}',
    "comma": b'{"model":"box/echo",}',
    "comment": b'{"model":"box/echo"/* */}',
    "cut": b'{"model":"box/echo"',
    "empty": b"",
    "array": b'["model"]',
    "no-model": b'{"messages":[]}',
    "model-number": b'{"model":7}',
    "n-float": b'{"model":"box/echo","n":1.5}',
}


@pytest.mark.parametrize("name", BROKEN)
def test_unsound_bodies_reach_nobody(shared, provider, name):
    provider.forget()
    answer = upload(shared, BROKEN[name], False)
    assert answer.status == 400
    assert json.loads(answer.body)["error"]["metadata"]["reason"] in (
        "duplicate_key", "invalid_json", "invalid_value", "model_missing",
    )
    assert ("duplicate_key" in answer.body.decode()) == (name.split("-")[-1] in ("duplicate", "case", "stream"))
    assert provider.observed() == []


LATE = {
    "duplicate": (b',"\\u006dodel":"box/dear"}', "duplicate_key"),
    "stream": (b',"stream":true,"stream":false}', "duplicate_key"),
    "nan": (b',"x":NaN}', "invalid_json"),
    "utf-8": (b',"x":"\xc3"}', "invalid_json"),
    "value": (b',"n":-1}', "invalid_value"),
    "trailing": (b"} {}", "invalid_json"),
}


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("name", LATE)
def test_what_is_found_late_leaves_the_provider_without_a_whole_request(shared, provider, name, chunked):
    end, reason = LATE[name]
    start, _ = body(False, 5 * MEBIBYTE)
    provider.forget()
    answer = upload(shared, start.rstrip(b"}\n") + end, chunked)
    assert answer.status == 400
    assert json.loads(answer.body)["error"]["metadata"]["reason"] == reason
    seen = until(lambda: [one for one in provider.observed() if one["end"] != "open"], "the provider gave up")
    assert not seen[0]["body_complete"] and not seen[0]["body_is_json"]
    record = shared.record(answer.header("x-request-id"))
    assert (record["outcome"], record["error"], record["output"]) == ("refused", reason, 0)


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_a_body_over_the_limit(shared, provider, chunked):
    provider.forget()
    with raw.Connection(shared.address) as connection:
        framing = ("transfer-encoding", "chunked") if chunked else ("content-length", 33 * MEBIBYTE)
        connection.send(shared.head(PATH, framing))
        try:
            frame = b"x" * MEBIBYTE
            opening = b'{"model":"box/echo+close","messages":[{"role":"user","content":"'
            for part in [opening, *[frame] * 33] if chunked else []:
                connection.send(raw.chunk(part))
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert connection.read_answer().status == 413
    for seen in provider.observed():
        assert not seen["body_complete"]


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate", "zstd"])
def test_a_compressed_body_is_not_read(shared, coding):
    with raw.Connection(shared.address) as connection:
        connection.send(shared.head(PATH, ("content-encoding", coding), ("content-length", 1_000)))
        assert connection.read_answer().status == 415


def test_a_body_that_stops_coming(start):
    gateway = start(sections="[limits]\nbody_idle_seconds = 0.3")
    with raw.Connection(gateway.address) as connection:
        connection.send(gateway.head(PATH, ("content-length", 1_000)) + b'{"model":')
        answer = connection.read_answer()
    assert answer.status == 408
    assert gateway.record(answer.header("x-request-id"))["error"] == "body_timeout"


def test_a_provider_that_refuses_during_the_upload(shared):
    sent, _ = body(False, 8 * MEBIBYTE)
    data = sent.replace(b'"box/echo+close"', b'"early"')
    with raw.Connection(shared.address) as connection:
        connection.send(shared.head(PATH, ("content-length", len(data))))
        try:
            connection.send(data)
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert connection.read_answer().status == 429


def test_model_names_that_are_no_names(shared, provider):
    provider.forget()
    for name in ["acme/../echo", "box/echo?x=1", "box/ec ho", "box/\r\nx: y", "box/\x00", "m" * 10_000, "box/", "\u202ebox"]:
        answer = shared.ask(chat(name))
        assert answer.status in (400, 404), name
        assert name.encode() not in answer.body
    assert provider.observed() == []
