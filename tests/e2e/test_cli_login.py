"""Logging in, what is kept of it, and for whom."""

import os
import pty
import subprocess

import pytest

from harness import scripted_gateway as contract
from harness.cli import Cli
from harness.scripted import Answer, Scripted, refusal
from harness.scripted_gateway import KEY, KEY_ID
from harness.waiting import until

PENDING = Answer(400, {"error": "authorization_pending"})
BALANCE = "GET /api/v1/balance"


@pytest.fixture
def start_gateway():
    running = []

    def start():
        gateway = Scripted()
        gateway.answers = contract.answers(gateway.url)
        running.append(gateway)
        return gateway

    yield start
    for gateway in running:
        gateway.stop()


@pytest.fixture
def gateway(start_gateway):
    return start_gateway()


@pytest.fixture
def cli(folder, gateway):
    return Cli(folder / "home", gateway.url)


def with_tokens(gateway, **tokens):
    gateway.answers["POST /token"] = Answer(200, contract.tokens(**tokens))


def test_login_shows_a_code_and_waits(cli, gateway):
    gateway.answers["POST /token"] = [PENDING, Answer(200, contract.tokens())]
    said = cli.run("login")
    assert (said.code, said.err) == (0, "")
    assert said.out == f"Visit: {gateway.url}/activate\nAnd enter code: WDJB-MJHT\nOK logged in\n"
    assert gateway.asked("POST /device")[0].form() == {
        "client_id": "tokenroute-cli", "scope": "openid offline_access", "resource": "https://api.example.com",
    }
    polled = gateway.asked("POST /token")
    assert len(polled) == 2 and polled[0].form() == {
        "grant_type": "urn:ietf:params:oauth:grant-type:device_code", "device_code": "device-code",
        "client_id": "tokenroute-cli", "resource": "https://api.example.com",
    }
    assert cli.run("whoami", json=True).json() == contract.ME
    assert gateway.asked("GET /api/v1/me")[0].bearer == "access-first"
    assert cli.run("logout").out == "OK logged out\n"
    assert cli.run("whoami").code == 1
    assert cli.run("logout", json=True).json()["status"] == "logged_out"
    assert "access-first" not in cli.file("credentials.json")


def test_programs_are_told_the_code_while_we_wait(cli, gateway):
    done = cli.run("login", json=True)
    assert done.json()["status"] == "logged_in"
    assert '"user_code":"WDJB-MJHT"' in done.err and done.err.count("\n") == 1


@pytest.mark.parametrize("json_mode", [False, True], ids=["human", "json"])
@pytest.mark.parametrize(("word", "status", "code"), [
    ("access_denied", 400, 3), ("expired_token", 400, 3), ("invalid_client", 401, 3),
])
def test_a_login_that_is_declined_or_late_is_3(cli, gateway, word, status, code, json_mode):
    gateway.answers["POST /token"] = Answer(status, {"error": word})
    done = cli.run("login", json=json_mode)
    assert done.code == code
    if json_mode:
        assert done.out == ""
        assert f'"reason":"{word}"' in done.err.splitlines()[-1]
    assert cli.file("credentials.json") is None


def test_a_code_that_nobody_confirms_expires(cli, gateway):
    gateway.answers["POST /device"] = Answer(200, contract.device(gateway.url, expires_in=2))
    gateway.answers["POST /token"] = PENDING
    done = cli.run("login", json=True)
    assert done.code == 3 and '"reason":"expired_token"' in done.err


@pytest.mark.parametrize(("answer", "code"), [
    (refusal(503, "unavailable"), 3), (refusal(404, "not_found"), 1), (Answer(200, "<html>"), 3),
])
def test_a_gateway_without_an_issuer(cli, gateway, answer, code):
    gateway.answers["GET /api/v1/auth/discovery"] = answer
    assert cli.run("login", json=True).code == code


def test_what_is_kept_is_its_owners_alone(cli):
    os.umask(0)
    try:
        cli.folder.mkdir(mode=0o755)
        assert cli.run("login").code == 0
        assert cli.run("keys", "create", "--name", "ci").code == 0
    finally:
        os.umask(0o022)
    modes = cli.modes()
    assert modes.pop(".") == 0o700
    assert set(modes) == {"credentials.json", "credentials.lock", "last_key.txt"}, "nothing is left behind"
    assert set(modes.values()) == {0o600}
    assert cli.file("last_key.txt") == KEY + "\n"
    # A file that others could read is closed when it is used.
    (cli.folder / "credentials.json").chmod(0o644)
    assert cli.run("balance").code == 0
    assert cli.modes()["credentials.json"] == 0o600


def test_the_last_key_is_kept_used_and_forgotten(cli, gateway):
    cli.run("login")
    assert cli.run("keys", "create", "--name", "ci", "--no-cache").code == 0
    assert cli.file("last_key.txt") is None
    assert cli.run("env").code == 1
    assert cli.run("keys", "create", "--name", "ci").code == 0
    assert cli.run("env").out.splitlines()[0] == f"OPENAI_API_KEY={KEY}"
    assert cli.run("test").code == 0
    assert cli.run("keys", "revoke", "key_other").code == 1
    assert cli.run("keys", "revoke", KEY_ID).code == 0
    assert cli.file("last_key.txt") is None


def test_a_login_and_a_key_are_for_the_gateway_that_gave_them(cli, start_gateway):
    cli.run("login")
    cli.run("keys", "create", "--name", "ci")
    other = start_gateway()
    for words in (["balance"], ["test"], ["env"], ["whoami"], ["smoke"]):
        assert cli.run(*words, TOKENROUTE_API_URL=other.url).code == 1
    assert not [seen for seen in other.seen if seen.bearer]
    # Both can be logged in at.
    assert cli.run("login", TOKENROUTE_API_URL=other.url).code == 0
    assert cli.run("whoami", TOKENROUTE_API_URL=other.url).code == 0
    assert cli.run("whoami").code == 0


def test_the_environments_key_goes_before_the_login_where_a_key_does(cli, gateway):
    cli.run("login")
    assert cli.run("balance", TOKENROUTE_API_KEY=KEY).code == 0
    assert gateway.asked(BALANCE)[-1].bearer == KEY
    assert cli.run("keys", "list", TOKENROUTE_API_KEY=KEY).code == 0
    assert gateway.asked("GET /api/v1/me/keys")[-1].bearer == "access-first"


def test_a_token_is_renewed_before_it_ends(cli, gateway):
    with_tokens(gateway, expires_in=1)
    cli.run("login")
    with_tokens(gateway, name="second")
    assert cli.run("balance").code == 0
    assert gateway.asked("POST /token")[-1].form() == {
        "grant_type": "refresh_token", "refresh_token": "refresh-first", "client_id": "tokenroute-cli",
        "resource": "https://api.example.com",
    }
    assert [seen.bearer for seen in gateway.asked(BALANCE)] == ["access-second"]
    assert cli.run("balance").code == 0
    assert len(gateway.asked("POST /token")) == 2


def test_a_token_that_the_gateway_refuses_is_renewed_once(cli, gateway):
    def balance(seen):
        good = seen.bearer == "access-second"
        return Answer(200, contract.BALANCE) if good else refusal(401, "token_expired")

    cli.run("login")
    gateway.answers[BALANCE] = balance
    with_tokens(gateway, name="second")
    assert cli.run("balance").code == 0
    with_tokens(gateway, name="third")
    gateway.answers[BALANCE] = refusal(401, "token_unknown")
    assert cli.run("balance", json=True).error()["metadata"]["reason"] == "token_unknown"
    assert len(gateway.asked(BALANCE)) == 4


def test_many_processes_renew_a_token_once(cli, gateway):
    """A refresh token works once: whoever uses it a second time ends the login of all."""
    used = set()

    def renew(seen):
        token = seen.form()["refresh_token"]
        if token in used:
            return Answer(400, {"error": "invalid_grant"})
        used.add(token)
        return Answer(200, contract.tokens(f"{len(used)}"))

    with_tokens(gateway, expires_in=1)
    cli.run("login")
    gateway.answers["POST /token"] = renew
    running = [cli.start("balance") for _ in range(8)]
    ended = [(one.communicate(timeout=60), one.returncode) for one in running]
    assert [code for _, code in ended] == [0] * 8, ended
    assert used == {"refresh-first"}


def test_a_login_that_has_ended_says_so(cli, gateway):
    with_tokens(gateway, expires_in=1)
    cli.run("login")
    gateway.answers["POST /token"] = Answer(400, {"error": "invalid_grant"})
    done = cli.run("balance", json=True)
    assert (done.code, done.error()["metadata"]["reason"]) == (1, "login_expired")
    assert "access-first" not in cli.file("credentials.json")
    # An issuer that is away ends nothing.
    with_tokens(gateway, expires_in=1)
    cli.run("login")
    gateway.answers["POST /token"] = refusal(503, "unavailable")
    assert cli.run("balance").code == 3
    assert "refresh-first" in cli.file("credentials.json")


def test_credentials_that_are_damaged_are_not_shown(cli):
    cli.run("login")
    (cli.folder / "credentials.json").write_text('{"v": 1, "sessions": "secret-token"}')
    done = cli.run("balance", json=True)
    assert done.code == 1 and "secret-token" not in done.err and "log in again" in done.err


def test_without_a_home_a_key_is_enough(cli, gateway):
    assert cli.run("balance", HOME="relative", TOKENROUTE_API_KEY=KEY).code == 0
    assert cli.run("login", json=True, HOME="relative").code == 1


def on_a_terminal(cli, *words, **more):
    """Runs a command whose stdout is a terminal; returns what was written there."""
    ours, theirs = pty.openpty()
    environment = cli.environment | more
    done = subprocess.run(
        [*cli.program, *words], stdin=subprocess.DEVNULL, stdout=theirs, stderr=subprocess.PIPE, env=environment,
        timeout=60,
    )
    os.close(theirs)
    said = os.read(ours, 65536).decode()
    os.close(ours)
    assert done.returncode == 0, done.stderr
    return said


def test_topup_opens_a_browser_for_a_person_and_for_nobody_else(cli, gateway, folder):
    opened = folder / "opened"
    browser = folder / "browser"
    browser.write_text(f'#!/bin/sh\nprintf %s "$1" >> {opened}\n')
    browser.chmod(0o755)
    more = {"BROWSER": str(browser), "TOKENROUTE_API_KEY": KEY}
    assert cli.run("topup", "--amount", "5", **more).code == 0
    assert cli.run("topup", "--amount", "5", json=True, **more).code == 0
    on_a_terminal(cli, "topup", "--amount", "5", "--json", **more)
    assert not opened.exists()
    said = on_a_terminal(cli, "topup", "--amount", "5", **more)
    assert "Opened in your browser" in said
    # Once in all: the browser is on its own once it was started.
    until(lambda: opened.exists() and opened.read_text() == contract.TOPUP["checkout_url"], "the page is opened")
    assert gateway.asked("POST /api/v1/topup")[-1].json() == {"amount_usd": "5"}


@pytest.mark.parametrize("page", ["javascript:alert(1)", "http://pay.example.com", "file:///etc/passwd", "https://x\x1b[2J"])
def test_a_page_that_is_none_is_not_shown(cli, gateway, page):
    gateway.answers["POST /api/v1/topup"] = Answer(200, contract.TOPUP | {"checkout_url": page})
    done = cli.run("topup", "--amount", "5", TOKENROUTE_API_KEY=KEY)
    assert (done.code, done.out) == (3, "") and page not in done.err
