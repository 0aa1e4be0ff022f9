"""The gateway's own issuer: the first administrator, the device flow with each of its errors, refreshing, rates."""

import base64
import json
import re
import sqlite3
import subprocess

import pytest

from harness import issuer, management
from harness.issuer import LOGIN, PASSWORD

ME = "/api/v1/me"
WRONG = "wrong horse battery"


@pytest.fixture
def gateway(start):
    """A gateway with its first administrator."""
    running = start()
    issuer.set_up(running)
    return running


@pytest.fixture(scope="module")
def calm(tmp_path_factory, provider, start_in):
    """The same, for tests that leave it as it is."""
    running = start_in(tmp_path_factory.mktemp("calm"), provider=provider)
    issuer.set_up(running)
    return running


def me(gateway, tokens):
    return management.ask(gateway, ME, tokens["access_token"])


def change(gateway, statement, *values):
    """Changes the database under the gateway, as time or an operator would."""
    with sqlite3.connect(gateway.state / "tokenroute.db", timeout=10) as connection:
        assert connection.execute(statement, values).rowcount > 0


def test_curl_sets_up_the_first_administrator(start):
    """What a person without a browser does: one post of the page's form."""
    gateway = start()
    link = re.search(r"http://\S+/login/setup\?token=\S+", gateway.process.out())[0]
    done = subprocess.run(
        ["curl", "--silent", "--fail", link, "--data-urlencode", f"login={LOGIN}", "--data-urlencode",
         f"password={PASSWORD}"],
        capture_output=True, text=True, timeout=20,
    )
    assert done.returncode == 0 and "You are set up" in done.stdout, done
    user = me(gateway, issuer.login(gateway)).json()
    assert (user["display_name"], user["role"], user["status"]) == (LOGIN, "admin", "active")
    assert (user["balance_usd"], user["email"]) == ("0.00", None)


def test_a_link_works_once_and_only_for_a_user_that_is_made(start):
    gateway = start()
    path = issuer.setup_path(gateway.process.out())
    assert management.ask(gateway, path).status == 200
    for fields in [
        {"login": LOGIN, "password": "too short"},
        {"login": LOGIN, "password": PASSWORD, "password_again": "something else"},
        {"login": "not a login", "password": PASSWORD},
        {"login": "", "password": PASSWORD},
        {"login": LOGIN},
    ]:
        assert management.post_form(gateway, path, **fields).status == 400, fields
    assert management.post_form(gateway, path + "x", login=LOGIN, password=PASSWORD).status == 404
    assert management.post_form(gateway, path, login=LOGIN, password=PASSWORD).status == 200
    assert management.ask(gateway, path).status == 404
    again = management.post_form(gateway, path, login="eve", password=PASSWORD)
    assert again.status == 404 and "setup-link" in again.body


def test_nobody_is_shown_a_link_once_there_is_an_administrator(start):
    gateway = start()
    first = issuer.setup_path(gateway.process.out())
    gateway.stop()
    gateway.start()
    links = issuer.LINK.findall(gateway.process.out())
    assert links[0] == first and len(links) == 2, "the first start and the second"
    issuer.set_up(gateway, path=links[1])
    # The other one was for the same.
    assert management.ask(gateway, first).status == 404
    gateway.stop()
    gateway.start()
    assert len(issuer.LINK.findall(gateway.process.out())) == 2


def test_a_link_ends_with_its_time(start):
    gateway = start()
    path = issuer.setup_path(gateway.process.out())
    change(gateway, "UPDATE issuer_links SET expires = 1")
    assert management.post_form(gateway, path, login=LOGIN, password=PASSWORD).status == 404


def test_an_operator_prints_another_link(gateway):
    made = gateway.command("setup-link")
    assert made.returncode == 0, made.stderr
    issuer.set_up(gateway, "bob", path=issuer.setup_path(made.stdout))
    assert me(gateway, issuer.login(gateway, "bob")).json()["role"] == "admin"
    # A login is somebody's; the link is not used up by whoever takes it for another's.
    path = issuer.setup_path(gateway.command("setup-link").stdout)
    taken = management.post_form(gateway, path, login="BOB", password=PASSWORD)
    assert taken.status == 400 and "another" in taken.body
    issuer.set_up(gateway, "carol", path=path)


def test_a_partners_secret_is_drawn_with_its_line(start, gateway):
    drawn = gateway.command("internal-secret", "--name", "store front")
    assert drawn.returncode == 0, drawn.stderr
    secret, section = drawn.stdout.split("\n", 1)
    assert len(secret) == 43
    again = gateway.command("internal-secret", "--name", "store front")
    assert again.stdout != drawn.stdout
    trusting = start("second", control_more=section)
    path = "/api/v1/internal/accounts/acc_01ARZ3NDEKTSV4RRFFQ69G5FAV"

    def present(*headers):
        answer = management.ask(trusting, path, headers=headers)
        return answer.status, answer.reason

    right = ("X-Internal-Secret", secret)
    assert present(right) == (404, "not_found")
    assert present(("X-Internal-Secret", secret[:-1])) == (401, "secret_unknown")
    assert present(("X-Internal-Secret", secret.swapcase())) == (401, "secret_unknown")
    assert present() == present(("Authorization", f"Bearer {trusting.key}")) == (401, "secret_missing")
    assert present(right, ("Authorization", f"Bearer {trusting.key}")) == (401, "credentials_ambiguous")
    assert present(right, right) == (401, "credentials_ambiguous")


def test_pages_are_plain_and_nobody_elses(calm):
    for path in ["/login/device", "/login/device?user_code=%22%3E%3Cscript%3E", "/login/setup?token=x"]:
        page = management.ask(calm, path)
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
        assert "script" not in policy and "<script" not in page.body
        assert page.headers["x-frame-options"] == "DENY" and page.headers["referrer-policy"] == "no-referrer"
        assert page.headers["cache-control"] == "no-store" and "set-cookie" not in page.headers
    assert management.ask(calm, "/login/style.css").headers["content-type"].startswith("text/css")


def test_metadata_name_what_is_there(calm):
    found, metadata = issuer.discover(calm), management.ask(calm, "/.well-known/openid-configuration").json()
    here = f"http://127.0.0.1:{calm.control_port}"
    assert found["issuer"] == metadata["issuer"] == found["resource"] == here
    for name in ["device_authorization_endpoint", "token_endpoint"]:
        assert found[name] == metadata[name]
    assert metadata == management.ask(calm, "/.well-known/oauth-authorization-server").json()


def claims(token, part=1):
    text = token.split(".")[part]
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def test_a_token_says_what_access_tokens_say(calm):
    tokens, found = issuer.login(calm), issuer.discover(calm)
    head, said = claims(tokens["access_token"], 0), claims(tokens["access_token"])
    assert (head["alg"], head["typ"]) == ("ES256", "at+jwt")
    keys = management.ask(calm, "/oauth/jwks").json()["keys"]
    assert head["kid"] in [key["kid"] for key in keys] and all("d" not in key for key in keys)
    assert (said["iss"], said["aud"], said["client_id"]) == (found["issuer"], found["resource"], found["client_id"])
    assert said["exp"] - said["iat"] == tokens["expires_in"] and said["jti"]
    assert said["scope"] == tokens["scope"] == "offline_access"


def test_a_device_is_told_what_is_decided(calm):
    found = issuer.discover(calm)
    device = issuer.begin(found)
    assert re.fullmatch(r"[BCDFGHJKLMNPQRSTVWXZ]{4}-[BCDFGHJKLMNPQRSTVWXZ]{4}", device["user_code"])
    assert device["verification_uri_complete"].endswith(f"?user_code={device['user_code']}")
    # Nobody has decided; who asks again at once is to wait longer, and longer again.
    assert issuer.poll(found, device)[1]["error"] == "authorization_pending"
    for pause in [device["interval"] + 5, device["interval"] + 10]:
        status, answer = issuer.poll(found, device)
        assert (status, answer["error"]) == (400, "slow_down")
        row = calm.query("SELECT pause_seconds FROM issuer_devices ORDER BY created DESC LIMIT 1")[0]
        assert row["pause_seconds"] == pause
    assert issuer.decide(calm, device, decision="decline").status == 200
    assert issuer.poll(found, device)[1]["error"] == "access_denied"
    # What is decided is decided.
    assert issuer.decide(calm, device).status == 404
    assert issuer.poll(found, device)[1]["error"] == "access_denied"


def test_a_device_code_works_once(calm):
    found = issuer.discover(calm)
    device = issuer.begin(found)
    typed = {"user_code": device["user_code"].lower().replace("-", " ")}
    assert issuer.decide(calm, typed).status == 200
    status, tokens = issuer.poll(found, device)
    assert status == 200 and me(calm, tokens).status == 200
    assert issuer.poll(found, device) == (400, {
        "error": "invalid_grant",
        "error_description": "it is unknown, was used, or its time is over: log in again",
    })


def test_a_device_code_ends_with_its_time(gateway):
    found = issuer.discover(gateway)
    waiting, approved = issuer.begin(found), issuer.begin(found)
    assert issuer.decide(gateway, approved).status == 200
    change(gateway, "UPDATE issuer_devices SET expires = 1")
    for device in [waiting, approved]:
        assert issuer.poll(found, device)[1]["error"] == "expired_token"
        assert issuer.decide(gateway, device).status == 404


@pytest.mark.parametrize("fields, error", [
    ({}, "invalid_request"),
    ({"grant_type": "password"}, "unsupported_grant_type"),
    ({"grant_type": "refresh_token"}, "invalid_client"),
    ({"grant_type": "refresh_token", "client_id": "somebody"}, "invalid_client"),
    ({"grant_type": "refresh_token", "client_id": "tokenroute"}, "invalid_request"),
    ({"grant_type": issuer.DEVICE_GRANT, "client_id": "tokenroute"}, "invalid_request"),
    ({"grant_type": issuer.DEVICE_GRANT, "client_id": "tokenroute", "device_code": "trd_x"}, "invalid_grant"),
    ({"grant_type": "refresh_token", "client_id": "tokenroute", "refresh_token": "trr_x"}, "invalid_grant"),
    ({"grant_type": "refresh_token", "client_id": "tokenroute", "refresh_token": "x" * 9000}, "invalid_request"),
    ({"grant_type": "refresh_token", "client_id": "tokenroute", "resource": "https://else.example"}, "invalid_target"),
])
def test_a_bad_request_is_said_in_the_protocols_words(calm, fields, error):
    answer = management.post_form(calm, "/oauth/token", **fields)
    assert answer.status == 400 and answer.json()["error"] == error, answer.body
    assert answer.headers["cache-control"] == "no-store"


def test_what_is_no_form_is_said_so(calm):
    for path in ["/oauth/token", "/oauth/device_authorization", "/oauth/revoke"]:
        kind = [("content-type", "application/json")]
        answer = management.send(calm.control_port, "POST", path, kind, b"{}")
        assert (answer.status, answer.json()["error"]) == (400, "invalid_request")
    twice = b"client_id=tokenroute&client_id=tokenroute"
    kind = [("content-type", "application/x-www-form-urlencoded")]
    answer = management.send(calm.control_port, "POST", "/oauth/device_authorization", kind, twice)
    assert answer.json()["error"] == "invalid_request"


def test_a_refresh_token_works_once_and_its_copy_ends_the_login(calm):
    found, tokens = issuer.discover(calm), issuer.login(calm)
    status, second = issuer.refresh(found, tokens["refresh_token"])
    assert status == 200 and second["refresh_token"] != tokens["refresh_token"]
    assert me(calm, second).status == 200
    status, third = issuer.refresh(found, second["refresh_token"])
    assert status == 200
    # Somebody has a copy of the first: nothing that came of it works on.
    assert issuer.refresh(found, tokens["refresh_token"])[1]["error"] == "invalid_grant"
    assert issuer.refresh(found, third["refresh_token"])[1]["error"] == "invalid_grant"
    # Another login is none of its family.
    assert issuer.refresh(found, issuer.login(calm)["refresh_token"])[0] == 200


def test_a_login_is_given_back(calm):
    found, tokens = issuer.discover(calm), issuer.login(calm)
    for token in [tokens["refresh_token"], "trr_unknown"]:
        done = management.post_form(calm, "/oauth/revoke", client_id=found["client_id"], token=token)
        assert done.status == 200
    assert issuer.refresh(found, tokens["refresh_token"])[1]["error"] == "invalid_grant"


def test_without_asking_for_it_there_is_no_refresh_token(calm):
    found = issuer.discover(calm) | {"scopes": "openid"}
    device = issuer.begin(found)
    issuer.decide(calm, device)
    tokens = issuer.poll(found, device)[1]
    assert "refresh_token" not in tokens and tokens["scope"] == ""
    assert me(calm, tokens).status == 200


def test_who_is_disabled_does_nothing_any_more(gateway):
    found, tokens = issuer.discover(gateway), issuer.login(gateway)
    change(gateway, "UPDATE users SET status = 'disabled'")
    answer = me(gateway, tokens)
    assert (answer.status, answer.reason) == (403, "user_disabled")
    assert issuer.refresh(found, tokens["refresh_token"])[1]["error"] == "invalid_grant"
    assert issuer.decide(gateway, issuer.begin(found)).status == 403


def test_it_stays_the_same_over_a_restart(gateway):
    tokens = issuer.login(gateway)
    gateway.stop()
    gateway.start()
    assert me(gateway, tokens).status == 200
    assert issuer.refresh(issuer.discover(gateway), tokens["refresh_token"])[0] == 200


def test_a_key_that_is_a_month_old_signs_no_more_and_verifies_on(gateway):
    tokens = issuer.login(gateway)
    change(gateway, "UPDATE issuer_keys SET created = created - 31 * 86400 * 1000000")
    fresh = issuer.login(gateway)
    assert claims(fresh["access_token"], 0)["kid"] != claims(tokens["access_token"], 0)["kid"]
    assert me(gateway, fresh).status == 200 and me(gateway, tokens).status == 200
    assert len(management.ask(gateway, "/oauth/jwks").json()["keys"]) == 2


def test_a_lost_vault_makes_a_new_key(gateway):
    tokens = issuer.login(gateway)
    gateway.stop()
    (gateway.state / "vault").unlink()
    gateway.start()
    assert me(gateway, tokens).status == 200 and me(gateway, issuer.login(gateway)).status == 200
    assert "a key of the issuer cannot be read" in gateway.process.log()


def test_logins_are_not_guessed(gateway):
    found = issuer.discover(gateway)
    device = issuer.begin(found)
    known = issuer.decide(gateway, device, password=WRONG)
    unknown = issuer.decide(gateway, device, "nobody", WRONG)
    assert known.status == unknown.status == 403
    assert known.body.replace(LOGIN, "") == unknown.body.replace("nobody", "")
    for _ in range(9):
        assert issuer.decide(gateway, device, password=WRONG).status == 403
    # Too often: the right password does not do either, for a while, and the page says how long.
    late = issuer.decide(gateway, device)
    assert late.status == 429 and 0 < int(late.headers["retry-after"]) <= 900
    assert issuer.poll(found, device)[1]["error"] == "authorization_pending"


def test_codes_are_not_asked_for_without_end(gateway):
    found = issuer.discover(gateway)
    for _ in range(60):
        issuer.begin(found)
    answer = management.post_form(gateway, "/oauth/device_authorization", client_id=found["client_id"])
    assert (answer.status, answer.reason) == (429, "too_many_requests")
    assert 0 < int(answer.headers["retry-after"]) <= 900


def test_what_opens_something_is_kept_as_a_hash_alone(gateway):
    found = issuer.discover(gateway)
    device = issuer.begin(found)
    issuer.decide(gateway, device)
    tokens = issuer.poll(found, device)[1]
    link = issuer.setup_path(gateway.command("setup-link").stdout).partition("token=")[2]
    gateway.stop()
    kept = b"".join(path.read_bytes() for path in gateway.state.iterdir() if path.is_file())
    said = gateway.process.log()
    for secret in [PASSWORD, device["device_code"], tokens["refresh_token"], tokens["access_token"], link]:
        assert secret.encode() not in kept and secret not in said
    # What is random in the code and tokens, without what stands before it.
    for secret in [device["device_code"][4:], tokens["refresh_token"][4:]]:
        assert secret.encode() not in kept
    gateway.start()


def test_what_is_over_is_forgotten(gateway):
    issuer.login(gateway)
    issuer.begin(issuer.discover(gateway))
    for table in ["issuer_devices", "issuer_refreshes", "issuer_links"]:
        change(gateway, f"UPDATE {table} SET expires = 1")
    change(gateway, "UPDATE issuer_tries SET minute = 1")
    gateway.stop()
    gateway.start()
    tables = ["issuer_devices", "issuer_refreshes", "issuer_links", "issuer_tries"]

    def left():
        return sum(len(gateway.query(f"SELECT * FROM {table}")) for table in tables)

    issuer.until(lambda: left() == 0, "what is over is gone")


def test_administrators_invite_and_say_who_may_do_what(gateway):
    admin = issuer.login(gateway)["access_token"]
    for role in ["user", "admin"]:
        made = management.ask(
            gateway, "/api/v1/admin/users/invitations", admin, "POST", {"role": role},
        )
        assert made.status == 201, made.body
        issuer.set_up(gateway, f"new-{role}", path=issuer.setup_path(made.json()["url"]))
        tokens = issuer.login(gateway, f"new-{role}")
        assert me(gateway, tokens).json()["role"] == role
    listed = management.ask(gateway, "/api/v1/admin/users", admin).json()["data"]
    assert [(one["display_name"], one["role"]) for one in listed] == [
        (LOGIN, "admin"), ("new-user", "user"), ("new-admin", "admin"),
    ]
    own, user = listed[0]["id"], listed[1]["id"]

    def patch(who, token=admin, **wanted):
        return management.ask(gateway, f"/api/v1/admin/users/{who}", token, "PATCH", wanted)

    plain = issuer.login(gateway, "new-user")
    for answer in [
        patch(user, plain["access_token"], role="admin"),
        management.ask(gateway, "/api/v1/admin/users", plain["access_token"]),
        management.ask(gateway, "/api/v1/admin/users/invitations", plain["access_token"], "POST", {"role": "user"}),
    ]:
        assert (answer.status, answer.reason) == (403, "admin_only")
    assert patch(user, role="admin").json()["role"] == "admin"
    assert me(gateway, plain).json()["role"] == "admin"
    assert patch(user, role="user", status="disabled").json()["status"] == "disabled"
    assert me(gateway, plain).status == 403
    found = issuer.discover(gateway)
    assert issuer.refresh(found, plain["refresh_token"])[1]["error"] == "invalid_grant"
    assert patch(user, status="active").status == 200
    assert me(gateway, plain).json()["role"] == "user"
    # Nobody is left without an administrator, and nothing that is not understood is done.
    assert patch(own, role="user").reason == "own_rights"
    assert patch("usr_01ARZ3NDEKTSV4RRFFQ69G5FAV", role="user").status == 404
    for wanted in [{"role": "root"}, {"status": "gone"}, {"rôle": "user"}]:
        assert patch(user, **wanted).status == 400
    said = [(row["action"], row["detail"]) for row in gateway.query("SELECT action, detail FROM audit_log")]
    assert ("user.change", '{"role":"user","status":"disabled"}') in said
    assert [action for action, _ in said].count("user.create") == 3
