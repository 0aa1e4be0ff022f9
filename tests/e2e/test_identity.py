"""Who is asking: tokens of an external issuer, API keys, and never one for the other."""

import concurrent.futures
import json
import time

import pytest

from harness import issuer, management
from harness.issuer import AUDIENCE, CLIENT, Issuer, Key, OidcProvider
from harness.waiting import until

ME = "/api/v1/me"
METADATA = "/.well-known/openid-configuration"
# Between two looks at an issuer's keys, however many unknown ones are named.
PAUSE_SECONDS = 30


@pytest.fixture(scope="module")
def trusted():
    """An issuer that tests leave as it is."""
    running = Issuer().start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def believer(tmp_path_factory, provider, trusted, start_in):
    """A gateway that believes it."""
    return start_in(
        tmp_path_factory.mktemp("believer"), provider=provider, control_more=trusted.section(),
    )


def me(gateway, token):
    return management.ask(gateway, ME, token)


def test_a_token_makes_its_user_once(believer, trusted):
    token = trusted.token("carol", name="Carol", email="carol@example.org", email_verified=True)
    first = me(believer, token)
    assert first.status == 200, first.body
    user = first.json()
    assert user["id"].startswith("usr_") and user["logto_sub"] == "carol"
    assert (user["display_name"], user["email"]) == ("Carol", "carol@example.org")
    assert (user["balance_usd"], user["status"], user["role"]) == ("0.00", "active", "user")
    assert me(believer, trusted.token("carol", name="Eve")).json() == user
    assert me(believer, trusted.token("dave")).json()["id"] != user["id"]


def test_users_that_come_at_once_are_made_once(believer, trusted):
    token = trusted.token("many-at-once")
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: me(believer, token), range(16)))
    assert [answer.status for answer in answers] == [200] * 16
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(believer.query("SELECT id FROM users WHERE subject = 'many-at-once'")) == 1


def test_an_address_counts_only_if_the_issuer_vouches_for_it(believer, trusted):
    user = me(believer, trusted.token("frank", email="boss@example.org", email_verified=False)).json()
    assert user["email"] is None and user["display_name"] == ""


def test_what_a_token_does_not_say_the_issuer_is_asked(believer, trusted):
    trusted.userinfo = {"sub": "grace", "name": "Grace", "email": "g@example.org", "email_verified": True}
    user = me(believer, trusted.token("grace")).json()
    assert (user["display_name"], user["email"]) == ("Grace", "g@example.org")
    # An answer about somebody else is not believed.
    assert me(believer, trusted.token("heidi")).json()["display_name"] == ""


def now(seconds):
    return int(time.time()) + seconds


FORGERIES = {
    "of another issuer": lambda it: it.token(iss="https://elsewhere.example"),
    "of nearly the issuer": lambda it: it.token(iss=it.url + "/"),
    "without an issuer": lambda it: it.token(iss=None),
    "for another audience": lambda it: it.token(aud="https://else.example"),
    "for the client itself": lambda it: it.token(aud=CLIENT),
    "for nobody": lambda it: it.token(aud=[]),
    "without an audience": lambda it: it.token(aud=None),
    "without an end": lambda it: it.token(exp=None),
    "not valid yet": lambda it: it.token(nbf=now(120)),
    "without a subject": lambda it: it.token(sub=None),
    "unsigned": lambda it: issuer.compact({"alg": "none", "typ": "at+jwt"}, it.claims(), lambda _: b""),
    "unsigned, in capitals": lambda it: issuer.compact({"alg": "NONE", "typ": "JWT"}, it.claims(), lambda _: b""),
    "signed with the public key as a secret": lambda it: it.token_with_secret(it.keys[0].public_pem()),
    "signed with the public JWK as a secret": lambda it: it.token_with_secret(json.dumps(it.keys[0].jwk()).encode()),
    "signed with nothing as a secret": lambda it: it.token_with_secret(b""),
    "signed by somebody who says the same": lambda it: it.token(key=Key("first")),
    "that says another algorithm than its key's": lambda it: it.token(head={"alg": "RS256"}),
    "that brings its own key": lambda it: it.token(key=Key("first"), head={"jwk": Key("first").jwk()}),
    "of another type": lambda it: it.token(head={"typ": "id_token"}),
    "of no type": lambda it: it.token(head={"typ": None}),
    "that must be understood in a way that nobody does": lambda it: it.token(head={"crit": ["b64"], "b64": False}),
    "that is no token": lambda it: "abc",
    "that is empty between its dots": lambda it: "..",
    "that is too long": lambda it: it.token(sub="x" * 9000),
}


@pytest.mark.parametrize("what", FORGERIES)
def test_a_token_is_refused(believer, trusted, what):
    answer = me(believer, FORGERIES[what](trusted))
    assert (answer.status, answer.reason) == (401, "token_invalid"), answer.body
    assert answer.headers["www-authenticate"] == "Bearer"


def test_an_old_token_is_refused_and_says_so(believer, trusted):
    answer = me(believer, trusted.token(exp=now(-60)))
    assert (answer.status, answer.reason) == (401, "token_expired")


def test_the_log_has_no_token(believer, trusted):
    token = trusted.token("nobody", aud="https://else.example")
    assert me(believer, token).status == 401
    assert token.split(".")[2] not in believer.process.log()


def test_one_credential_is_presented_and_the_right_one(believer, trusted):
    token = trusted.token()
    bearer, key = ("authorization", f"Bearer {token}"), ("authorization", f"Bearer {believer.key}")
    secret = ("x-internal-secret", "abc")
    for headers, status, reason in [
        ([], 401, "token_missing"),
        ([secret], 401, "token_missing"),
        ([bearer, secret], 401, "credentials_ambiguous"),
        ([bearer, bearer], 401, "credentials_ambiguous"),
        ([bearer, key], 401, "credentials_ambiguous"),
        ([("authorization", f"Basic {token}")], 401, "token_malformed"),
        ([key], 403, "key_not_allowed"),
        ([("authorization", f"Bearer {believer.key[:-1]}")], 401, "key_unknown"),
        ([("authorization", "Bearer sk-tr-")], 401, "key_unknown"),
    ]:
        answer = management.ask(believer, ME, headers=headers)
        assert (answer.status, answer.reason) == (status, reason), headers


def test_discovery_is_built_from_the_issuers_metadata(believer, trusted):
    found = issuer.discover(believer)
    assert found == {
        "issuer": trusted.url, "client_id": CLIENT, "resource": AUDIENCE,
        "device_authorization_endpoint": f"{trusted.url}/device", "token_endpoint": f"{trusted.url}/token",
        "scopes": "openid profile email offline_access", "inference_base_url": believer.base_url,
    }


def test_the_gateways_own_issuer_is_not_there(believer):
    for method, path in [
        ("GET", METADATA), ("GET", "/.well-known/oauth-authorization-server"), ("GET", "/oauth/jwks"),
        ("POST", "/oauth/device_authorization"), ("POST", "/oauth/token"), ("POST", "/oauth/revoke"),
        ("GET", "/login/device"), ("POST", "/login/device"), ("GET", "/login/setup?token=a"),
        ("POST", "/login/setup?token=a"), ("GET", "/login/style.css"),
    ]:
        assert management.ask(believer, path, method=method).status == 404, path
    assert "/login/setup" not in believer.process.out()


def test_tokens_signed_with_rsa_are_believed_too(start, provider):
    trusted = Issuer()
    trusted.keys = [Key("plain", "RS256"), Key("salted", "PS256")]
    trusted.start()
    gateway = start(control_more=trusted.section())
    for key in trusted.keys:
        assert me(gateway, trusted.token(key=key)).status == 200, key.alg
    assert me(gateway, trusted.token(key=trusted.keys[0], head={"alg": "PS256"})).status == 401
    trusted.stop()


def test_unknown_keys_make_no_storm_and_a_new_key_is_found(start):
    trusted = Issuer().start()
    gateway = start(control_more=trusted.section())
    assert me(gateway, trusted.token()).status == 200
    looked = trusted.count("/jwks")
    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        tokens = [trusted.token(key=Key(f"unknown {one}")) for one in range(40)]
        answers = list(pool.map(lambda token: me(gateway, token), tokens))
    assert {answer.status for answer in answers} == {401}
    windows = (time.monotonic() - began) // PAUSE_SECONDS + 1
    assert trusted.count("/jwks") - looked <= windows
    # The issuer signs with a new key, and takes the old one away.
    old, trusted.keys = trusted.keys, [Key("second")]
    until(lambda: me(gateway, trusted.token()).status == 200, "the new key is known", PAUSE_SECONDS * 2)
    assert me(gateway, trusted.token(key=old[0])).status == 401
    trusted.stop()


def test_an_issuer_that_is_out_of_reach_is_503_and_then_is_not(start):
    trusted = Issuer()
    gateway = start(control_more=trusted.section())
    for answer in [me(gateway, trusted.token()), management.ask(gateway, "/api/v1/auth/discovery")]:
        assert (answer.status, answer.reason) == (503, "unavailable")
    trusted.start()
    until(lambda: me(gateway, trusted.token()).status == 200, "the issuer is known")
    # What is known serves on while it is gone again.
    trusted.stop()
    assert me(gateway, trusted.token("another")).status == 200
    assert issuer.discover(gateway)["issuer"] == trusted.url


MISBEHAVIOURS = {
    "of another issuer": (METADATA, (200, json.dumps({
        "issuer": "https://else.example", "jwks_uri": "https://else.example/jwks",
    }).encode(), {})),
    "leads elsewhere": (METADATA, (302, b"", {"location": "http://127.0.0.1:1/"})),
    "too long": ("/jwks", (200, b'{"keys":[]' + b" " * 300_000 + b"}", {})),
    "no keys": ("/jwks", (200, b"[]", {})),
    "no answer": ("/jwks", (500, b"{}", {})),
}


@pytest.mark.parametrize("what", MISBEHAVIOURS)
def test_an_issuer_that_misbehaves_is_not_believed(start, what):
    path, page = MISBEHAVIOURS[what]
    trusted = Issuer().start()
    trusted.override[path] = page
    gateway = start(control_more=trusted.section())
    assert me(gateway, trusted.token()).status == 503
    assert "the issuer of tokens cannot be asked" in gateway.process.log()
    trusted.stop()


def test_the_same_subject_of_another_issuer_is_another_user(start):
    one, other = Issuer().start(), Issuer().start()
    gateway = start(control_more=one.section())
    first = me(gateway, one.token("ann")).json()
    assert me(gateway, other.token("ann")).status == 401
    gateway.stop()
    gateway.parts["control_more"] = other.section()
    gateway.write_config()
    gateway.start()
    second = me(gateway, other.token("ann")).json()
    assert first["logto_sub"] == second["logto_sub"] and first["id"] != second["id"]
    assert me(gateway, one.token("ann")).status == 401
    one.stop()
    other.stop()


def test_admins_are_named_in_the_configuration(start):
    trusted = Issuer().start()
    gateway = start(control_more=f'admins = ["root"]\n{trusted.section()}')
    assert me(gateway, trusted.token("root")).json()["role"] == "admin"
    assert me(gateway, trusted.token("ann")).json()["role"] == "user"
    # Users are the issuer's: nobody is invited here.
    invited = management.ask(
        gateway, "/api/v1/admin/users/invitations", trusted.token("root"), "POST", {"role": "user"},
    )
    assert (invited.status, invited.reason) == (409, "issuer_is_external")
    assert gateway.command("setup-link").returncode == 1
    trusted.stop()


@pytest.fixture(scope="module")
def certified(tmp_path_factory):
    """The real `oidc-provider`."""
    running = OidcProvider(tmp_path_factory.mktemp("oidc"))
    yield running
    running.stop()


def test_a_device_logs_in_to_a_certified_provider(start, certified):
    gateway = start(control_more=certified.section())
    found = issuer.discover(gateway)
    device = issuer.begin(found)
    assert issuer.poll(found, device)[1]["error"] == "authorization_pending"
    certified.approve(device, "ann")
    tokens = issuer.await_tokens(found, device)
    user = me(gateway, tokens["access_token"])
    assert user.status == 200, user.body
    assert user.json()["logto_sub"] == "ann"
    status, fresh = issuer.refresh(found, tokens["refresh_token"])
    assert status == 200, fresh
    assert me(gateway, fresh["access_token"]).json()["id"] == user.json()["id"]
    # What is for the client, and not for this API, opens nothing.
    if "id_token" in tokens:
        assert me(gateway, tokens["id_token"]).status == 401


def test_a_device_that_is_declined_gets_nothing(start, certified):
    gateway = start(control_more=certified.section())
    found = issuer.discover(gateway)
    device = issuer.begin(found)
    certified.approve(device, "ann", approves=False)
    assert issuer.poll(found, device)[1]["error"] == "access_denied"
