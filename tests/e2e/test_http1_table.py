"""The table of requests in HTTP/1, byte for byte: what each is answered, whom it reaches, and whether its connection
lives on. `http1_cases` has the cases."""

import json
import select
import socket

import pytest

from harness import raw
from http1_cases import KEY, fields, framing, get, targets

CASES = [*framing.CASES, *targets.CASES, *fields.CASES]
# One in so many is sent byte by byte as well.
SAMPLE = 4


def named(cases):
    return [pytest.param(case, id=case.name) for case in cases]


def filled(data, gateway):
    return data.replace(KEY, gateway.key.encode())


def is_closed(connection):
    """Whether the other side closes it, with or without courtesy."""
    try:
        return connection.socket.recv(1) == b""
    except ConnectionResetError:
        return True


def read(connection, case):
    return connection.read_head() if case.is_head else connection.read_answer()


def check(case, answer, reasons):
    """Holds an answer against the case."""
    assert answer.status == case.status, answer.body
    if case.reason is None or case.is_head:
        return
    error = json.loads(answer.body)["error"]
    assert set(error) == {"message", "type", "code", "param", "metadata"} and error["message"]
    assert error["code"] == case.status
    assert error["metadata"]["reason"] in reasons
    assert answer.header("x-request-id") and answer.header("content-type") == "application/json"


def test_there_are_enough_cases():
    assert len(CASES) >= 120
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", named(CASES))
def test_case(shared, provider, case):
    provider.forget()
    with raw.Connection(shared.address) as connection:
        connection.send(filled(case.data, shared))
        answer = read(connection, case)
        check(case, answer, {case.reason})
        assert bool(provider.observed()) == case.reaches
        if case.kept:
            connection.send(filled(get(), shared))
            assert connection.read_answer().status == 200
        else:
            # Who sends more than one request has not read yet whether there can be another.
            assert answer.header("connection") == "close" or not case.reason
            assert is_closed(connection)
    if case.reason:
        record = shared.record(answer.header("x-request-id"))
        assert (record["outcome"], record["error"], record["status"]) == ("refused", case.reason, case.status)


@pytest.mark.parametrize("case", named(CASES[::SAMPLE]))
def test_byte_by_byte(shared, provider, case):
    """How the bytes arrive changes nothing, but that less is known when there is enough to refuse."""
    provider.forget()
    with raw.Connection(shared.address) as connection:
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in filled(case.data, shared):
            try:
                connection.send(bytes([byte]))
            except (BrokenPipeError, ConnectionResetError):
                break
            # Whoever sends on after an answer may lose it.
            if select.select([connection.socket], [], [], 0)[0]:
                break
        check(case, read(connection, case), {case.reason, case.piecewise})
    assert bool(provider.observed()) == case.reaches
