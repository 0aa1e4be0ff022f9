"""What administrators change by the management API: checked whole, in use on every edge within a second, and no call
notices. Secrets for providers go in and never come out."""

import json
import threading

import pytest

from harness import books, canaries, ports
from harness.administration import Administration
from harness.gateway import chat
from harness.issuer import Issuer
from harness.provider import Provider
from harness.waiting import until

# Every edge has a change within a second of its answer.
LIVE_SECONDS = 1.0
SECRET = "stored-credential-canary-52f0a9"


@pytest.fixture(scope="module")
def issuer():
    running = Issuer().start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def other_box(tmp_path_factory):
    """A provider that takes no credential but the stored one."""
    running = Provider(tmp_path_factory.mktemp("other"), ports.free(), key=SECRET)
    yield running
    running.process.stop()


@pytest.fixture(scope="module")
def node(tmp_path_factory, provider, issuer, start_in):
    """A node whose settings the tests of this module change, each under names of its own."""
    folder = tmp_path_factory.mktemp("settings")
    # The providers that the tests store are on this machine.
    sections = '[egress]\nallow_private = ["127.0.0.0/8"]'
    return start_in(folder, provider=provider, control_more=trusting(issuer), sections=sections)


@pytest.fixture
def admin(node, issuer):
    return Administration(node, issuer.token("ada"))


def trusting(issuer):
    """The part of `[control]` that believes its tokens, and whose administrator is ada."""
    return f'admins = ["ada"]\n{issuer.section()}'


def acme(box, *models):
    """A provider as an administrator says it, with models and their prices."""
    models = [{"id": name, "input": price, "output": price} for name, price in models]
    return {"base_url": box.base_url(), "models": models}


def priced(price):
    return {"input": price, "output": price}


class Load:
    """Calls one after the other until it is stopped, each of which must succeed."""

    def __init__(self, gateway, model, key=None):
        self.gateway, self.model, self.key = gateway, model, key
        self.calls, self.failures, self.targets = 0, [], set()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._repeat, args=[stream]) for stream in (False, True)]

    def _repeat(self, stream):
        while not self._stop.is_set():
            try:
                answer = self.gateway.ask(chat(self.model, max_tokens=8, stream=stream), key=self.key)
                assert answer.status == 200, answer.body
                assert not stream or answer.body.endswith(b"data: [DONE]\n\n"), answer.body
                self.calls += 1
            except Exception as failure:
                self.failures.append(repr(failure))

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        until(lambda: self.calls or self.failures, "calls are made")
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join(30)


def listed(gateway, key=None):
    """The models that a client is told of, by their name."""
    return {one.id: one for one in gateway.client(key).models.list().data}


def words(gateway, model):
    """How many words a call of a model is answered; 0 if it is not."""
    answer = gateway.ask(chat(model, max_tokens=8))
    if answer.status != 200:
        return 0
    return len(json.loads(answer.body)["choices"][0]["message"]["content"].split())


def live(condition, what):
    """Waits for a change to be in use, no longer than it may take."""
    return until(condition, f"{what} within {LIVE_SECONDS} s", LIVE_SECONDS)


def test_routes_and_prices_change_while_calls_run(fleet, postgres, redis, issuer):
    """The whole of it: two edges and a control node, on PostgreSQL and Redis."""
    nodes = fleet(edges=2, postgres=postgres, redis=redis, control_more=trusting(issuer))
    admin = Administration(nodes.control, issuer.token("ada"))
    books.open_account(nodes.first, "payer", "50")
    key, _ = books.open_key(nodes.first, "payer")
    price = {"provider": "box", "model": "echo", "prices": [priced("1")]}
    admin.put("routes", "live", {"targets": [price]})
    for edge in nodes.edges:
        edge.key = key
        live(lambda: "live" in listed(edge), "the route is there")

    loads = [Load(edge, "live", key) for edge in nodes.edges]
    with loads[0], loads[1]:
        for turn in range(5):
            # Another price and another target, each time.
            cost = str(10 + turn)
            target = {"provider": "box", "model": f"words-{turn + 1}", "prices": [priced(cost)]}
            admin.put("routes", "live", {"targets": [target]})
            for edge in nodes.edges:
                told = live(lambda: (one := listed(edge)["live"]).pricing["input"].startswith(cost) and one, "the price")
                assert told.pricing["output"] == f"{cost}.00"
                assert words(edge, "live") == turn + 1
    for load in loads:
        assert load.failures == [] and load.calls > 20, load.calls

    # The management API says the same, to everybody and to administrators.
    anybody = admin("GET", "/api/v1/models").body["data"]
    assert [one["pricing"]["output"] for one in anybody if one["id"] == "live"] == ["14.00"]
    routed = {one["id"]: one for one in admin("GET", "/api/v1/admin/models").body["data"]}
    assert routed["live"]["source"] == "stored" and routed["box/echo"]["source"] == "file"
    assert [one["name"] for one in routed["live"]["targets"]] == ["box/words-5"]

    # The last call of all is charged at the last price: 14 USD for a million tokens of either kind.
    answer = nodes.first.ask(chat("live", max_tokens=8), key=key)
    call = answer.header("x-request-id")
    record = until(lambda: nodes.books.rows(f"SELECT * FROM records WHERE call = '{call}'"), "the record")[0]
    tokens = record["input"] + record["output"]
    assert tokens > 0 and record["charge"] == tokens * 14_000, dict(record)


def test_a_setting_that_a_file_has_is_its_own(admin, node):
    for kind, name, body in [
        ("providers", "box", {"base_url": "https://elsewhere.test"}),
        ("routes", "box/*", {"targets": [{"provider": "box", "model": "*"}]}),
    ]:
        for method in ("PUT", "DELETE"):
            answer = admin(method, admin.setting(kind, name), body if method == "PUT" else None)
            assert (answer.status, answer.reason) == (409, "defined_in_file"), answer.text
        told = admin("GET", admin.setting(kind, name)).body
        assert (told["source"], told["version"]) == ("file", None)
    for method, kind in [("PUT", "providers"), ("DELETE", "providers")]:
        answer = admin(method, admin.setting(kind, "box") + "/credential", {"credential": "x" * 20} if method == "PUT" else None)
        assert (answer.status, answer.reason) == (409, "defined_in_file")


def test_what_does_not_fit_is_refused_with_all_that_is_wrong(admin, node):
    before = admin("GET", "/api/v1/admin/routes").body
    broken = {
        "base_url": "ftp://x", "http2": "yes", "modles": [], "credential_env": "HOME",
        "models": [{"id": "m", "input": 1}, {"id": "m/../m", "input": "1", "output": "x"}],
    }
    answer = admin("PUT", admin.setting("providers", "broken"), broken)
    assert (answer.status, answer.reason) == (422, "settings_invalid")
    assert answer.paths == [
        "providers.broken.base_url", "providers.broken.credential_env", "providers.broken.http2",
        "providers.broken.models[0].input", "providers.broken.models[1].id",
        "providers.broken.models[1].output", "providers.broken.modles",
    ]
    for kind, name, body, path in [
        ("routes", "lost", {"targets": [{"provider": "nobody", "model": "m"}]}, "routes.lost.targets[0].provider"),
        ("routes", "lost", {"model": "other", "targets": [{"provider": "box", "model": "m"}]}, "routes.lost.model"),
        ("routes", "no name", {"targets": [{"provider": "box", "model": "m"}]}, "routes.no name.model"),
        ("tiers", "Gold", {"concurrency": 0}, "tiers.Gold"),
        ("policies", "p", {"providers": ["nobody"]}, "policies.p.providers[0]"),
    ]:
        answer = admin("PUT", admin.setting(kind, name), body)
        assert answer.status == 422 and path in answer.paths, answer.text
    for body in (b"", b"[]", b"{", b'"text"', b"\xff"):
        answer = admin("PUT", admin.setting("tiers", "t"), body)
        assert (answer.status, answer.reason) == (400, "body_invalid")
    assert admin("GET", "/api/v1/admin/routes").body == before
    answer = admin("DELETE", admin.setting("routes", "never"))
    assert (answer.status, answer.reason) == (404, "not_found")

    answer = admin("PUT", admin.setting("providers", "near"), {"base_url": "http://10.0.0.1/v1", "allow_http": True})
    assert answer.status == 422 and answer.paths == ["providers.near.base_url"], answer.text

    # What others refer to stays as long as they do.
    admin.put("providers", "used", {"base_url": "https://used.test"})
    admin.put("policies", "user", {"providers": ["used"]})
    answer = admin("DELETE", admin.setting("providers", "used"))
    assert answer.status == 422 and answer.paths == ["policies.user.providers[0]"]
    assert admin("DELETE", admin.setting("policies", "user")).status == 204
    assert admin("DELETE", admin.setting("providers", "used")).status == 204


def test_two_who_change_the_same_do_not_undo_each_other(admin, node):
    first = admin.put("tiers", "shared", {"concurrency": 1}, if_match="0")
    second = admin.put("tiers", "shared", {"concurrency": 2}, if_match=f'"{first["version"]}"')
    for stale in ("0", str(first["version"])):
        for method in ("PUT", "DELETE"):
            answer = admin(method, admin.setting("tiers", "shared"), {"concurrency": 3}, if_match=stale)
            assert (answer.status, answer.reason) == (409, "version_mismatch"), answer.text
    told = admin("GET", admin.setting("tiers", "shared"))
    assert told.headers["etag"] == f'"{second["version"]}"' and told.body["content"] == {"concurrency": 2}
    for wrong in ("x", "-1", "*", '"'):
        answer = admin("PUT", admin.setting("tiers", "shared"), {}, if_match=wrong)
        assert (answer.status, answer.reason) == (400, "if_match_invalid")

    # Changes of different settings at the same time are all made.
    results = {}

    def change(number):
        results[number] = Administration(node, admin.token)("PUT", admin.setting("tiers", f"t{number}"), {"concurrency": 1}).status

    threads = [threading.Thread(target=change, args=[number]) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {0: 200, 1: 200, 2: 200}
    assert admin("DELETE", admin.setting("tiers", "shared")).status == 204


def test_a_secret_goes_in_and_does_not_come_out(admin, node, other_box):
    path = admin.setting("providers", "acme")
    made = admin.put("providers", "acme", acme(other_box, ("echo", "1")))
    assert "credential" not in made
    until(lambda: node.ask(chat("acme/echo")).status == 502, "the provider turns away whoever has no credential")
    given = admin("PUT", f"{path}/credential", {"credential": SECRET})
    assert given.status == 200 and given.body["origin"] == f"http://127.0.0.1:{other_box.port}"
    live(lambda: node.ask(chat("acme/echo")).status == 200, "the credential is used")

    told = admin("GET", path)
    assert set(told.body["credential"]) == {"origin", "set_at"}
    everything = [given.text, told.text] + [
        admin("GET", f"/api/v1/admin/{page}").text for page in ("providers", "settings/history", "targets")
    ]
    secret = canaries.Canaries(stored=SECRET)
    for text in everything:
        assert not secret.found(text)
    files = {file.name: file.read_bytes() for file in node.state.iterdir() if file.is_file()}
    assert any(name.startswith("tokenroute.db") for name in files)
    for name, data in files.items():
        assert not secret.found(data), name
    assert not secret.found(node.process.log()), "the log"

    # It is not sent elsewhere: whoever moves the provider brings it anew.
    moved = {"base_url": "http://127.0.0.1:9/v1"}
    answer = admin("PUT", path, moved)
    assert answer.status == 422 and answer.paths == ["providers.acme.credential"]
    assert SECRET not in answer.text
    both = admin.put("providers", "acme", moved | {"credential": "another-secret"})
    assert both["credential"]["origin"] == "http://127.0.0.1:9"
    assert admin("DELETE", f"{path}/credential").status == 204
    assert admin("DELETE", f"{path}/credential").reason == "not_found"
    for bad in ("", "two words", "line\nend", "x" * 20_000, 7, None):
        answer = admin("PUT", f"{path}/credential", {"credential": bad})
        assert (answer.status, answer.reason) == (400, "credential_invalid"), bad
    assert admin("DELETE", path).status == 204


def test_what_was_comes_back(admin, node):
    targets = [[{"provider": "box", "model": f"words-{words}"}] for words in (2, 3)]
    first, _ = [admin.put("routes", "again", {"targets": target})["version"] for target in targets]
    live(lambda: words(node, "again") == 3, "the second")
    back = admin("POST", f"/api/v1/admin/settings/history/{first}/restore")
    assert back.status == 200 and json.loads(back.body["content"])["targets"] == targets[0]
    live(lambda: words(node, "again") == 2, "the first again")
    assert admin("DELETE", admin.setting("routes", "again")).status == 204
    live(lambda: node.ask(chat("again")).status == 404, "gone")
    history = admin("GET", "/api/v1/admin/settings/history?kind=route&name=again").body["data"]
    assert [line["content"] is None for line in history] == [True, False, False, False]
    assert {line["actor"].split()[0] for line in history} == {"user"}
    # To what it was when it was gone: it is gone already.
    answer = admin("POST", f"/api/v1/admin/settings/history/{history[0]['version']}/restore")
    assert (answer.status, answer.reason) == (404, "not_found")
    assert admin("POST", f"/api/v1/admin/settings/history/{first}/restore").status == 200
    live(lambda: node.ask(chat("again")).status == 200, "back")
    page = admin("GET", "/api/v1/admin/settings/history?limit=1").body
    following = admin("GET", f"/api/v1/admin/settings/history?limit=1&cursor={page['next_cursor']}").body
    assert following["data"][0]["version"] == page["data"][0]["version"] - 1


def test_a_policy_holds_within_a_second(admin, node):
    admin.put("policies", "narrow", {"models": ["box/e*"], "providers": ["box"]})
    books.run(node, "accounts", "create", "--name", "held", "--unmetered", "--policy", "narrow")
    key, _ = books.open_key(node, "held")

    def status(model):
        return node.ask(chat(model), key=key).status

    live(lambda: status("box/echo") == 200, "what it allows")
    assert status("box/words-3") == 403
    assert set(listed(node, key)) == {"box/echo"}
    admin.put("policies", "narrow", {"models": ["box/words-*"]})
    live(lambda: status("box/echo") == 403, "what it no longer allows")
    assert status("box/words-3") == 200
    books.run(node, "accounts", "set", "held", "--clear", "policy")
    live(lambda: status("box/echo") == 200, "no policy")
    refused = node.command("accounts", "set", "held", "--policy", "unheard-of")
    assert refused.returncode == 1 and "policy" in refused.stderr
    books.run(node, "accounts", "set", "held", "--policy", "narrow")
    live(lambda: status("box/echo") == 403, "the policy again")
    # One that is no more allows nothing.
    assert admin("DELETE", admin.setting("policies", "narrow")).status == 204
    live(lambda: status("box/words-3") == 403, "nothing")
    assert listed(node, key) == {}


def test_only_administrators_may(node, issuer):
    visitor = Administration(node, issuer.token("bob"))
    nobody = Administration(node, "x")
    for method, path in [
        ("GET", "providers"), ("PUT", "providers/x"), ("DELETE", "providers/x"), ("PUT", "providers/x/credential"),
        ("GET", "routes"), ("PUT", "tiers/x"), ("DELETE", "policies/x"), ("GET", "settings/history"),
        ("POST", "settings/history/1/restore"), ("GET", "targets"),
    ]:
        body = {} if method in ("PUT", "POST") else None
        assert visitor(method, f"/api/v1/admin/{path}", body).status == 403, path
        assert nobody(method, f"/api/v1/admin/{path}", body).status == 401, path


def test_targets_are_told_of(admin, node):
    told = admin("GET", "/api/v1/admin/targets").body
    assert told["source"] == "edge"
    assert {"box/echo", "box/*"} <= {one["name"] for one in told["data"]}


def test_a_file_that_says_the_same_is_refused_and_the_old_stays(start, issuer):
    """At a reload the whole is refused; at a start too, in words that say what to do."""
    node = start(control_more=trusting(issuer))
    admin = Administration(node, issuer.token("ada"))
    admin.put("routes", "mine", {"targets": [{"provider": "box", "model": "words-2"}]})
    live(lambda: node.ask(chat("mine")).status == 200, "the route")
    failures = node.metric("tokenroute_config_reload_failures_total")
    text = node.config_text()
    route = '\n[[routes]]\nmodel = "mine"\ntargets = [{ provider = "box", model = "words-3" }]\n'
    node.write_config(text + route)
    until(lambda: node.metric("tokenroute_config_reload_failures_total") > failures, "it is refused")
    assert words(node, "mine") == 2
    assert "settings remove" in node.process.log()
    node.process.stop()
    again = node.command("run")
    assert again.returncode == 2 and "routes.mine" in again.stderr and "settings remove" in again.stderr, again.stderr
    assert "mine" in books.run(node, "settings", "list")
    books.run(node, "settings", "remove", "route", "mine")
    assert node.command("settings", "remove", "route", "mine").returncode == 1
    node.start()
    assert words(node, "mine") == 3


def test_a_database_that_is_away_changes_nothing(fleet, own_postgres, redis, issuer):
    nodes = fleet(edges=1, postgres=own_postgres, redis=redis, control_more=trusting(issuer))
    edge, admin = nodes.first, Administration(nodes.control, issuer.token("ada"))
    key, _ = edge.create_key()
    edge.key = key
    admin.put("routes", "kept", {"targets": [{"provider": "box", "model": "words-2"}]})
    live(lambda: edge.ask(chat("kept")).status == 200, "the route")
    own_postgres.freeze()
    assert edge.ask(chat("kept")).status == 200
    until(lambda: "changes of settings are not seen" in edge.process.log(), "it is told once", 30)
    assert edge.ask(chat("kept")).status == 200
    own_postgres.thaw()
    until(lambda: "changes of settings are seen again" in edge.process.log(), "it is told once", 30)
    admin.put("routes", "kept", {"targets": [{"provider": "box", "model": "words-3"}]})
    live(lambda: words(edge, "kept") == 3, "the change")
    assert edge.process.log().count("changes of settings are not seen") == 1


def test_explaining_and_naming_know_what_is_stored(admin, node):
    admin.put("routes", "told", {"targets": [{"provider": "box", "model": "words-2"}]})
    admin.put("tiers", "silver", {"concurrency": 5})
    assert "box/words-2" in books.run(node, "explain", "--model", "told")
    books.run(node, "keys", "create", "--name", "silver", "--tier", "silver")
    refused = node.command("keys", "create", "--name", "x", "--tier", "bronze")
    assert refused.returncode == 1 and "silver" in refused.stderr
