"""`tokenroute` against a scripted gateway: what every command says to people and to programs, and each exit code."""

import json

import pytest

from harness import ports
from harness import scripted_gateway as contract
from harness.cli import Cli
from harness.scripted import Answer, Scripted, hang, refusal
from harness.scripted_gateway import KEY, KEY_ID

OK_REVOKED = {"id": KEY_ID, "status": "revoked"}
# Each command that asks the gateway: words, what it asks, its JSON answer, and lines of its human one.
COMMANDS = [
    (["whoami"], "GET /api/v1/me", contract.ME, ["Name     Ada", "E-mail   ada@example.com", "Balance  $5.00"]),
    (["balance"], "GET /api/v1/balance", contract.BALANCE, ["$5.00 USD"]),
    (["usage", "--days", "7"], "GET /api/v1/usage?days=7", contract.USAGE,
     ["Days        7", "Requests    3", "Tokens in   120", "Tokens out  45", "Cost        $0.18"]),
    (["models"], "GET /api/v1/models", contract.MODELS,
     ["MODEL               INPUT  CACHED  OUTPUT  REQUEST  CONTEXT",
      "openai/gpt-4o-mini  $0.15  $0.075  $0.60   -        128000"]),
    (["topup", "--amount", "5"], "POST /api/v1/topup", contract.TOPUP,
     ["Pay $5 here:", "https://pay.example.com/c/cs_1"]),
    (["keys", "list"], "GET /api/v1/me/keys", [contract.LISTED], [f"{KEY_ID}  ci    sk-tr-0123  active  $5.00"]),
    (["keys", "create", "--name", "ci"], "POST /api/v1/me/keys", contract.CREATED, ["Name     ci", KEY]),
    (["keys", "revoke", KEY_ID], f"DELETE /api/v1/me/keys/{KEY_ID}", OK_REVOKED, [f"OK revoked {KEY_ID}"]),
    (["keys", "rotate", KEY_ID], f"POST /api/v1/me/keys/{KEY_ID}/rotate", contract.CREATED, [KEY]),
    (["env"], "GET /api/v1/auth/discovery", None, [f"OPENAI_API_KEY={KEY}"]),
    (["test"], "POST /v1/chat/completions", None, ["OK connected (openai/gpt-4o-mini, "]),
    (["smoke"], "POST /v1/chat/completions", None, ["OK proved; kept in ~/.tokenroute/smoke.json"]),
]
ASKING = [(words, what) for words, what, *_ in COMMANDS]
NAMES = [" ".join(words[:2]) for words, _ in ASKING]


@pytest.fixture
def gateway():
    running = Scripted()
    running.answers = contract.answers(running.url)
    yield running
    running.stop()


@pytest.fixture
def cli(folder, gateway):
    """Nobody is logged in, and there is no key."""
    return Cli(folder / "home", gateway.url)


@pytest.fixture
def keyed(folder, gateway):
    """With nothing but a key."""
    return Cli(folder / "home", gateway.url, TOKENROUTE_API_KEY=KEY)


@pytest.mark.parametrize(("words", "what", "wanted", "lines"), COMMANDS, ids=NAMES)
def test_what_is_said_to_people_and_to_programs(keyed, gateway, words, what, wanted, lines):
    said = keyed.run(*words)
    assert (said.code, said.err) == (0, ""), said.err
    for line in lines:
        assert line in said.out
    assert all(line == line.rstrip() for line in said.out.splitlines())
    told = keyed.run(*words, json=True)
    assert told.err == ""
    if wanted is not None:
        assert told.json() == wanted
        assert gateway.asked(what)[-1].bearer == KEY
    # The variable does what the flag does, and is off where it says so.
    again = keyed.run(*words, TOKENROUTE_JSON="1")
    assert type(again.json()) is type(told.json())
    assert lines[-1] in keyed.run(*words, TOKENROUTE_JSON="0").out


@pytest.mark.parametrize("json_mode", [False, True], ids=["human", "json"])
@pytest.mark.parametrize(("words", "what"), ASKING, ids=NAMES)
@pytest.mark.parametrize(
    ("status", "code"), [(400, 1), (401, 1), (402, 1), (403, 1), (429, 1), (500, 3), (503, 3)],
)
def test_the_exit_code_follows_from_the_status(keyed, gateway, words, what, status, code, json_mode):
    gateway.answers[what] = refusal(status, "some_word", "why it is so", param="field")
    done = keyed.run(*words, json=json_mode)
    assert done.code == code
    if not json_mode:
        is_proof = words == ["smoke"]
        assert (done.out == "") is not is_proof
        assert done.err.startswith("error: ") and done.err.count("\n") == 1
        return
    error = done.error()
    if words != ["smoke"]:
        wanted = {
            "message": "why it is so", "type": "some_error", "code": status, "param": "field",
            "metadata": {"reason": "some_word"},
        }
        assert error == wanted


@pytest.mark.parametrize("json_mode", [False, True], ids=["human", "json"])
@pytest.mark.parametrize("words", [words for words, _ in ASKING] + [["login"]], ids=[*NAMES, "login"])
def test_a_server_that_is_down_is_2(folder, words, json_mode):
    cli = Cli(folder / "home", f"http://127.0.0.1:{ports.free()}", TOKENROUTE_API_KEY=KEY)
    done = cli.run(*words, json=json_mode)
    assert done.code == 2
    if json_mode:
        assert done.error()["type"] in ("network_error", "smoke_error")


@pytest.mark.parametrize("words", [words for words, _ in ASKING], ids=NAMES)
def test_a_server_that_does_not_answer_is_2(keyed, gateway, words):
    gateway.answers = dict.fromkeys(gateway.answers, hang)
    done = keyed.run(*words, json=True, TOKENROUTE_TIMEOUT_SECONDS="1")
    assert (done.code, done.error()["metadata"]["reason"]) == (2, "timeout")


@pytest.mark.parametrize("json_mode", [False, True], ids=["human", "json"])
@pytest.mark.parametrize("words", [words for words, _ in ASKING], ids=NAMES)
def test_without_a_key_and_a_login_it_is_1(cli, gateway, words, json_mode):
    done = cli.run(*words, json=json_mode)
    assert done.code == 1
    assert gateway.seen == []
    if json_mode:
        error = done.error()
        assert error["type"] == "authentication_error"
        assert error["metadata"]["reason"] in ("no_key", "not_logged_in")
    else:
        assert "TOKENROUTE_API_KEY" in done.err


@pytest.mark.parametrize("words", [
    [], ["nonsense"], ["balance", "--nonsense"], ["keys"], ["keys", "create"], ["keys", "revoke"],
    ["keys", "revoke", "../balance"], ["keys", "revoke", KEY], ["topup"], ["topup", "--amount", "five"],
    ["topup", "--amount", "-5"], ["topup", "--amount", "0"], ["usage", "--days", "0"], ["usage", "--days", "366"],
    ["env", "--key", "a b"], ["test", "--model"],
], ids=" ".join)
def test_what_is_typed_wrongly_is_1(keyed, gateway, words):
    done = keyed.run(*words)
    assert done.code == 1 and done.out == "" and done.err.startswith("error: ")
    # Also where the parser itself says no.
    assert keyed.run(*words, json=True).error()["type"] == "invalid_request_error"
    assert gateway.seen == []
    assert KEY not in done.err


@pytest.mark.parametrize(("name", "text"), [
    ("TOKENROUTE_API_URL", "http://gateway.example.com"), ("TOKENROUTE_API_URL", "nonsense"),
    ("TOKENROUTE_API_URL", "https://user:password@gateway.example.com"),
    ("TOKENROUTE_API_KEY", "two words"), ("TOKENROUTE_TIMEOUT_SECONDS", "soon"),
])
def test_a_variable_that_is_wrong_is_1_and_is_not_shown(keyed, name, text):
    done = keyed.run("balance", json=True, **{name: text})
    error = done.error()
    assert done.code == 1 and name in error["message"] and text not in done.err


def test_help_and_version(cli):
    for words in (["--help"], ["keys", "--help"], ["keys", "create", "--help"]):
        done = cli.run(*words)
        assert done.code == 0 and "Usage: tokenroute" in done.out
    assert cli.run("--version").out.startswith("tokenroute ")


def test_env_is_two_lines_that_a_shell_takes(keyed, gateway):
    said = keyed.run("env")
    assert said.out == f"OPENAI_API_KEY={KEY}\nOPENAI_BASE_URL={gateway.url}/v1\n"
    assert keyed.run("env", json=True).json() == {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": f"{gateway.url}/v1"}
    other = "other$(touch${IFS}pwned)'"
    assert keyed.run("env", "--key", other).out.splitlines()[0] == r"OPENAI_API_KEY='other$(touch${IFS}pwned)'\'''"


@pytest.mark.parametrize("base", ["https://x/v1\nPATH=/tmp", "http://example.com/v1", "https://x/$(id)\"", ""])
def test_env_prints_no_address_that_is_none(keyed, gateway, base):
    answer = contract.discovery(gateway.url) | {"inference_base_url": base}
    gateway.answers["GET /api/v1/auth/discovery"] = Answer(200, answer)
    done = keyed.run("env")
    assert (done.code, done.out) == (3, "")


def test_test_calls_the_model_that_is_named(keyed, gateway):
    assert keyed.run("test", "--model", "acme/free").code == 0
    asked = gateway.asked("POST /v1/chat/completions")[-1]
    assert asked.json()["model"] == "acme/free" and asked.bearer == KEY
    told = keyed.run("test", json=True).json()
    assert (told["status"], told["model"]) == ("ok", "openai/gpt-4o-mini")
    assert keyed.run("test", "--key", "sk-tr-other").code == 0
    assert gateway.asked("POST /v1/chat/completions")[-1].bearer == "sk-tr-other"


def test_an_insufficient_balance_is_1(keyed, gateway):
    gateway.answers["POST /v1/chat/completions"] = refusal(402, "balance", "top up", "insufficient_quota")
    done = keyed.run("test", json=True)
    assert (done.code, done.error()["type"]) == (1, "insufficient_quota")
    assert keyed.run("smoke", json=True).error()["metadata"]["reason"] == "quota"


def test_keys_are_created_with_what_is_asked(keyed, gateway):
    words = ["--ceiling", "5.00", "--expires-at", "2027-01-31T00:00:00Z", "--model", "openai/*", "--model", "acme/free"]
    words += ["--provider", "openai", "--requests-per-minute", "60", "--concurrency", "4"]
    assert keyed.run("keys", "create", "--name", "ci", *words).code == 0
    assert gateway.asked("POST /api/v1/me/keys")[-1].json() == {
        "name": "ci", "ceiling_usd": "5.00", "expires_at": "2027-01-31T00:00:00Z",
        "models": ["openai/*", "acme/free"], "providers": ["openai"],
        "limits": {"requests_per_minute": 60, "concurrency": 4},
    }
    assert keyed.run("keys", "create", "--name", "plain").code == 0
    assert gateway.asked("POST /api/v1/me/keys")[-1].json() == {"name": "plain"}
    assert keyed.run("keys", "rotate", KEY_ID, "--grace-seconds", "60").code == 0
    assert gateway.asked(f"POST /api/v1/me/keys/{KEY_ID}/rotate")[-1].json() == {"grace_seconds": 60}


def test_all_pages_of_keys_are_listed(keyed, gateway):
    first = {"data": [contract.LISTED], "next_cursor": "a b&c"}
    second = {"data": [contract.LISTED | {"id": "key_2"}], "next_cursor": None}
    gateway.answers["GET /api/v1/me/keys"] = Answer(200, first)
    gateway.answers["GET /api/v1/me/keys?cursor=a%20b%26c"] = Answer(200, second)
    assert [one["id"] for one in keyed.run("keys", "list", json=True).json()] == [KEY_ID, "key_2"]


def test_a_list_without_an_end_is_ended(keyed, gateway):
    page = Answer(200, {"data": [], "next_cursor": "again"})
    gateway.answers["GET /api/v1/me/keys"] = gateway.answers["GET /api/v1/me/keys?cursor=again"] = page
    assert keyed.run("keys", "list", json=True).code == 3


def test_the_key_goes_to_no_other_server(keyed, gateway):
    """A redirect is not followed, and the answer is not taken for one."""
    other = Scripted()
    try:
        moved = Answer(302, "", fields={"location": f"{other.url}/api/v1/balance"})
        gateway.answers["GET /api/v1/balance"] = moved
        assert keyed.run("balance").code == 3
        assert other.seen == []
    finally:
        other.stop()


@pytest.mark.parametrize("body", ["<html>log in to the wireless network</html>", "{}", '{"balance_usd": 5}', ""])
def test_an_answer_that_is_none_is_3(keyed, gateway, body):
    gateway.answers["GET /api/v1/balance"] = Answer(200, body)
    done = keyed.run("balance", json=True)
    assert (done.code, done.error()["metadata"]["reason"]) == (3, "unreadable_answer")


def test_an_endless_answer_is_ended(keyed, gateway):
    gateway.answers["GET /api/v1/balance"] = Answer(200, "x" * (5 * 1024 * 1024))
    assert keyed.run("balance", json=True).code == 2


def test_a_server_that_repeats_the_key_does_not_show_it(keyed, gateway):
    secret = "third-party-key-0123456789"
    gateway.answers["GET /api/v1/balance"] = refusal(401, "key_unknown", f"unknown: {secret} and {KEY}")
    for mode in (False, True):
        done = keyed.run("balance", json=mode, TOKENROUTE_API_KEY=secret)
        assert secret not in done.err and KEY not in done.err


def test_names_cannot_move_the_cursor(keyed, gateway):
    listed = contract.LISTED | {"name": "evil\x1b[2J\u202e\r\nname"}
    gateway.answers["GET /api/v1/me/keys"] = Answer(200, {"data": [listed], "next_cursor": None})
    said = keyed.run("keys", "list").out
    assert not {"\x1b", "\u202e", "\r"} & set(said) and len(said.splitlines()) == 2
    # Programs are told it as it is.
    assert keyed.run("keys", "list", json=True).json()[0]["name"] == listed["name"]


def test_smoke_keeps_its_evidence(keyed, gateway):
    told = keyed.run("smoke", json=True).json()
    assert told == json.loads(keyed.file("smoke.json"))
    assert keyed.modes()["smoke.json"] == 0o600
    assert [(one["endpoint_path"], one["stream"], one["status"]) for one in told["steps"]] == [
        ("/v1/models", False, 200), ("/v1/chat/completions", False, 200), ("/v1/chat/completions", True, 200),
    ]
    assert set(told) == {"v", "tool_version", "model_count", "model", "failure_class", "steps"}
    # Also of what failed, which is told on stderr beside the error.
    gateway.answers["POST /v1/chat/completions"] = refusal(404, "model_not_found", "no account_1 at 10.0.0.1")
    done = keyed.run("smoke", json=True)
    assert done.error()["metadata"]["reason"] == "model_id"
    evidence = json.loads(done.err)["evidence"]
    assert evidence == json.loads(keyed.file("smoke.json"))
    assert evidence["failure_class"] == "model_id"
    for secret in (KEY, "account_1", "10.0.0.1", str(keyed.home)):
        assert secret not in done.err + keyed.file("smoke.json")
