"""From nothing to a streamed call and back, by the real command line, the real gateway and the official SDK, whoever
says who people are."""

import json
import re
import subprocess
import sys
import urllib.parse

import pytest

from harness import issuer
from harness.cli import Cli
from harness.gateway import KEY, chat
from harness.waiting import until

# What the gateway promises between a revocation and the last call that it lets through.
REVOKED_SECONDS = 1.0
# Streams one answer, with nothing but what the environment says.
STREAM = """
from openai import OpenAI
question = [{"role": "user", "content": "Hello big world"}]
for chunk in OpenAI().chat.completions.create(model="box/echo", messages=question, stream=True):
    print(chunk.choices[0].delta.content or "", end="")
"""


@pytest.fixture
def oidc(folder):
    running = issuer.OidcProvider(folder)
    yield running
    running.stop()


@pytest.fixture
def embedded(start):
    """A gateway that says itself who people are, and how a person approves."""
    gateway = start()
    issuer.set_up(gateway)
    return gateway, lambda device, decision: issuer.decide(gateway, device, decision=decision)


@pytest.fixture
def external(start, oidc):
    """A gateway that believes an issuer."""
    gateway = start(control_more=oidc.section(scopes="openid offline_access"))
    return gateway, lambda device, decision: oidc.approve(device, approves=decision == "approve")


@pytest.fixture(params=["embedded", "external"])
def gateway(request):
    return request.getfixturevalue(request.param)


def log_in(cli, decide, decision="approve"):
    """The device flow to its end; the code is read where a person reads it."""
    running = cli.start("login")
    visit = re.fullmatch(r"Visit: (http\S+)\n", running.stdout.readline())
    assert visit, running.communicate(timeout=60)
    page = visit[1]
    code = re.fullmatch(r"And enter code: (\S+)\n", running.stdout.readline())[1]
    complete = f"{page}?{urllib.parse.urlencode({'user_code': code})}"
    decide({"user_code": code, "verification_uri_complete": complete}, decision)
    out, err = running.communicate(timeout=60)
    return running.returncode, out, err


def test_from_nothing_to_a_call_and_back(gateway, folder):
    gateway, decide = gateway
    cli = Cli(folder / "home", f"http://127.0.0.1:{gateway.control_port}")
    assert cli.run("whoami").code == 1
    assert log_in(cli, decide) == (0, "OK logged in\n", "")

    person = cli.run("whoami", json=True).json()
    assert person["balance_usd"] == "0.00" and person["status"] == "active"
    made = cli.run("keys", "create", "--name", "laptop", "--ceiling", "1.00", json=True).json()
    assert KEY.fullmatch(made["raw"]) and cli.file("last_key.txt") == made["raw"] + "\n"

    # Nothing in it yet: the call is refused, and the command line says whose turn it is.
    poor = cli.run("test", "--model", "box/echo", json=True)
    assert (poor.code, poor.error()["type"]) == (1, "insufficient_quota")
    topup = cli.run("topup", "--amount", "5", json=True)
    assert (topup.code, topup.error()["metadata"]["reason"]) == (3, "billing_not_configured")
    paid = gateway.command("credit", "add", "--account", person["id"], "--amount", "5.00", "--id", "payment-1")
    assert paid.returncode == 0, paid.stderr
    assert cli.run("balance", json=True).json() == {"balance_usd": "5.00", "currency": "USD"}

    # The official SDK, with exactly this environment.
    printed = cli.run("env").out
    environment = dict(line.split("=", 1) for line in printed.splitlines())
    assert environment == {"OPENAI_API_KEY": made["raw"], "OPENAI_BASE_URL": gateway.base_url}
    said = subprocess.run([sys.executable, "-c", STREAM], env=environment, capture_output=True, text=True, timeout=60)
    assert said.stdout == "Hello big world", said.stderr

    def used():
        usage = cli.run("usage", "--days", "1", json=True).json()
        return usage["total_requests"] == 1 and usage

    usage = until(used, "the call is counted")
    assert (usage["total_tokens_in"], usage["total_tokens_out"]) == (3, 3)
    assert usage["total_cost_usd"] == "0.000015"
    # The key alone reads its own part, and manages nothing.
    alone = Cli(folder / "elsewhere", cli.url, TOKENROUTE_API_KEY=made["raw"])
    assert alone.run("usage", "--days", "1", json=True).json()["total_requests"] == 1
    assert alone.run("balance").code == 0
    assert "box/echo" in [one["id"] for one in alone.run("models", json=True).json()]
    for words in (["whoami"], ["keys", "list"], ["keys", "create", "--name", "more"], ["topup", "--amount", "5"]):
        denied = alone.run(*words, json=True)
        assert (denied.code, denied.error()["code"]) == (1, 403)
    proof = alone.run("smoke", "--model", "box/echo", json=True).json()
    assert proof["failure_class"] is None and proof["model"] == "box/echo"

    assert [one["id"] for one in cli.run("keys", "list", json=True).json()] == [made["id"]]
    assert cli.run("keys", "revoke", made["id"]).code == 0
    until(lambda: gateway.ask(chat("box/echo"), key=made["raw"]).status == 401, "the key is refused", REVOKED_SECONDS)
    assert json.loads(gateway.ask(chat("box/echo"), key=made["raw"]).body)["error"]["metadata"]["reason"] == "key_unknown"
    assert cli.run("keys", "revoke", made["id"], json=True).code in (0, 1)
    assert cli.run("logout").code == 0
    assert cli.run("whoami").code == 1


def test_a_login_that_the_person_declines(gateway, folder):
    gateway, decide = gateway
    cli = Cli(folder / "home", f"http://127.0.0.1:{gateway.control_port}")
    code, out, err = log_in(cli, decide, "decline")
    assert (code, out) == (3, "") and "declined" in err
    assert cli.run("whoami").code == 1
