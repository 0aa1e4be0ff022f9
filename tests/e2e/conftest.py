"""Fixtures: each test process has one provider and one gateway for tests that only call them, and
tests that stop, break or reload something start their own."""

import shutil

import pytest

from harness import ports
from harness.edge import Fleet
from harness.gateway import CREDENTIAL, Gateway
from harness.postgres import Postgres
from harness.provider import Provider
from harness.redis import Redis


@pytest.fixture(scope="session")
def provider(tmp_path_factory):
    """The provider in a box, for everybody. It refuses whoever does not present its credential."""
    folder = tmp_path_factory.mktemp("provider")
    running = Provider(folder, ports.free(), key=CREDENTIAL)
    yield running
    running.process.stop()


@pytest.fixture(scope="session")
def shared(tmp_path_factory, provider):
    """A gateway for tests that leave it as it is."""
    folder = tmp_path_factory.mktemp("gateway")
    running = Gateway(folder, provider, routes=routes(provider)).start()
    yield running
    running.stop()
    assert "panicked" not in running.process.log()


def routes(provider):
    """Routes beside `box/*`: an alias, and providers that do not do."""
    return f"""
[[routes]]
model = "acme-fast"
targets = [{{ provider = "box", model = "echo" }}]

[providers.early]
base_url = "{provider.base_url("early-429")}"
credential_file = "credential"
[[routes]]
model = "early"
targets = [{{ provider = "early", model = "echo" }}]

[providers.stranger]
base_url = "{provider.base_url()}"
[[routes]]
model = "stranger"
targets = [{{ provider = "stranger", model = "echo" }}]

[providers.nobody]
base_url = "http://127.0.0.1:{ports.free()}/v1"
[[routes]]
model = "nobody"
targets = [{{ provider = "nobody", model = "echo" }}]

[providers.plain]
base_url = "{provider.base_url()}"
credential_file = "credential"
quirks = {{ stream_options = false }}
[[routes]]
model = "plain/*"
targets = [{{ provider = "plain", model = "*" }}]
"""


@pytest.fixture
def folder(tmp_path):
    """A folder of the test's own, gone when it has passed."""
    yield tmp_path
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.fixture
def start(folder, provider):
    """Starts gateways of the test's own and stops them at its end."""
    running = []

    def one(name="edge", **parts):
        parts = {"provider": provider} | parts
        gateway = Gateway(folder / name, name=name, **parts)
        running.append(gateway)
        return gateway.start()

    yield one
    for gateway in running:
        gateway.stop()
        assert "panicked" not in gateway.process.log()


@pytest.fixture(scope="module")
def start_in():
    """Starts gateways for the tests of a module and stops them after the last."""
    running = []

    def one(folder, **parts):
        gateway = Gateway(folder, **parts)
        running.append(gateway)
        return gateway.start()

    yield one
    for gateway in running:
        gateway.stop()
        assert "panicked" not in gateway.process.log()


@pytest.fixture
def redis(folder):
    """A Redis of the test's own."""
    running = Redis(folder)
    yield running
    running.process.stop()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory):
    """The PostgreSQL of the test process, for tests that leave it running."""
    running = Postgres(tmp_path_factory.mktemp("postgres"))
    yield running
    running.stop()


@pytest.fixture
def own_postgres(folder):
    """A PostgreSQL of the test's own, to be broken."""
    running = Postgres(folder)
    yield running
    running.stop()


@pytest.fixture
def durable_redis(folder):
    """A Redis of the test's own that keeps what it was told."""
    running = Redis(folder, durable=True)
    yield running
    running.process.stop()


@pytest.fixture
def truth(folder):
    """A provider of the test's own that writes down what it serves, and the file."""
    path = folder / "truth.jsonl"
    running = Provider(folder, ports.free(), key=CREDENTIAL, truth=path)
    yield running, path
    running.process.stop()


@pytest.fixture
def fleet(folder, provider):
    """Starts nodes that share books, and stops them at the test's end."""
    running = []

    def start(**parts):
        parts = {"provider": provider} | parts
        running.append(Fleet(folder / f"fleet-{len(running)}", **parts))
        return running[-1].start()

    yield start
    for one in running:
        one.stop()
