"""Keys, money and records by the management API, as they work on an edge."""

import concurrent.futures
import datetime
import json
import random
import secrets
import sqlite3
import string
import time

import pytest

from harness import management
from harness.callers import ADMIN, SECRET, Person, control_section
from harness.gateway import chat
from harness.issuer import Issuer
from harness.waiting import until

MODEL = "box/echo"
ACCOUNTS = "/api/v1/internal/accounts"
ADMIN_ACCOUNTS = "/api/v1/admin/accounts"
# Until every edge knows; and what a busy machine may take longer.
LIVE_SECONDS, GRACE_SECONDS = 1.0, 0.5


@pytest.fixture(scope="module")
def issuer():
    running = Issuer().start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory, provider, issuer, start_in):
    tiers = "[tiers.silver]\nrequests_per_minute = 500"
    more = control_section(issuer)
    return start_in(tmp_path_factory.mktemp("keys"), provider=provider, control_more=more, sections=tiers)


@pytest.fixture
def person(gateway, issuer):
    return Person(gateway, issuer, secrets.token_hex(8)).pay()


@pytest.fixture
def admin(gateway, issuer):
    token = issuer.token(ADMIN)
    return lambda path, method="GET", body=None, headers=(): management.ask(gateway, path, token, method, body, headers)


@pytest.fixture
def partner(gateway):
    def ask(path, method="GET", body=None, key=None):
        headers = [("x-internal-secret", SECRET)]
        if method == "POST":
            headers.append(("idempotency-key", key or secrets.token_hex(8)))
        return management.ask(gateway, path, None, method, body, headers)

    return ask


def call(gateway, key, model=MODEL):
    return gateway.ask(chat(model), key=key).status


def is_off_soon(gateway, key):
    until(lambda: call(gateway, key) == 401, "the key is off", LIVE_SECONDS + GRACE_SECONDS)


def in_an_hour(seconds=3600):
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
    return later.strftime("%Y-%m-%dT%H:%M:%SZ")


def test_a_key_works_until_it_is_revoked(gateway, person):
    made = person.create_key(name="laptop")
    assert made["key_prefix"] == made["raw"][:10] and made["status"] == "active" and made["balance_usd"] == "5.00"
    assert call(gateway, made["raw"]) == 200
    assert made["raw"] not in person.ask("/api/v1/me/keys").body
    assert person.ask(f"/api/v1/me/keys/{made['id']}", "DELETE").status == 204
    is_off_soon(gateway, made["raw"])
    assert management.ask(gateway, "/api/v1/balance", made["raw"]).status == 401
    listed = {key["id"]: key["status"] for key in person.ask("/api/v1/me/keys").json()["data"]}
    assert listed[made["id"]] == "revoked" and listed[person.key["id"]] == "active"


def test_a_key_is_taken_over_and_the_old_one_goes_on_for_a_while(gateway, person):
    wish = {"name": "agent", "ceiling_usd": "2.5", "models": ["box/*"], "expires_at": in_an_hour()}
    old = person.create_key(**wish)
    rotated = person.ask(f"/api/v1/me/keys/{old['id']}/rotate", "POST", {"grace_seconds": 600})
    assert rotated.status == 201, rotated.body
    new = rotated.json()
    same = ("name", "ceiling_usd", "models", "expires_at", "providers", "limits")
    assert {field: new[field] for field in same} == {field: old[field] for field in same}
    assert call(gateway, old["raw"]) == call(gateway, new["raw"]) == 200
    at_once = person.ask(f"/api/v1/me/keys/{new['id']}/rotate", "POST", {})
    is_off_soon(gateway, new["raw"])
    assert call(gateway, old["raw"]) == call(gateway, at_once.json()["raw"]) == 200
    again = person.ask(f"/api/v1/me/keys/{new['id']}/rotate", "POST", {})
    assert (again.status, again.reason) == (409, "key_not_active")


def test_a_ceiling_holds_and_goes_with_the_key(gateway, person):
    made = person.create_key(name="agent", ceiling_usd="0.000001")
    assert made["balance_usd"] == "0.000001"
    assert call(gateway, made["raw"]) == 402
    wide = person.create_key(name="wide", ceiling_usd="1")
    assert call(gateway, wide["raw"]) == 200

    def left():
        return management.ask(gateway, "/api/v1/balance", wide["raw"]).json()["balance_usd"]

    until(lambda: left() not in ("1.00", "1"), "the call is charged", 10)
    rotated = person.ask(f"/api/v1/me/keys/{wide['id']}/rotate", "POST", {}).json()
    assert rotated["balance_usd"] == left_of(person, rotated) and rotated["balance_usd"] != "1.00"


def left_of(person, key):
    return next(one["balance_usd"] for one in person.ask("/api/v1/me/keys").json()["data"] if one["id"] == key["id"])


def test_what_a_key_may_do_is_what_was_said(gateway, person):
    narrow = person.create_key(name="narrow", models=["box/none"], limits={"requests_per_second": 5})
    assert call(gateway, narrow["raw"]) == 403
    assert narrow["limits"] == {"requests_per_second": 5}
    names = [one["id"] for one in management.ask(gateway, "/api/v1/models", narrow["raw"]).json()["data"]]
    assert names == []
    every = management.ask(gateway, "/api/v1/models").json()["data"]
    mine = management.ask(gateway, "/api/v1/models", person.key["raw"]).json()["data"]
    assert mine and mine == [one for one in every if one["pricing"]]
    echo = next(one for one in every if one["id"] == MODEL)
    assert (echo["pricing"]["input"], echo["pricing"]["output"]) == ("1.00", "4.00")


@pytest.mark.parametrize("wish, reason", [
    ({"name": ""}, "name_invalid"), ({"name": "x" * 101}, "name_invalid"), ({"name": "a\u0007"}, "name_invalid"),
    ({"ceiling_usd": "-1"}, "amount_invalid"), ({"ceiling_usd": "1e3"}, "amount_invalid"),
    ({"ceiling_usd": 5}, "body_invalid"), ({"expires_at": "tomorrow"}, "time_invalid"),
    ({"expires_at": "2020-01-01T00:00:00Z"}, "time_invalid"), ({"models": ["a b"]}, "models_invalid"),
    ({"providers": ["nobody"]}, "providers_invalid"), ({"models": ["m"] * 101}, "list_too_long"),
    ({"limits": {"concurrency": 0}}, "limits_invalid"), ({"limits": {"requests_per_second": 11}}, "limits_too_wide"),
    ({"tier": "gold"}, "body_invalid"),
])
def test_what_a_key_cannot_be_is_said(person, wish, reason):
    refused = person.ask("/api/v1/me/keys", "POST", {"name": "key", **wish})
    assert (refused.status, refused.reason) == (400, reason), refused.body


def test_usage_counts_calls_that_succeeded(gateway, person):
    other = person.create_key(name="other")
    assert [call(gateway, person.key["raw"]) for _ in range(3)] == [200] * 3
    assert call(gateway, other["raw"]) == 200
    # What a provider says no to is recorded, and is no success.
    assert call(gateway, other["raw"], "box/none-such") == 400

    def usage():
        return person.ask("/api/v1/usage?days=1").json()

    until(lambda: usage()["total_requests"] >= 4, "the calls are recorded", 10)
    all_of_it = usage()
    assert all_of_it["total_requests"] == 4 and all_of_it["range_days"] == 1
    by_key = {one["key_id"]: one["requests"] for one in all_of_it["keys"]}
    assert by_key == {person.key["id"]: 3, other["id"]: 1}
    own = management.ask(gateway, "/api/v1/usage", other["raw"]).json()
    assert own["total_requests"] == 1 and "keys" not in own
    rows = person.ask(f"/api/v1/requests?key={other['id']}").json()["data"]
    assert [row["key_id"] for row in rows] == [other["id"]] * len(rows) and len(rows) == 2
    assert [row["status"] for row in person.ask("/api/v1/requests?status=2xx").json()["data"]] == [200] * 4
    for bad in ("days=0", "days=366", "days=x"):
        assert person.ask(f"/api/v1/usage?{bad}").status == 400


def test_pages_are_stable_while_more_comes(gateway, person):
    for _ in range(5):
        assert call(gateway, person.key["raw"]) == 200
    until(lambda: len(person.ask("/api/v1/requests").json()["data"]) == 5, "the calls are recorded", 10)
    before = [row["id"] for row in person.ask("/api/v1/requests").json()["data"]]
    seen, cursor = [], ""
    while True:
        page = person.ask(f"/api/v1/requests?limit=2{cursor}").json()
        seen += [row["id"] for row in page["data"]]
        assert len(page["data"]) <= 2
        # Another call comes between any two pages.
        assert call(gateway, person.key["raw"]) == 200
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == before
    keys, cursor = [], ""
    for number in range(4):
        person.create_key(name=f"key {number}")
    while cursor is not None:
        page = person.ask(f"/api/v1/me/keys?limit=2{cursor and f'&cursor={cursor}'}").json()
        keys += [key["id"] for key in page["data"]]
        cursor = page["next_cursor"]
    assert len(keys) == len(set(keys)) == 5 and keys == sorted(keys)


def test_more_credit_is_not_set_up(person):
    refused = person.ask("/api/v1/topup", "POST", {"amount_usd": "5"})
    assert (refused.status, refused.reason) == (501, "billing_not_configured")
    assert person.ask("/api/v1/topup", "POST", {"amount_usd": "0"}).status == 400


def test_a_storefront_sells(gateway, partner):
    name = secrets.token_hex(8)
    account = partner(ACCOUNTS, "POST", {"name": name})
    assert account.status == 201, account.body
    identity = account.json()["id"]
    assert account.json()["balance_usd"] == "0.00" and account.json()["funding"] == "prepaid"
    taken = partner(ACCOUNTS, "POST", {"name": name})
    assert (taken.status, taken.reason) == (409, "name_taken")
    made = partner(f"{ACCOUNTS}/{identity}/keys", "POST", {"name": "sold"}).json()
    assert call(gateway, made["raw"]) == 402
    credit = partner(f"{ACCOUNTS}/{identity}/credit", "POST", {"amount_usd": "2", "note": "an order"})
    assert credit.json()["balance_usd"] == "2.00" and credit.json()["posted"], credit.body
    until(lambda: call(gateway, made["raw"]) == 200, "the credit is there", 10)
    usage = f"{ACCOUNTS}/{identity}/usage?days=1"
    until(lambda: partner(usage).json()["total_requests"] == 1, "the call is recorded", 10)
    assert partner(f"{ACCOUNTS}/{identity}/keys/{made['id']}", "DELETE").status == 204
    is_off_soon(gateway, made["raw"])


def test_a_request_that_is_repeated_is_done_once(gateway, partner):
    account = partner(ACCOUNTS, "POST", {"name": secrets.token_hex(8)}).json()["id"]
    order = secrets.token_hex(8)
    first = partner(f"{ACCOUNTS}/{account}/credit", "POST", {"amount_usd": "3"}, order)
    again = partner(f"{ACCOUNTS}/{account}/credit", "POST", {"amount_usd": "3"}, order)
    assert (first.status, first.json()) == (again.status, again.json())
    other = partner(f"{ACCOUNTS}/{account}/credit", "POST", {"amount_usd": "4"}, order)
    assert (other.status, other.reason) == (409, "idempotency_conflict")
    elsewhere = partner(f"{ACCOUNTS}/{account}/keys", "POST", {"name": "x"}, order)
    assert (elsewhere.status, elsewhere.reason) == (409, "idempotency_conflict")
    assert partner(f"{ACCOUNTS}/{account}").json()["balance_usd"] == "3.00"
    key = secrets.token_hex(8)
    made = [partner(f"{ACCOUNTS}/{account}/keys", "POST", {"name": "sold"}, key).json() for _ in range(2)]
    assert made[0] == made[1]
    # The answer holds a key: it is kept encrypted.
    assert all(made[0]["raw"].encode() not in file.read_bytes() for file in gateway.state.glob("tokenroute.db*"))
    # What was refused used its key up for nothing.
    retried = secrets.token_hex(8)
    assert partner(f"{ACCOUNTS}/{account}/credit", "POST", {"amount_usd": "9000000"}, retried).status == 409
    assert partner(f"{ACCOUNTS}/{account}/credit", "POST", {"amount_usd": "1"}, retried).status == 200
    missing = management.ask(gateway, ACCOUNTS, None, "POST", {"name": "x"}, [("x-internal-secret", SECRET)])
    assert (missing.status, missing.reason) == (400, "idempotency_key_missing")


def test_requests_that_come_at_once_are_done_once(partner):
    account = partner(ACCOUNTS, "POST", {"name": secrets.token_hex(8)}).json()["id"]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        order = secrets.token_hex(8)
        credits = list(pool.map(
            lambda _: partner(f"{ACCOUNTS}/{account}/credit", "POST", {"amount_usd": "1"}, order), range(16),
        ))
        key = secrets.token_hex(8)
        keys = list(pool.map(
            lambda _: partner(f"{ACCOUNTS}/{account}/keys", "POST", {"name": "one"}, key), range(16),
        ))
    assert {answer.status for answer in credits} == {200} and len({answer.body for answer in credits}) == 1
    assert {answer.status for answer in keys} == {201} and len({answer.json()["raw"] for answer in keys}) == 1
    shown = partner(f"{ACCOUNTS}/{account}").json()
    assert (shown["balance_usd"], shown["keys"]) == ("1.00", 1)


def test_answers_are_forgotten_after_a_day_and_money_still_counts_once(gateway, partner):
    account = partner(ACCOUNTS, "POST", {"name": secrets.token_hex(8)}).json()["id"]
    order = secrets.token_hex(8)
    path = f"{ACCOUNTS}/{account}/credit"
    assert partner(path, "POST", {"amount_usd": "3"}, order).status == 200
    connection = sqlite3.connect(f"{gateway.state}/tokenroute.db", timeout=5)
    with connection:
        connection.execute("UPDATE idempotency SET created = created - 86400000001")
    connection.close()
    assert partner(path, "POST", {"amount_usd": "3"}, order).json()["balance_usd"] == "3.00"
    assert len(gateway.query("SELECT key FROM idempotency")) == 1


def test_an_administrator_runs_accounts(gateway, admin, person):
    at = f"{ADMIN_ACCOUNTS}/{person.account}"
    shown = admin(at).json()
    assert (shown["id"], shown["balance_usd"], shown["tier"]) == (person.account, "5.00", None)
    assert any(one["id"] == person.account for one in pages(admin, ADMIN_ACCOUNTS))
    changed = admin(at, "PATCH", {"tier": "silver", "limits": {"requests_per_minute": 1000}}).json()
    assert (changed["tier"], changed["limits"]) == ("silver", {"requests_per_minute": 1000})
    assert admin(at, "PATCH", {"tier": None}).json()["tier"] is None
    for nobody_made in ({"tier": "golden"}, {"policy": "golden"}):
        assert admin(at, "PATCH", nobody_made).reason == "name_unknown"
    assert admin(at, "PATCH", {}).json()["limits"] == {"requests_per_minute": 1000}
    once = lambda: [("idempotency-key", secrets.token_hex(8))]
    assert admin(f"{at}/withdraw", "POST", {"amount_usd": "2"}, once()).json()["balance_usd"] == "3.00"
    assert admin(f"{at}/withdraw", "POST", {"amount_usd": "4"}, once()).reason == "amount_too_much"
    assert admin(f"{at}/credit", "POST", {"amount_usd": "0.5"}, once()).json()["balance_usd"] == "3.50"
    made = admin(f"{at}/keys", "POST", {"name": "given", "limits": {"requests_per_second": 50}}, once()).json()
    assert call(gateway, made["raw"]) == 200
    call_of = lambda: admin(f"/api/v1/admin/requests?account={person.account}").json()["data"]
    until(call_of, "the call is recorded", 10)
    assert {row["account_id"] for row in call_of()} == {person.account}
    assert admin(f"{at}/keys/{made['id']}", "DELETE").status == 204
    is_off_soon(gateway, made["raw"])


def pages(ask, path):
    """All of a list."""
    cursor = ""
    while cursor is not None:
        page = ask(f"{path}?limit=200{cursor and f'&cursor={cursor}'}").json()
        yield from page["data"]
        cursor = page["next_cursor"]


def test_changes_are_written_down_with_who_made_them(gateway, admin, partner, person):
    user = person.user["id"]
    made = person.create_key(name="mine")
    person.ask(f"/api/v1/me/keys/{made['id']}", "DELETE")
    account = partner(ACCOUNTS, "POST", {"name": secrets.token_hex(8)}).json()["id"]
    lines = list(pages(admin, "/api/v1/admin/audit"))
    assert [line["sequence"] for line in lines] == list(range(len(lines), 0, -1))
    told = {(line["actor"], line["action"], line["subject"]) for line in lines}
    assert (f"user {user}", "key.create", made["id"]) in told and (f"user {user}", "key.revoke", made["id"]) in told
    assert ("partner storefront", "account.create", account) in told
    assert any(actor.startswith("uid ") and action == "credit.add" for actor, action, _ in told)
    sound = gateway.command("audit", "--verify")
    assert sound.returncode == 0 and f"{len(lines)} rows" in sound.stdout, sound.stderr
    shown = gateway.command("audit", "--limit", "5", "--json")
    assert [json.loads(line)["sequence"] for line in shown.stdout.splitlines()] == [line["sequence"] for line in lines[:5]]


def test_a_row_that_is_taken_out_shows(start, issuer):
    gateway = start(control_more=control_section(issuer))
    Person(gateway, issuer, "somebody")
    database = f"{gateway.state}/tokenroute.db"
    connection = sqlite3.connect(database, timeout=5)
    with pytest.raises(sqlite3.IntegrityError), connection:
        connection.execute("DELETE FROM audit_log WHERE sequence = 2")
    with connection:
        connection.execute("DROP TRIGGER audit_log_is_not_deleted")
        connection.execute("DELETE FROM audit_log WHERE sequence = 2")
    connection.close()
    broken = gateway.command("audit", "--verify")
    assert broken.returncode == 1 and "row 2" in broken.stderr


def test_what_is_typed_never_gets_into_the_audit_log(gateway, issuer, admin, partner):
    """Secrets, prompts and foreign identifiers, in every place where something can be typed."""
    chance = random.Random(7)
    planted = set()

    def canary():
        text = "canary" + "".join(chance.choices(string.ascii_letters + string.digits, k=20))
        planted.add(text)
        return text

    for _ in range(5):
        person = Person(gateway, issuer, canary())
        person.pay()
        key = person.create_key(name=canary(), models=[canary(), "box/*"])
        gateway.ask(chat(MODEL, canary()), key=key["raw"])
        headers = [("user-agent", canary()), ("x-request-id", canary())]
        token = issuer.token(person.subject, name=canary(), email=f"{canary()}@example.org", email_verified=True)
        for method, path, body in (
            ("POST", "/api/v1/me/keys", {"name": canary(), "models": [canary()], canary(): canary()}),
            ("POST", "/api/v1/me/keys", {"name": canary()}),
            ("DELETE", f"/api/v1/me/keys/{canary()}", None),
            ("GET", f"/api/v1/requests?model={canary()}&cursor={canary()}", None),
            ("POST", "/api/v1/topup", {"amount_usd": canary()}),
        ):
            management.ask(gateway, path, token, method, body, headers)
        account = partner(ACCOUNTS, "POST", {"name": canary()}, canary()).json()["id"]
        partner(f"{ACCOUNTS}/{account}/credit", "POST", {"amount_usd": "1", "note": canary()}, canary())
        sold = partner(f"{ACCOUNTS}/{account}/keys", "POST", {"name": canary()}, canary()).json()
        partner(f"{ACCOUNTS}/{account}/keys/{sold['id']}", "DELETE")
        planted |= {key["raw"], sold["raw"], person.token, token, SECRET}
    log = "".join(
        " ".join(map(str, row.values()))
        for row in gateway.query("SELECT sequence, time, actor, action, subject, detail FROM audit_log")
    )
    told = json.dumps(list(pages(admin, "/api/v1/admin/audit")))
    assert not [text for text in planted if text in log or text in told]
    assert len(planted) > 60
