"""Connections to providers in HTTP/2: with TLS and without, one object or a stream, and callers who leave."""

import h2.errors
import pytest

from harness import ports, raw
from harness.gateway import CREDENTIAL, Gateway, chat
from harness.http2_provider import Http2Provider
from harness.provider import Provider
from harness.routes import provider_text, route_text, target, text_of
from harness.tls import Front, make_certificate
from harness.waiting import until

CALLS = 20


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    running = Provider(tmp_path_factory.mktemp("own"), ports.free(), name="own", key=CREDENTIAL)
    yield running
    running.process.stop()


@pytest.fixture
def http2():
    running = Http2Provider()
    yield running
    running.close()


@pytest.fixture
def behind_tls(folder, own):
    """Starts a gateway that trusts a provider behind TLS, which speaks what it is told to."""
    running = []

    def one(behind):
        certificate = make_certificate(folder)
        front = Front(certificate, behind)
        running.append(front.close)
        gateway = Gateway(folder / "edge", own, routes="\n".join([
            provider_text("h", front.base_url, http2=True),
            *(route_text(name, [target("h", name)]) for name in ("words-30", "json-30")),
        ]))
        gateway.environment["SSL_CERT_FILE"] = str(certificate[0])
        running.append(gateway.stop)
        return gateway.start(), front

    yield one
    for end in reversed(running):
        end()


def streams_well(gateway):
    answer = gateway.ask(chat("words-30", stream=True))
    return answer.status == 200 and answer.complete and text_of(answer.body).count("word") == 30


def test_http2_is_agreed_on_with_tls(behind_tls, own, http2):
    gateway, front = behind_tls({"h2": http2.listener.getsockname()[1], "http/1.1": own.port})
    assert all(streams_well(gateway) for _ in range(CALLS))
    assert front.chosen == ["h2"]
    assert len(http2.requests) == CALLS and http2.connections == 1


def test_a_provider_that_has_only_http1_is_spoken_to_in_that(behind_tls, own):
    gateway, front = behind_tls({"http/1.1": own.port})
    own.forget()
    assert all(streams_well(gateway) for _ in range(CALLS))
    assert set(front.chosen) == {"http/1.1"}
    # Its connections are kept, and carry one call at a time.
    assert len(own.observed()) == CALLS and len({one["connection"] for one in own.observed()}) <= 2


def test_a_provider_that_learns_http2_is_spoken_to_in_that(behind_tls, own, http2):
    gateway, front = behind_tls({"http/1.1": own.port})
    assert streams_well(gateway)
    front.learn("h2", http2.listener.getsockname()[1])
    until(lambda: streams_well(gateway) and http2.requests, "HTTP/2 is agreed on")
    assert all(streams_well(gateway) for _ in range(CALLS))
    assert front.chosen[-1] == "h2" and http2.connections == 1


@pytest.fixture
def plain(start, own, http2):
    names = ("words-30", "json-30", "flood-4000000")
    return start(provider=own, routes="\n".join([
        provider_text("h", http2.base_url, http2=True), *(route_text(name, [target("h", name)]) for name in names),
    ]))


def test_an_answer_in_one_object(plain, http2):
    answer = plain.ask(chat("json-30"))
    assert (answer.status, answer.complete) == (200, True)
    assert answer.header("content-length") == str(len(answer.body))
    assert text_of(answer.body).count("word") == 30
    record = plain.record(answer.header("x-request-id"))
    assert (record["outcome"], record["output"]) == ("answered", 30)


def test_a_long_prompt_arrives(plain, http2):
    """Longer than any window, and than what is read before the target is asked."""
    answer = plain.ask(chat("json-30", "word " * 600_000))
    assert (answer.status, answer.complete) == (200, True)
    assert len(http2.requests) == 1


def test_who_leaves_is_cancelled_and_nobody_else(plain, http2):
    assert streams_well(plain)
    staying = raw.Connection(plain.address)
    staying.send(plain.request(chat("flood-4000000", stream=True)))
    assert staying.read_head().status == 200
    leaving = raw.Connection(plain.address)
    leaving.send(plain.request(chat("flood-4000000", stream=True)))
    assert leaving.read_head().status == 200
    leaving.close()
    model, code = until(lambda: http2.cancelled, "the stream is reset")[0]
    assert model.startswith("flood") and code == h2.errors.ErrorCodes.CANCEL
    parts = []
    while part := staying.read_chunk():
        parts.append(part)
    staying.close()
    assert b"".join(parts).count(b"x" * 8_000) == 500
    assert streams_well(plain)
    assert len(http2.cancelled) == 1 and http2.connections == 1
    outcomes = sorted(one["outcome"] for one in plain.await_records(4))
    assert outcomes == ["answered", "answered", "answered", "client_gone"]
