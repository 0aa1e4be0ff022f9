"""Compares what we found in request bodies with what CPython's json finds.

Reads the records that the example `bodies` of tokenroute-fuzz writes, and one byte a body that tells
whether Node takes it. It does not run anything itself: `run.py` does.
"""

import json
import re
import struct

DEPTH_MAX = 64
MEMBER_BYTES_MAX = 4096
CAPS = ["max_tokens", "max_completion_tokens"]
COUNTS = [*CAPS, "n", "best_of"]
TOP = ["model", "stream", "stream_options", "messages", *COUNTS]
INNER = ["include_usage"]
CONTINUE = [("continue_final_message", True), ("add_generation_prompt", False)]
SPACE = re.compile(r"[ \t\n\r]*")


class Pairs(list):
    """An object's members in order, duplicates included."""

    def __repr__(self):
        return "Pairs" + super().__repr__()

    def last(self, key):
        """The value that a reader keeps, or `None` if absent."""
        return next((Found(value) for name, value in reversed(self) if name == key), None)


class Found:
    """A value that is present, so that `null` differs from absent."""

    def __init__(self, value):
        self.value = value


class Wrong(Exception):
    """Our finding is not the right one."""


def refuse_constant(name):
    raise ValueError(name)


def parse(body):
    """The value of a body, or `None` if CPython refuses it."""
    try:
        text = body.decode("utf-8", errors="strict")
        return Found(json.loads(text, object_pairs_hook=Pairs, parse_constant=refuse_constant))
    except (ValueError, RecursionError):
        return None


def depth_of(value):
    """How deep a value nests, without recursion."""
    deepest, level = 0, [value]
    while level:
        inner = []
        for item in level:
            if isinstance(item, Pairs):
                inner.extend(value for _, value in item)
            elif isinstance(item, list):
                inner.extend(item)
            else:
                continue
            inner.append(None)
        deepest += bool(inner)
        level = inner
    return deepest


def fold(key):
    """A key as readers see it that match keys whatever their case."""
    lower = {chr(code): chr(code + 32) for code in range(ord("A"), ord("Z") + 1)}
    return "".join({"\u017f": "s", "\u212a": "k", **lower}.get(letter, letter) for letter in key)


def clashes(pairs, routed):
    """Whether a routed key occurs twice, or in another case."""
    like = [name for name, _ in pairs if fold(name) in routed]
    return len(like) != len(set(like)) or any(name not in routed for name in like)


def has_duplicates(document):
    if clashes(document, TOP):
        return True
    options = document.last("stream_options")
    return bool(options) and isinstance(options.value, Pairs) and clashes(options.value, INNER)


def raw_lengths(body):
    """The bytes that the longest value of each top-level key takes in the body."""
    text = body.decode("utf-8")
    at = SPACE.match(text, 0).end() + 1
    lengths = {}
    decoder = json.JSONDecoder()
    while True:
        at = SPACE.match(text, at).end()
        if text[at] == "}":
            return lengths
        if text[at] == ",":
            at = SPACE.match(text, at + 1).end()
        key, at = json.decoder.scanstring(text, at + 1)
        colon = SPACE.match(text, at).end()
        start = SPACE.match(text, colon + 1).end()
        _, at = decoder.raw_decode(text, start)
        lengths[key] = max(lengths.get(key, 0), len(text[start:at].encode("utf-8")))


def expect(condition, what):
    if not condition:
        raise Wrong(what)


def check_refusal(body, found, taken):
    """What both readers take must be refused for a reason that holds."""
    if not taken:
        return
    document, verdict = taken.value, found["verdict"]
    if verdict == "depth":
        expect(depth_of(document) > DEPTH_MAX, "the depth is within bounds")
    elif verdict == "duplicate_key":
        expect(isinstance(document, Pairs) and has_duplicates(document), "no key occurs twice")
    elif verdict == "member_too_long":
        lengths = raw_lengths(body)
        longest = max(lengths.get("model", 0), lengths.get("stream_options", 0))
        expect(longest > MEMBER_BYTES_MAX, "no member is too long")
    else:
        expect(not isinstance(document, Pairs), f"both readers take it, we say {verdict}")


def describe_flag(value):
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return "other"


def describe_model(value):
    if not isinstance(value, str):
        return "not text"
    if any(0xD800 <= ord(letter) < 0xE000 for letter in value):
        return "unpaired"
    return {"text": value}


def describe_options(value):
    if value is None:
        return "null"
    if not isinstance(value, Pairs):
        return "other"
    usage = value.last("include_usage")
    return {"empty": not value, "include_usage": usage and describe_flag(usage.value)}


def check_count(value, ours, key):
    if value is None:
        expect(ours == "null", f"{key} is null")
    elif isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**64:
        # `-0` is an integer to CPython and none to us.
        expect(ours == str(value) or (value == 0 and ours == "other"), f"{key} is {value}")
    else:
        expect(ours == "other", f"{key} is no count")


def values_like(document, names):
    """The values of all members that some reader would take for one of these."""
    return [value for name, value in document if fold(name) in names]


def check_facts(document, found):
    messages = document.last("messages")
    is_list = messages and isinstance(messages.value, list) and not isinstance(messages.value, Pairs)
    theirs = {"empty": not messages.value} if is_list else None
    expect(theirs == found["messages"], f"messages is {theirs!r}")
    tools = values_like(document, ["tools", "functions"])
    theirs = any(value is not None and value not in ([], Pairs()) for value in tools)
    expect(theirs == found["tools"], f"tools is {theirs!r}")
    theirs = any(value is True for value in values_like(document, ["logprobs"]))
    expect(theirs == found["logprobs"], f"logprobs is {theirs!r}")
    for key, describe in [
        ("model", describe_model),
        ("stream", describe_flag),
        ("stream_options", describe_options),
    ]:
        value = document.last(key)
        theirs = value and describe(value.value)
        expect(theirs == found[key], f"{key} is {theirs!r}")
    for key in COUNTS:
        value = document.last(key)
        if value is None:
            expect(found[key] is None, f"{key} is absent")
        else:
            check_count(value.value, found[key], key)


def expected_members(document, found):
    """The top-level members that the upstream should see, but for the order of added ones."""
    stream, options = document.last("stream"), document.last("stream_options")
    asks = found["include_usage"] and stream is not None and stream.value is True
    members = [(name, expected_value(name, value, found, asks)) for name, value in document]
    if asks and options is None:
        members.append(("stream_options", Pairs([("include_usage", True)])))
    cap, tokens = found["output_cap"], found["output_tokens_max"]
    if cap and puts_cap(found) and document.last(cap) is None:
        members.append((cap, tokens))
    if found["messages"] and found["prefill"] and found["prefill"]["form"] == "continue":
        members += [(name, value) for name, value in CONTINUE if not values_like(document, [name])]
    return members


def puts_cap(found):
    if found["output_tokens_max"] is None or found["model"] is None:
        return False
    return not any((found[name] or "").isdecimal() for name in CAPS)


def expected_value(name, value, found, asks_usage):
    """What the upstream should see in the place of a top-level member's value."""
    if name == "model":
        return found["upstream_model"]
    if name == "stream_options" and asks_usage:
        return expected_options(value)
    tokens = found["output_tokens_max"]
    if name in CAPS and tokens is not None and (found[name] or "").isdecimal():
        return min(value, tokens)
    if name == found["output_cap"] and puts_cap(found):
        return tokens
    if name == "messages" and found["messages"] and found["prefill"]:
        message = [("role", "assistant"), ("content", found["prefill"]["text"])]
        if found["prefill"]["form"] in ("prefix", "partial"):
            message.append((found["prefill"]["form"], True))
        return [*value, Pairs(message)]
    return value


def expected_options(value):
    if value is None:
        return Pairs([("include_usage", True)])
    if not isinstance(value, Pairs):
        return value
    usage = value.last("include_usage")
    if usage is None:
        return Pairs([("include_usage", True), *value])
    if usage.value is None or usage.value is False:
        return Pairs((name, True if name == "include_usage" else old) for name, old in value)
    return value


def check_record(body, found, sent, node_takes):
    """Raises `Wrong` unless what we found in one body is right."""
    taken = parse(body)
    if found["verdict"] != "ok":
        check_refusal(body, found, taken if node_takes else None)
        return
    expect(taken, "CPython refuses it")
    expect(node_takes, "Node refuses it")
    document = taken.value
    expect(isinstance(document, Pairs), "it is no object")
    expect(depth_of(document) <= DEPTH_MAX, "it nests too deeply")
    expect(not has_duplicates(document), "a routed key occurs twice")
    check_facts(document, found)
    expect(len(sent) == len(body) + found["growth"], "the length is not the announced one")
    parsed = parse(sent)
    expect(parsed, "CPython refuses what we send")
    expected = Pairs(expected_members(document, found))
    # The text tells apart all that equality does not: 1, 1.0 and true, an object and an array.
    expect(repr(parsed.value) == repr(expected), f"what we send means {parsed.value!r}")


def read_records(path):
    """The records of a file: body, findings, what we send."""
    with open(path, "rb") as file:
        while head := file.read(4):
            texts = [file.read(struct.unpack("<I", head)[0])]
            for _ in range(2):
                texts.append(file.read(struct.unpack("<I", file.read(4))[0]))
            yield texts[0], json.loads(texts[1]), texts[2]


def check_file(path, verdicts_path):
    """Yields, for each record of a file, `None` or what is wrong with it, and the record."""
    with open(verdicts_path, "rb") as file:
        verdicts = file.read()
    records = 0
    for records, (body, found, sent) in enumerate(read_records(path), start=1):
        wrong = None
        try:
            check_record(body, found, sent, verdicts[records - 1 : records] == b"1")
        except Wrong as error:
            wrong = str(error)
        yield wrong, (body, found, sent)
    if records != len(verdicts):
        raise SystemExit(f"Node checked {len(verdicts)} bodies of {records}")
