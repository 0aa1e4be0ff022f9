"""The management API keeps to its own document: whatever is in it, whoever asks.

Every operation falls under these tests by being in the document; there is no list of exemptions.
"""

import re

import pytest

from harness import contract, management, programs
from harness.callers import Callers, control_section
from harness.issuer import Issuer

DOCUMENT = "/openapi.json"


@pytest.fixture(scope="module")
def issuer():
    running = Issuer().start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory, provider, issuer, start_in):
    return start_in(tmp_path_factory.mktemp("api"), provider=provider, control_more=control_section(issuer))


@pytest.fixture(scope="module")
def callers(gateway, issuer):
    return Callers(gateway, issuer)


@pytest.fixture(scope="module")
def document(gateway):
    answer = management.ask(gateway, DOCUMENT)
    assert answer.status == 200
    return contract.Document(answer.body)


def test_every_route_is_in_the_document(document):
    """Routes are added with their words; what is added without, by the plain router, is looked for in the source."""
    source = programs.ROOT / "src" / "control" / "src"
    plain = {
        path for file in source.rglob("*.rs") for path in re.findall(r'\.route\(\s*"([^"]+)"', file.read_text())
    }
    assert plain <= set(document.said["paths"]), "a route without words"
    assert len(document.operations()) > 20


def test_operations_say_who_may_and_name_what_is_there(document):
    known = document.said["components"]["securitySchemes"]
    for operation in document.operations():
        assert operation.schemes - {None} <= set(known), operation
        assert "description" in operation.said or "summary" in operation.said, operation
        named = set(re.findall(r"\{(\w+)\}", operation.path))
        assert named == set(operation.named("path")), operation
        if operation.schemes - {None}:
            assert {"401", "403"} <= set(operation.said["responses"]), operation
        if operation.body_schema:
            assert document.resolve(operation.body_schema).get("additionalProperties") is False, operation
        secured = operation.path.startswith("/api/v1/") and not operation.path.startswith("/api/v1/auth/")
        assert operation.schemes or not secured, f"{operation} does not say who may"


def test_each_caller_is_let_in_where_the_document_says_so(document, callers):
    """Role by operation by field."""
    for operation in document.operations():
        for kind in callers.kinds:
            answer = callers.send(
                kind, operation.method, operation.url(), operation.headers(), operation.body(),
            )
            operation.check(answer)
            wanted = callers.expected(kind, operation.schemes)
            if wanted is None:
                assert answer.status not in (401, 403) and answer.status < 500 or answer.status == 501, (
                    f"{operation} for {kind}: {answer.status} {answer.body[:200]}"
                )
            else:
                assert answer.status == wanted, f"{operation} for {kind}: {answer.status} {answer.body[:200]}"


def identities(callers):
    """What there is of A, and what there is of nobody."""
    theirs = [callers.a.key["id"], callers.a.account, callers.a.user["id"]]
    nobody = ["key_01ARZ3NDEKTSV4RRFFQ69G5FAV", "acc_01ARZ3NDEKTSV4RRFFQ69G5FAV", "unknown", "..", "%00"]
    return theirs, nobody


def test_what_is_anothers_is_as_good_as_not_there(document, callers):
    theirs, nobody = identities(callers)
    before = callers.a.ask("/api/v1/me/keys").json()
    for operation in document.operations():
        names = operation.named("path")
        if not names or not operation.schemes & {"user", "api_key"}:
            continue
        for kind in ("person B", "key of B"):
            if callers.expected(kind, operation.schemes) is not None:
                continue
            told = set()
            for one in theirs + nobody:
                url = operation.url(dict.fromkeys(names, one))
                answer = callers.send(kind, operation.method, url, operation.headers(), operation.body())
                operation.check(answer)
                assert answer.status == 404, f"{operation} of {one} for {kind}: {answer.status}"
                told.add(answer.body)
            assert len(told) == 1, f"{operation} tells apart what is another's and what is not there: {told}"
    assert callers.a.ask("/api/v1/me/keys").json() == before


def test_what_is_below_an_account_is_that_accounts(document, callers):
    """Administrators and partners see every account; still a key of one is none of another."""
    tried = 0
    for operation in document.operations():
        names = operation.named("path")
        if len(names) < 2 or "/accounts/" not in operation.path:
            continue
        for kind in ("admin", "partner"):
            if callers.expected(kind, operation.schemes) is not None:
                continue
            tried += 1
            values = {names[0]: callers.b.account} | dict.fromkeys(names[1:], callers.a.key["id"])
            answer = callers.send(kind, operation.method, operation.url(values), operation.headers(), operation.body())
            operation.check(answer)
            assert answer.status == 404, f"{operation} for {kind}: {answer.status}"
    assert tried >= 2
    assert callers.a.ask("/api/v1/me/keys").json()["data"][0]["status"] == "active"


def someone_let_in(callers, operation):
    return next(kind for kind in callers.kinds if callers.expected(kind, operation.schemes) is None)


def test_fields_that_nobody_knows_are_refused(document, callers):
    for operation in document.operations():
        if operation.body_schema is None:
            continue
        kind = someone_let_in(callers, operation)
        for body in contract.nested_bodies(document, operation.body_schema, operation.body()):
            answer = callers.send(kind, operation.method, operation.url(), operation.headers(), body)
            operation.check(answer)
            assert answer.status in (400, 422), f"{operation} took {body}: {answer.status} {answer.body[:200]}"


def test_parameters_that_nobody_knows_are_refused(document, callers):
    for operation in document.operations():
        if not operation.named("query"):
            continue
        kind = someone_let_in(callers, operation)
        url = operation.url() + "?surprise=1"
        answer = callers.send(kind, operation.method, url, operation.headers(), operation.body())
        operation.check(answer)
        assert answer.status in (400, 404), f"{operation}: {answer.status}"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"1", b'"text"', b"\xff", b'{"name":"a","name":"b"}', b"{}" * 2])
def test_bodies_that_are_none_are_refused(document, callers, body):
    for operation in document.operations():
        if operation.body_schema is None:
            continue
        presented, _, _ = callers.kinds[someone_let_in(callers, operation)]
        headers = [*presented, *operation.headers(), ("content-type", "application/json")]
        answer = management.send(callers.gateway.control_port, operation.method, operation.url(), headers, body)
        operation.check(answer)
        assert answer.status in (400, 404, 422), f"{operation} took {body}: {answer.status}"
