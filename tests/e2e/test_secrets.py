"""Where calls may go, who may ask, and who may look into the process: none of it is a client's to choose."""

import base64
import json
import os
import pathlib
import pwd
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading

import pytest

from harness import ports, programs, raw
from harness.gateway import chat
from harness.leaky import Leaky
from harness.process import Process
from harness.waiting import until

# Members of bodies and header fields by which other gateways were told where to go.
MEMBERS = ["api_base", "base_url", "api_url", "endpoint", "url", "host", "hostname", "proxy", "target", "target_url", "upstream",
           "api_host", "azure_endpoint", "custom_host", "customHost", "provider", "provider_url", "server", "destination",
           "redirect", "callback", "webhook", "webhook_url", "api_type", "deployment_id", "resource_name", "resourceName",
           "custom_llm_provider", "litellm_params", "fallbacks", "mock_response", "model_list", "extra_body", "extra_headers"]
FIELDS = ["x-target-url", "x-portkey-custom-host", "x-portkey-provider", "x-portkey-config", "x-upstream", "x-base-url",
          "x-api-base", "x-forwarded-host", "x-forwarded-server", "x-original-url", "x-rewrite-url", "x-original-host",
          "x-host", "x-http-host-override", "x-proxy-url", "x-real-host", "x-envoy-original-dst-host", "x-envoy-decorator-operation",
          "forwarded", "proxy", "via", "destination", "location", "referer", "origin", "x-openai-base-url", "helicone-target-url",
          "cf-connecting-host", "x-azure-endpoint", "x-endpoint", "x-amzn-bedrock-endpoint"]
# What others took for SQL, Redis, Lua, shells, templates and log lines.
ODD_KEYS = ["' OR '1'='1", "'; DROP TABLE api_keys; --", "\" OR 1=1 --", "1' UNION SELECT hash FROM api_keys --", "' OR sleep(5) --",
            "$1", "?", "%", "_", "\\", "%27%20OR%201=1", "*1$4PING", "*3\\r\\n$3\\r\\nSET\\r\\n", "EVAL return 1 0", "return redis.call('KEYS','*')",
            "]]; os.execute('id') --[[", "{{7*7}}", "${jndi:ldap://127.0.0.1/a}", "`id`", "$(id)", "| id", "; id", "../../etc/passwd",
            "null", "undefined", "true", "0", "-1", "NaN", "[]", "{}", "sk-tr-", "sk-tr-'", "sk-tr-" + "0" * 49, "sk-tr-" + "%" * 49,
            "sk-" + "a" * 48, "Bearer", "Bearer x", "a" * 55, "a" * 9000, "\t", ".", "sk-tr-" + "'" * 49, "<script>", "\x7f", "\x80\xff"]


class Witness:
    """Counts who connects."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", ports.free()))
        self.seen = 0
        self.thread = threading.Thread(target=self._count, daemon=True)
        self.thread.start()

    @property
    def authority(self):
        return "127.0.0.1:%d" % self.listener.getsockname()[1]

    @property
    def url(self):
        return f"http://{self.authority}/v1"

    def _count(self):
        while True:
            try:
                self.listener.accept()[0].close()
            except OSError:
                return
            self.seen += 1

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(5)


@pytest.fixture
def witness():
    one = Witness()
    yield one
    one.close()


def test_nothing_in_a_request_chooses_where_it_goes(shared, witness):
    """CVE-2024-6587 and its like: the canary upstream sees nobody."""
    values = [witness.url, witness.authority, {"api_base": witness.url, "base_url": witness.url}, [{"model": "x", "api_base": witness.url}]]
    whole = [chat("box/echo", **{name: value}) for name in MEMBERS for value in values]
    whole.append(chat("box/echo", **{name: witness.url for name in MEMBERS}))
    assert {shared.ask(body).status for body in whole} == {200}
    body = json.dumps(chat("box/echo")).encode()
    length = ("content-length", len(body))
    for name in FIELDS:
        for value in (witness.url, witness.authority, json.dumps({"custom_host": witness.url})):
            assert raw.exchange(shared.address, shared.head("/v1/chat/completions", (name, value), length) + body).status == 200
    ways = ["/v1/chat/completions?" + "&".join(f"{name}={witness.url}" for name in MEMBERS),
            f"/v1/proxy/{witness.url}", f"/{witness.url}", f"/v1/chat/completions/{witness.authority}"]
    for path in ways:
        shared.ask(chat("box/echo"), path=path)
    # The whole URL as the target of the request, and as its model.
    for target in (f"{witness.url}/chat/completions", witness.authority):
        raw.exchange(shared.address, shared.head(target, length) + body)
    for model in (witness.url, f"box/{witness.url}", f"{witness.authority}/x", f"box/echo@{witness.authority}", "box/echo\r\nhost: x"):
        shared.ask(chat(model))
    host = shared.head("/v1/chat/completions", length).replace(b"host: gateway", f"host: {witness.authority}".encode())
    assert raw.exchange(shared.address, host + body).status == 200
    assert witness.seen == 0 and until(lambda: socket.create_connection(witness.listener.getsockname()), "it is there")
    until(lambda: witness.seen == 1, "it counts")


def test_redirects_are_not_followed(start, witness):
    ways = [f"redirect-{status}" for status in (301, 302, 303, 307, 308)]
    leaky = Leaky("said", "organisation", elsewhere=f"{witness.url}/chat/completions")
    routes = "".join(
        f'[providers.{way}]\nbase_url = "{leaky.base_url(way)}"\ncredential_file = "credential"\n'
        f'[[routes]]\nmodel = "{way}"\ntargets = [{{ provider = "{way}", model = "m" }}]\n' for way in ways)
    gateway = start(routes=routes)
    try:
        for way in ways:
            answer = gateway.ask(chat(way))
            assert answer.status == 502 and witness.authority.encode() not in answer.body + repr(answer.fields).encode()
        assert len(leaky.requests) == len(ways) and witness.seen == 0
    finally:
        leaky.close()


def test_names_lead_to_private_addresses_only_where_that_is_allowed(start, provider):
    """A name in a base URL is not the file's word for where it leads; `localhost` and addresses are."""
    name = socket.gethostname().lower()
    found = {one[4][0] for one in socket.getaddrinfo(name, 80, type=socket.SOCK_STREAM)}
    assert found == {"127.0.0.1"} or found == {"127.0.1.1"}, f"the machine's own name leads to {found}, not to itself"
    port = provider.port
    routes = "".join(
        f'[providers.{one}]\nbase_url = "http://{host}:{port}/v1"\nallow_http = true\ncredential_file = "credential"\n'
        f'[[routes]]\nmodel = "{one}"\ntargets = [{{ provider = "{one}", model = "echo" }}]\n'
        for one, host in (("named", name), ("local", "localhost"), ("literal", "127.0.0.1")))
    gateway = start(routes=routes)
    assert [gateway.ask(chat(model)).status for model in ("local", "literal")] == [200, 200]
    answer = gateway.ask(chat("named"))
    assert (answer.status, json.loads(answer.body)["error"]["metadata"]["reason"]) == (502, "upstream_unreachable")
    assert "[egress] does not allow" in gateway.process.log() and "127.0." not in gateway.process.log()
    other = gateway.config_text(sections='[egress]\nallow_private = ["10.0.0.0/8", "::/0"]')
    allowed = gateway.config_text(sections='[egress]\nallow_private = ["127.0.0.0/8"]')
    for text, status in ((other, 502), (allowed, 200), (other, 502)):
        generation = gateway.metric("tokenroute_generation")
        gateway.write_config(text)
        gateway.process.send(signal.SIGHUP)
        until(lambda at=generation: gateway.metric("tokenroute_generation") > at, "it is reloaded")
        # A target that was refused may rest a little.
        until(lambda expected=status: gateway.ask(chat("named")).status in (expected, expected + 1), f"{status}")


def lookups(gateway):
    """How often keys were looked up, and where; not how often somebody asked whether keys were revoked."""
    lines = gateway.page("/metrics")[1].splitlines()
    return [line for line in lines if line.startswith("tokenroute_key_lookups_total") and '"polled"' not in line]


def test_odd_bearers_are_refused_and_asked_nobody_about(start):
    """CVE-2026-42208: what is no key by its form and checksum is looked up nowhere."""
    gateway = start()
    assert gateway.ask(chat("box/echo")).status == 200
    before = lookups(gateway)
    assert before
    chance = random.Random(7)
    alphabet = [chr(code) for code in range(33, 256) if code != 127]
    odd = [*ODD_KEYS, *("".join(chance.choices(alphabet, k=chance.randrange(1, 200))) for _ in range(2_500))]
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    odd += ["sk-tr-" + "".join(chance.choices(digits, k=49)) for _ in range(2_500)]
    odd += [word + gateway.key for word in ("'", "x", "sk-tr-")] + [gateway.key + word for word in ("'", " --", "x", "%00")]
    connection = raw.Connection(gateway.address)
    for number, key in enumerate(odd):
        data = f"GET /v1/models HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {key}\r\n\r\n".encode("latin-1")
        try:
            connection.send(data)
            answer = connection.read_answer()
        except (OSError, EOFError) as error:
            raise AssertionError(f"no answer to {key!r}") from error
        assert answer.status == 401 or (answer.status in (400, 431) and not key.isascii() or "\x7f" in key), (key, answer)
        assert key == "." or key.encode("latin-1") not in answer.body or len(key) < 12
        if answer.header("connection") == "close" or number % 500 == 499:
            connection.close()
            connection = raw.Connection(gateway.address)
    connection.close()
    assert lookups(gateway) == before
    assert gateway.ask(chat("box/echo")).status == 200


def test_what_is_stored_of_a_key_is_no_key(start):
    gateway = start()
    digest = gateway.query("SELECT hash FROM api_keys")[0]["hash"]
    assert len(digest) == 32
    encoded = base64.b64encode(digest).decode()
    before = lookups(gateway)
    for bearer in (digest.hex(), digest.hex().upper(), encoded, base64.urlsafe_b64encode(digest).decode().rstrip("="),
                   "sk-tr-" + digest.hex()[:49], "sk-tr-" + re.sub(r"[+/=]", "0", encoded).ljust(49, "0")[:49], f"tr:key:{digest.hex()}"):
        assert gateway.ask(chat("box/echo"), key=bearer).status == 401
    assert lookups(gateway) == before


def test_the_process_keeps_its_memory_to_itself(folder):
    """No core dump, and no other process of the same user looks in."""
    own = pathlib.Path(tempfile.mkdtemp(prefix="tokenroute-user-"))
    user, as_user = os.getuid(), []
    if user == 0:
        user = pwd.getpwnam("nobody").pw_uid
        os.chown(own, user, -1)
        as_user = ["setpriv", f"--reuid={user}", "--clear-groups"]
    (own / "tokenroute.toml").write_text(
        f'state_dir = "state"\n[listen]\naddress = "127.0.0.1:0"\n[admin]\naddress = "127.0.0.1:0"\n[control]\naddress = "127.0.0.1:0"\n')
    shutil.copy(programs.find("tokenrouted"), own)
    (own / "tokenrouted").chmod(0o755)
    process = Process("user", [*as_user, own / "tokenrouted", "run", "--config", own / "tokenroute.toml"], folder)
    try:
        process.await_ready(lambda: "serves" in process.out(), "it serves")
        of = pathlib.Path(f"/proc/{process.pid}")
        assert of.joinpath("status").read_text().split("Uid:")[1].split()[0] == str(user)
        limits = (of / "limits").read_text()
        assert re.search(r"Max core file size\s+0\s+0\s", limits), limits
        # What may not be looked into is root's, whoever runs it.
        assert (of / "environ").stat().st_uid == 0
        looked = subprocess.run([*as_user, "cat", of / "environ"], capture_output=True)
        assert looked.returncode != 0 and not looked.stdout
    finally:
        process.stop()
        shutil.rmtree(own, ignore_errors=True)
