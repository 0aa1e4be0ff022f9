"""Versions of HTTP and TLS, the limits of a request's head, and who is answered before what."""

import json
import socket
import ssl
import subprocess

import httpx2
import pytest

from harness import raw
from harness.gateway import chat
from harness.waiting import until

ENDPOINTS = ["/v1/chat/completions", "/v1/completions", "/v1/embeddings"]


def make_certificate(folder, name):
    """A certificate for the loopback address, made by openssl, over what was there."""
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
               "-days", "2", "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1",
               "-keyout", str(folder / "new.key"), "-out", str(folder / "new.pem")]
    subprocess.run(command, check=True, capture_output=True)
    (folder / "new.key").replace(folder / "edge.key")
    (folder / "new.pem").replace(folder / "edge.pem")


def ask_all_ways(client, gateway, version):
    """A call, a stream, a refusal and a list by one client."""
    headers = {"authorization": f"Bearer {gateway.key}"}
    answer = client.post(f"{gateway.base_url}/chat/completions", json=chat("box/echo"), headers=headers)
    assert (answer.status_code, answer.http_version) == (200, version)
    assert answer.json()["choices"][0]["message"]["content"] == "Hello there"
    assert gateway.record(answer.headers["x-request-id"])["output"] == 2
    streamed = chat("box/sse-20x5ms", stream=True)
    with client.stream("POST", f"{gateway.base_url}/chat/completions", json=streamed, headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        text = b"".join(answer.iter_raw())
    assert text.count(b"data: ") == 23 and text.endswith(b"data: [DONE]\n\n")
    refused = client.post(f"{gateway.base_url}/chat/completions", json=chat("box/echo"))
    assert refused.status_code == 401 and refused.headers["x-request-id"]
    assert client.get(f"{gateway.base_url}/models", headers=headers).json()["object"] == "list"
    long = chat("box/echo", "x" * (3 << 20))
    assert client.post(f"{gateway.base_url}/chat/completions", json=long, headers=headers).status_code == 200


def test_http_1_1(shared):
    with httpx2.Client() as client:
        ask_all_ways(client, shared, "HTTP/1.1")


def test_http_2_without_tls(start):
    gateway = start(listen="h2c = true")
    with httpx2.Client(http1=False, http2=True) as client:
        ask_all_ways(client, gateway, "HTTP/2")
    # The same port still speaks HTTP/1.1.
    with httpx2.Client() as client:
        ask_all_ways(client, gateway, "HTTP/1.1")


def test_a_cut_stream_over_http_2(start):
    gateway = start(listen="h2c = true")
    headers = {"authorization": f"Bearer {gateway.key}"}
    with httpx2.Client(http1=False, http2=True) as client:
        parts = []
        with pytest.raises(httpx2.RemoteProtocolError):
            body = chat("box/words-9+cut-after-4", stream=True)
            with client.stream("POST", f"{gateway.base_url}/chat/completions", json=body, headers=headers) as answer:
                parts.extend(iter(answer.iter_raw()))
        text = b"".join(parts)
        assert b'"reason":"upstream_cut"' in text and b"[DONE]" not in text
        # Its siblings on the connection live on.
        assert client.get(f"{gateway.base_url}/models", headers=headers).status_code == 200


@pytest.fixture
def tls(start, folder):
    """A gateway with a certificate of its own."""
    make_certificate(folder, "first")
    listen = f'[listen.tls]\ncertificate = "{folder}/edge.pem"\nkey = "{folder}/edge.key"'
    return start(listen=listen)


def peer_name(gateway, folder, protocols):
    """The common name of its certificate, and the protocol agreed on."""
    context = ssl.create_default_context(cafile=folder / "edge.pem")
    context.set_alpn_protocols(protocols)
    with raw.Connection(gateway.address) as connection:
        with context.wrap_socket(connection.socket, server_hostname="127.0.0.1") as wrapped:
            subject = dict(pair[0] for pair in wrapped.getpeercert()["subject"])
            return subject["commonName"], wrapped.selected_alpn_protocol()


def test_tls(tls, folder):
    trusted = ssl.create_default_context(cafile=folder / "edge.pem")
    with httpx2.Client(verify=trusted) as client:
        ask_all_ways(client, tls, "HTTP/1.1")
    with httpx2.Client(verify=trusted, http2=True) as client:
        ask_all_ways(client, tls, "HTTP/2")
    assert peer_name(tls, folder, ["http/1.1"]) == ("first", "http/1.1")
    assert peer_name(tls, folder, ["h2", "http/1.1"]) == ("first", "h2")


def test_a_new_certificate_needs_no_restart(tls, folder):
    trusted = ssl.create_default_context(cafile=folder / "edge.pem")
    with httpx2.Client(verify=trusted) as client:
        headers = {"authorization": f"Bearer {tls.key}"}
        body = chat("box/sse-100x20ms", stream=True)
        with client.stream("POST", f"{tls.base_url}/chat/completions", json=body, headers=headers) as answer:
            parts = answer.iter_raw()
            first = next(parts)
            make_certificate(folder, "second")

            def is_second():
                try:
                    return peer_name(tls, folder, ["http/1.1"])[0] == "second"
                except ssl.SSLCertVerificationError:
                    return False

            until(is_second, "the second certificate is presented")
            # The connection that was open before goes on.
            assert (first + b"".join(parts)).endswith(b"data: [DONE]\n\n")


def test_a_broken_certificate_leaves_the_old_one(tls, folder):
    (folder / "edge.key").write_text("no key")
    until(lambda: tls.metric("tokenroute_config_reload_failures_total") >= 1, "the reload is refused")
    assert peer_name(tls, folder, ["http/1.1"])[0] == "first"


# Who is answered before the body is read.


@pytest.mark.parametrize("path", ENDPOINTS)
@pytest.mark.parametrize("fields", [
    [],
    [("authorization", "Bearer sk-tr-" + "b" * 49)],
    [("authorization", "Basic c2s6dHI=")],
])
def test_a_stranger_is_refused_before_the_body(shared, path, fields):
    with raw.Connection(shared.address) as connection:
        connection.send(raw.head("POST", path, *fields, ("content-length", 1_000_000)))
        answer = connection.read_answer()
    assert answer.status == 401 and answer.header("x-request-id")
    assert json.loads(answer.body)["error"]["code"] == 401


def test_a_stranger_is_not_told_to_continue(shared):
    with raw.Connection(shared.address) as connection:
        fields = [("content-length", 1_000_000), ("expect", "100-continue")]
        connection.send(raw.head("POST", ENDPOINTS[0], *fields))
        assert connection.read_head().status == 401


def test_a_known_caller_is_told_to_continue(shared):
    body = json.dumps(chat("box/echo")).encode()
    with raw.Connection(shared.address) as connection:
        connection.send(shared.head(ENDPOINTS[0], ("content-length", len(body)), ("expect", "100-continue")))
        assert connection.read_head().status == 100
        connection.send(body)
        assert connection.read_answer().status == 200


def test_two_keys_are_ambiguous(shared):
    request = shared.head(ENDPOINTS[0], ("authorization", "Bearer other"), ("content-length", 2)) + b"{}"
    answer = raw.exchange(shared.address, request)
    assert (answer.status, json.loads(answer.body)["error"]["metadata"]["reason"]) == (400, "key_ambiguous")


# The limits of a head, and paths that lead nowhere.


@pytest.mark.parametrize(("path", "method", "status"), [
    ("/", "GET", 404),
    ("/v1", "GET", 404),
    ("/v1/chat/completions/", "POST", 404),
    ("/v1/CHAT/completions", "POST", 404),
    ("/v1/chat/completions", "GET", 405),
    ("/v1/models", "DELETE", 405),
    ("/healthz", "GET", 404),
    ("/readyz", "GET", 404),
    ("/metrics", "GET", 404),
    ("/v1/models/box/../echo", "GET", 400),
    ("/v1/models/none", "GET", 404),
    ("/v1/models/%zz", "GET", 400),
])
def test_paths_that_lead_nowhere(shared, path, method, status):
    answer = raw.exchange(shared.address, shared.head(path, ("content-length", 0), method=method))
    assert answer.status == status
    error = json.loads(answer.body)["error"]
    assert error["code"] == status and error["message"] and answer.header("x-request-id")


@pytest.mark.parametrize("path", ["/v1/models/box/echo", "/v1/models/box%2Fecho", "/v1/models/%62ox%2fecho"])
def test_model_names_raw_and_encoded(shared, path):
    answer = raw.exchange(shared.address, shared.head(path, method="GET"))
    assert answer.status == 200 and json.loads(answer.body)["id"] == "box/echo"


@pytest.mark.parametrize(("fields", "status"), [
    ([(f"x-field-{number}", "1") for number in range(110)], 431),
    ([("x-long", "v" * 60_000)] * 2, 431),
])
def test_a_head_that_is_too_large(shared, fields, status):
    answer = raw.exchange(shared.address, shared.head("/v1/models", *fields, method="GET"))
    assert answer.status == status


def test_a_target_that_is_too_long(shared):
    answer = raw.exchange(shared.address, shared.head("/v1/models/" + "m" * 9_000, method="GET"))
    assert answer.status == 414


def test_a_target_of_a_megabyte_is_not_read(shared):
    with raw.Connection(shared.address) as connection:
        try:
            connection.send(shared.head("/v1/models/" + "m" * 1_000_000, method="GET"))
            answer = connection.read_answer()
        except (BrokenPipeError, ConnectionResetError, EOFError):
            return
        assert answer.status in (400, 414, 431)


@pytest.mark.parametrize("fields", [
    [("content-length", 2), ("transfer-encoding", "chunked")],
    [("content-length", 2), ("content-length", 3)],
    [("content-length", "2x")],
    [("transfer-encoding", "gzip")],
    [("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
])
def test_ambiguous_framing_reaches_no_upstream(shared, provider, fields):
    seen = len(provider.observed())
    with raw.Connection(shared.address) as connection:
        connection.send(shared.head(ENDPOINTS[0], *fields) + b"2\r\n{}\r\n0\r\n\r\n")
        try:
            assert connection.read_answer().status in (400, 408, 501)
        except (EOFError, ConnectionResetError):
            pass
    assert len(provider.observed()) == seen


def test_connection_fields_take_nothing_away(shared, provider):
    """Naming fields as hop-by-hop neither hides the key nor what the gateway adds."""
    request = shared.head(
        ENDPOINTS[0], ("connection", "authorization, x-request-id, close"), ("content-length", 80),
    )
    body = json.dumps(chat("box/echo")).encode().ljust(80)
    answer = raw.exchange(shared.address, request + body)
    assert answer.status == 200 and answer.header("x-request-id")


def test_nothing_of_the_client_reaches_the_provider(shared, provider):
    """Keys, cookies, addresses and who the client is stay here."""
    marks = {"cookie": "mark-cookie", "x-forwarded-for": "192.0.2.7", "x-api-key": "mark-key",
             "openai-organization": "mark-org", "user-agent": "mark-agent", "forwarded": "for=192.0.2.7"}
    body = json.dumps(chat("box/echo+close")).encode()
    request = shared.head(ENDPOINTS[0], *marks.items(), ("content-length", len(body))) + body
    assert raw.exchange(shared.address, request).status == 200
    seen = provider.observed(model="echo+close")[-1]
    fields = {name.lower(): value for name, value in seen["headers"]}
    assert shared.key not in json.dumps(seen)
    for name, value in marks.items():
        assert value not in fields.values(), name
    assert fields["authorization"].startswith("Bearer upstream-credential")
    assert fields["host"] == f"127.0.0.1:{provider.port}"


def test_keep_alive(shared):
    with raw.Connection(shared.address) as connection:
        for _ in range(5):
            connection.send(shared.request(chat("box/echo")))
            assert connection.read_answer().status == 200
        # Also after an error whose body was read.
        connection.send(shared.request(chat("acme/none")))
        assert connection.read_answer().status == 404
        connection.send(shared.request(chat("box/echo", stream=True)))
        assert connection.read_answer().complete
        connection.send(shared.request(chat("box/echo")))
        assert connection.read_answer().status == 200


def test_http_1_0_reads_to_the_end_of_the_connection(shared):
    for body in (chat("box/words-9", stream=True), chat("box/no-length+words-9")):
        request = shared.request(body).replace(b" HTTP/1.1", b" HTTP/1.0", 1)
        answer = raw.exchange(shared.address, request)
        assert answer.status == 200 and answer.header("transfer-encoding") is None
        assert b"word8" in answer.body


def test_a_pipelined_request_does_not_break_the_first(shared):
    """Pipelining is not served, but it harms nothing: the first answer is whole, then the connection ends."""
    for body in (chat("box/echo"), chat("box/sse-9x10ms", stream=True)):
        with raw.Connection(shared.address) as connection:
            connection.send(shared.request(body) + shared.request(chat("box/echo", "the second")))
            answer = connection.read_answer()
            assert answer.status == 200 and answer.complete
            assert b"the second" not in answer.body
        assert shared.record(answer.header("x-request-id"))["outcome"] == "answered"


def test_a_client_that_closes_its_half_has_left(start):
    gateway = start()
    with raw.Connection(gateway.address) as connection:
        connection.send(gateway.request(chat("box/sse-100x20ms", stream=True)))
        connection.socket.shutdown(socket.SHUT_WR)
        assert gateway.await_records(1)[0]["outcome"] == "client_gone"
