"""Routes of several targets, and one call over them as the caller, the providers and the record saw it."""

import dataclasses
import json
import time

from harness.gateway import chat

PATH = "/v1/chat/completions"


def target(provider, model, **settings):
    """A target of a route, as its table says it."""
    return {"provider": provider, "model": model, **settings}


def table(settings):
    """The lines of a table; JSON's numbers, strings and booleans are TOML's too."""
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items())


def provider_text(name, base_url, **settings):
    """A provider's table; `deadlines` and `quirks` are tables in it."""
    inner = {key: settings.pop(key) for key in ("deadlines", "quirks", "probe") if key in settings}
    text = f"[providers.{name}]\n" + table({"base_url": base_url, "credential_file": "credential"} | settings)
    return text + "".join(f"[providers.{name}.{key}]\n{table(value)}" for key, value in inner.items())


def price_text(provider, model, input_price, output_price):
    """A model with a price, USD for a million tokens."""
    prices = {"id": model, "created": 1_750_000_000, "input": str(input_price), "output": str(output_price)}
    return f"[[providers.{provider}.models]]\n{table(prices)}"


def route_text(name, targets, deadlines=None, hedge=None, **settings):
    """A route's table. Its models get the route's name as a tag, so that the log tells whose requests they were."""
    text = "[[routes]]\n" + table({"model": name} | settings)
    text += f"[routes.deadlines]\n{table(deadlines)}" if deadlines else ""
    text += f"[routes.hedge]\n{table(hedge)}" if hedge else ""
    for one in targets:
        text += "[[routes.targets]]\n" + table(one | {"model": tagged(one["model"], name)})
    return text


def tagged(model, name):
    return f"{model}+tag-{name}"


def is_tagged(seen, name):
    return (seen["model"] or "").endswith(f"+tag-{name}")


def text_of(body):
    """What a chat answer says, streamed or not, as far as it came whole."""
    if not body.lstrip().startswith((b"data:", b":", b"event:", b"\xef\xbb\xbf")):
        return json.loads(body)["choices"][0]["message"]["content"]
    text = ""
    for chunk in chunks_of(body):
        for choice in chunk.get("choices", []):
            text += choice.get("delta", {}).get("content") or ""
    return text


def payloads_of(body):
    """The data of every event of a stream, in order."""
    lines = body.decode().removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return [line.removeprefix("data:").removeprefix(" ") for line in lines if line.startswith("data:")]


def chunks_of(body):
    return [json.loads(one) for one in payloads_of(body) if one != "[DONE]"]


def error_of(body):
    """The error that a body is, or that a stream ends with; `None` where there is none."""
    found = json.loads(body) if body.startswith(b"{") else (chunks_of(body) or [{}])[-1]
    return found.get("error")


@dataclasses.dataclass
class Tried:
    """An attempt as the record tells it."""

    provider: str
    result: str
    status: int | None
    why: str | None = None
    output: int = 0

    def __eq__(self, other):
        return (self.provider, self.result, self.status) == other


@dataclasses.dataclass
class Played:
    """A call that is over."""

    answer: object
    seconds: float
    record: dict
    # What the providers saw of it, in order.
    seen: list

    @property
    def text(self):
        return text_of(self.answer.body)

    @property
    def error(self):
        return error_of(self.answer.body)

    @property
    def reason(self):
        return (self.error or {}).get("metadata", {}).get("reason")

    @property
    def ends_well(self):
        """Whether a stream came to its proper end."""
        return self.answer.complete and payloads_of(self.answer.body)[-1:] == ["[DONE]"]

    @property
    def attempts(self):
        """Every attempt in the record."""
        return [
            Tried(one["target"].split("/")[0], one["result"], one["status"], one.get("why"), one.get("output_tokens", 0))
            for one in json.loads(self.record["attempts"])
        ]

    @property
    def tried(self):
        """The attempts, without the silent ones on pooled connections that had been closed."""
        return [one for one in self.attempts if one.result != "stale_connection"]

    @property
    def told(self):
        """The attempts as `x-tokenroute-attempts` tells them; `None` without that header."""
        header = self.answer.header("x-tokenroute-attempts")
        if header is None:
            return None
        parts = [(one.strip().split(";") + [""])[:3] for one in header.split(",")]
        return [(name.split("/")[0], result, int(status) if status.isdigit() else None) for name, result, status in parts]

    def gaps(self):
        """Seconds between the requests that the providers saw."""
        times = [one["at_us"] / 1e6 for one in self.seen]
        return [after - before for before, after in zip(times, times[1:], strict=False)]

    def body(self, provider, index):
        """The body of a request that a provider saw."""
        return json.loads(provider.body(self.seen[index]))


def play(gateway, provider, name, text="Hello there", **more):
    """One call to the route `name`, and what there is to know of it."""
    before = {one["id"] for one in provider.observed()}
    began = time.monotonic()
    answer = gateway.ask(chat(name, text, **more))
    seconds = time.monotonic() - began
    record = gateway.record(answer.header("x-request-id"))
    seen = [one for one in provider.observed() if is_tagged(one, name) and one["id"] not in before]
    played = Played(answer, seconds, record, sorted(seen, key=lambda one: one["at_us"]))
    check(played)
    return played


def check(played):
    """What holds for every call, whatever became of it."""
    answer, record, attempts = played.answer, played.record, played.attempts
    assert answer.status == record["status"], (answer.status, record)
    # A failure at a provider's door is never told as one at ours.
    assert answer.status not in (401, 403)
    good = record["outcome"] == "answered"
    # What is presented as whole is whole, and what is not is not.
    streamed = (answer.header("content-type") or "").startswith("text/event-stream")
    if answer.status == 200:
        assert good == (answer.complete and not (streamed and played.error)), (record["outcome"], answer.body[-300:])
        assert not (streamed and not good and b"[DONE]" in answer.body)
    else:
        assert not good and played.error["message"]
    # The head tells of what was tried before it; what breaks after it was still good then.
    before = [one for one in attempts if one.why != "continue" and one.result != "stale_connection"]
    if before and (len(before) > 1 or answer.status != 200):
        assert played.told and len(played.told) == len(before), (played.told, attempts)
        for told, one in zip(played.told, before, strict=True):
            assert told == one or told == (one.provider, "ok", 200), (played.told, attempts)
    # The provider's own signs of identity stay with us.
    for name in ("set-cookie", "openai-organization", "server"):
        assert answer.header(name) is None or "box" not in answer.header(name)
