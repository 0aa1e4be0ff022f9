"""A changed configuration takes effect whole and at once, or not at all, and no call notices."""

import collections
import signal
import threading

import pytest

from harness.gateway import chat
from harness.waiting import until

RELOADS = 100
FAILURES = "tokenroute_config_reload_failures_total"


def alias(number):
    """A route that tells the generations apart: its target is a model of that many words."""
    return f'[[routes]]\nmodel = "alias"\ntargets = [{{ provider = "box", model = "words-{number}" }}]'


# How many calls one round is, where it is more than one.
CALLS = {"through_the_sdk": 10}


class Load:
    """Steady calls and streams, each of which must succeed. Calls of `alias` say which table they met."""

    def __init__(self, gateway):
        self.gateway, self.failures, self.words = gateway, [], set()
        self._counted = collections.Counter()
        self._stop = threading.Event()
        work = [self.short, self.short, self.streamed, self.through_the_sdk]
        self._threads = [threading.Thread(target=self._repeat, args=[one]) for one in work]

    def _repeat(self, work):
        while not self._stop.is_set():
            try:
                work()
                # Each thread has an entry of its own, since adding is not atomic.
                self._counted[threading.get_ident()] += CALLS.get(work.__name__, 1)
            except Exception as failure:
                self.failures.append(repr(failure))

    @property
    def calls(self):
        return sum(self._counted.values())

    def short(self):
        answer = self.gateway.ask(chat("alias"))
        assert answer.status == 200, answer.body
        self.words.add(answer.body.count(b"word"))

    def streamed(self):
        answer = self.gateway.ask(chat("box/sse-40x10ms", stream=True))
        assert answer.complete and answer.body.endswith(b"data: [DONE]\n\n")

    def through_the_sdk(self):
        client = self.gateway.client()
        for _ in range(CALLS["through_the_sdk"]):
            assert client.chat.completions.create(model="alias", messages=[{"role": "user", "content": "x"}]).choices

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in self._threads)


def test_a_hundred_reloads_under_load(start):
    gateway = start(routes=alias(1))
    with Load(gateway) as load:
        until(lambda: load.calls > 20, "calls go through")
        for number in range(RELOADS):
            reloads = gateway.metric("tokenroute_config_reloads_total")
            gateway.write_config(gateway.config_text(routes=alias(2 + number % 7)))
            # Half of them are told, the others are noticed.
            if number % 2:
                gateway.process.send(signal.SIGHUP)
            until(lambda: gateway.metric("tokenroute_config_reloads_total") > reloads, "it is reloaded", 5)
        until(lambda: len(load.words) > 3, "several tables have been met")
    assert load.failures == []
    assert load.calls > 100
    assert gateway.metric(FAILURES) == 0
    assert gateway.metric("tokenroute_generation") > RELOADS
    assert {record["outcome"] for record in gateway.await_records(load.calls)} == {"answered"}


BROKEN = {
    "cut": lambda text: text[: len(text) // 2] + "[[",
    "empty-target": lambda text: text.replace('model = "*"', 'model = ""'),
    "dangling": lambda text: text + '\n[[routes]]\nmodel = "x"\ntargets = [{ provider = "gone", model = "y" }]\n',
    "twice": lambda text: text + alias(1) + "\n" + alias(2),
    "unknown-field": lambda text: text.replace("[admin]", "[admin]\ncolour = 1"),
    "credential": lambda text: text.replace('"credential"', '"nowhere"'),
    "binary": lambda text: "\x00\x01",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_configuration_keeps_the_old_table(start, name):
    gateway = start(routes=alias(3))
    gateway.write_config(BROKEN[name](gateway.config_text(routes=alias(9))))
    until(lambda: gateway.metric(FAILURES) == 1, "the reload is refused")
    assert "the configuration was refused" in gateway.process.log()
    assert gateway.metric("tokenroute_generation") == 1
    answer = gateway.ask(chat("alias"))
    assert answer.status == 200 and answer.body.count(b"word") - answer.body.count(b"words") == 3
    # A sound one is taken after that.
    gateway.write_config(gateway.config_text(routes=alias(5)))
    until(lambda: gateway.metric("tokenroute_generation") == 2, "it is reloaded")
    answer = gateway.ask(chat("alias"))
    assert answer.body.count(b"word") - answer.body.count(b"words") == 5


def test_a_configuration_that_is_gone_keeps_the_old_table(start):
    gateway = start(routes=alias(3))
    gateway.config.unlink()
    until(lambda: gateway.metric(FAILURES) >= 1, "the reload is refused")
    assert gateway.ask(chat("alias")).status == 200


def test_a_call_keeps_its_table(start, provider):
    """A stream that is open when its route and its provider disappear goes on to its end."""
    gateway = start(routes=f"""
[providers.passing]
base_url = "{provider.base_url()}"
credential_file = "credential"
[[routes]]
model = "passing"
targets = [{{ provider = "passing", model = "sse-100x20ms" }}]
""")
    client = gateway.client()
    messages = [{"role": "user", "content": "x"}]
    stream = client.chat.completions.create(model="passing", messages=messages, stream=True)
    first = next(stream)
    gateway.write_config(gateway.config_text(routes=""))
    until(lambda: gateway.metric("tokenroute_generation") == 2, "it is reloaded")
    assert gateway.ask(chat("passing")).status == 404
    chunks = [first, *stream]
    assert chunks[-1].choices[0].finish_reason == "stop" and len(chunks) == 102
    record = gateway.record(stream.response.headers["x-request-id"])
    assert (record["outcome"], record["target"]) == ("answered", "passing/sse-100x20ms")


def test_a_new_credential_needs_no_restart(start, provider):
    gateway = start()
    (gateway.folder / "credential").write_text("another-key\n")
    until(lambda: gateway.ask(chat("box/echo")).status == 502, "the new credential is used")
    (gateway.folder / "credential").write_text(provider.key + "\n")
    until(lambda: gateway.ask(chat("box/echo")).status == 200, "the right one is used again")


def test_a_link_that_is_turned_is_noticed(start):
    """The way in which an orchestrator swaps a mounted configuration."""
    gateway = start(routes=alias(3))
    for name, number in [("one", 4), ("two", 5)]:
        folder = gateway.folder / name
        folder.mkdir()
        (folder / "tokenroute.toml").write_text(gateway.config_text(routes=alias(number)))
        (folder / "credential").write_text(gateway.provider.key)
    link = gateway.folder / "current"
    link.symlink_to("one")
    gateway.stop()
    gateway.config = link / "tokenroute.toml"
    gateway.start()
    assert gateway.ask(chat("alias")).body.count(b" word3") == 1
    (gateway.folder / "next").symlink_to("two")
    (gateway.folder / "next").replace(link)
    until(lambda: gateway.ask(chat("alias")).body.count(b" word4") == 1, "the other folder is read")


def test_what_needs_a_restart_says_so(start):
    gateway = start()
    gateway.write_config(gateway.config_text().replace("threads = 2", "threads = 1"))
    until(lambda: gateway.metric("tokenroute_generation") == 2, "it is reloaded")
    assert "only at the next start" in gateway.process.log()
