"""`tokenrouted explain`: which targets answer for a model, as the node that runs sees them."""

import json

import pytest

from harness import ports
from harness.gateway import chat

# Enough calls for a target that never did any good to be left alone.
FAILURES = 5


@pytest.fixture
def gateway(start, provider):
    return start(routes=f"""
[providers.dead]
base_url = "http://127.0.0.1:{ports.free()}/v1"
[[routes]]
model = "two"
[[routes.targets]]
provider = "dead"
model = "echo"
[[routes.targets]]
provider = "box"
model = "echo"
rank = 1
""")


def explain(gateway, model, *more):
    return gateway.command("explain", "--model", model, *more)


def told(gateway, model):
    explained = explain(gateway, model, "--json")
    assert explained.returncode == 0, explained.stderr
    return json.loads(explained.stdout)


def turns(explained):
    return [turn["target"] for turn in explained["order"]]


def test_the_order_follows_how_targets_stand(gateway):
    before = told(gateway, "two")
    assert before["node"]["generation"] >= 1
    assert [target["live"]["state"] for target in before["targets"]] == ["closed", "closed"]
    assert turns(before) == ["dead/echo", "box/echo"]

    for _ in range(FAILURES):
        assert gateway.ask(chat("two")).status == 200
    dead, _ = (after := told(gateway, "two"))["targets"]
    assert dead["live"]["state"] == "open" and dead["live"]["left_ms"] > 0
    assert dead["live"]["last_failure"] == "connect" and dead["live"]["failures"] >= 1
    assert (turns(after), after["left_out"]) == (["box/echo"], ["dead/echo"])
    assert (after["order"][0]["why"], dead["share_permille"]) == ("fallback", 0)
    shown = explain(gateway, "two").stdout
    assert "open" in shown and "not dead/echo: it is off" in shown


def test_without_a_node_and_without_a_route(gateway):
    gateway.stop()
    alone = told(gateway, "box/anything")
    assert alone["route"] == "box/*" and "problem" in alone["node"]
    assert turns(alone) == ["box/anything"]
    unknown = explain(gateway, "twoo")
    assert unknown.returncode == 1 and "did you mean two?" in unknown.stderr
