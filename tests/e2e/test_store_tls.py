"""Stores that are spoken to by TLS alone: with the certificate that was agreed on, and with no other."""

import pytest

from harness import books
from harness.edge import Edge, priced
from harness.gateway import INPUT_PRICE, OUTPUT_PRICE, chat
from harness.postgres import Postgres
from harness.redis import Redis
from harness.tls import make_certificate
from harness.waiting import until

MODEL = "echo+tag-tls"
MODELS = priced(MODEL, input=INPUT_PRICE, output=OUTPUT_PRICE)
PASSWORD = "store-password-canary-2f9c"


@pytest.fixture
def certificate(folder):
    return make_certificate(folder)


@pytest.fixture
def stores(folder, certificate):
    """PostgreSQL and Redis that take nothing without TLS."""
    running = Postgres(folder, certificate=certificate), Redis(folder, durable=True, certificate=certificate)
    yield running
    running[0].stop()
    running[1].process.stop()


@pytest.fixture
def stranger(folder):
    """The authority of somebody else."""
    (folder / "stranger").mkdir()
    return make_certificate(folder / "stranger")[0]


def test_money_goes_over_tls(fleet, truth, stores, certificate):
    box, _ = truth
    postgres, redis = stores
    nodes = fleet(provider=box, edges=2, postgres=postgres, redis=redis, models=MODELS, authorities=certificate[0])
    books.open_account(nodes.first, "payer", "1.00")
    key, identity = books.open_key(nodes.first, "payer")
    for edge in nodes.edges:
        until(lambda edge=edge: edge.ask(chat(f"box/{MODEL}"), key=key).status == 200, "it is paid")
        assert edge.metric("tokenroute_redis_connected") == 1
    # It was heard of by Redis: subscriptions go over TLS, too.
    books.run(nodes.first, "keys", "revoke", identity)
    until(lambda: all(edge.ask(chat(f"box/{MODEL}"), key=key).status == 401 for edge in nodes.edges), "it is revoked")
    heard = sum(edge.metric("tokenroute_key_lookups_total", event="revocation_heard") for edge in nodes.edges)
    assert heard >= 1
    until(lambda: not books.reconcile(nodes.control), "reconciling finds nothing")


def edge_with(folder, provider, database, redis, authorities):
    return Edge(folder / "edge", provider, database=database, redis=redis, authorities=authorities)


def test_a_database_of_somebody_else_is_not_believed(folder, provider, stores, certificate, stranger):
    postgres, _ = stores
    url = postgres.create()
    for address, authorities in [
        (url, stranger),
        # The certificate is for localhost alone.
        (url.replace("localhost", "127.0.0.1"), certificate[0]),
        (f"{url}?sslmode=disable", stranger),
        (f"{url}?sslmode=verify-full", None),
    ]:
        address = address.replace("@", f":{PASSWORD}@")
        ran = edge_with(folder, provider, address, None, authorities).command("migrate")
        assert ran.returncode == 2, (address, ran.stdout, ran.stderr)
        assert PASSWORD not in ran.stdout + ran.stderr
    assert edge_with(folder, provider, url, None, certificate[0]).command("migrate").returncode == 0


def test_a_redis_of_somebody_else_is_not_believed(folder, provider, stores, stranger):
    _, redis = stores
    edge = edge_with(folder, provider, None, redis, stranger)
    edge.start()
    try:
        assert edge.ask(chat("box/echo")).status == 200
        until(lambda: "no Redis" in edge.process.log(), "it says so")
        assert edge.metric("tokenroute_redis_connected") == 0
    finally:
        edge.stop()


def test_a_file_that_vouches_for_nobody_is_refused(folder, provider, stores):
    _, redis = stores
    (folder / "empty.pem").write_text("")
    for authorities in (folder / "empty.pem", folder / "none.pem"):
        edge = edge_with(folder, provider, None, redis, authorities)
        ran = edge.command("keys", "list")
        assert ran.returncode == 1 and "redis.ca_file" in ran.stderr, ran.stderr


def test_authorities_without_tls_are_refused(folder, provider, redis, certificate):
    ran = edge_with(folder, provider, None, redis, certificate[0]).command("keys", "list")
    assert ran.returncode == 1 and "redis.ca_file" in ran.stderr and "rediss://" in ran.stderr, ran.stderr
