"""Secrets and what people say turn up nowhere: not in logs, files, databases, metrics or errors, whatever goes wrong."""

import base64
import hashlib
import json
import pathlib
import signal
import socket
import sqlite3
import subprocess

import pytest

from harness import books, canaries, ports, raw
from harness.canaries import Canaries, made_up
from harness.edge import Fleet, priced
from harness.gateway import Gateway, chat
from harness.leaky import Leaky
from harness.postgres import find
from harness.provider import Provider
from harness.redis import Redis
from harness.waiting import until

# From where clients come; nobody else is there.
CLIENT = "127.66.66.66"
WAYS = ["status-400", "status-401", "status-403", "status-404", "status-422", "status-429", "status-500", "text-error",
        "error-in-200", "malformed", "half-json", "error-event", "error-event-first", "garbage", "broken-off", "stream",
        "whole", "redirect-302", "redirect-307"]
# What is in the configuration beside secrets that are kept in files of their own.
ALLOWED = [
    ("file pepper", {"pepper"}, "this file is where it is"),
    ("shared pepper", {"pepper"}, "this file is where it is"),
    ("environ", {"variable", "database_password", "redis_password"}, "the operator put them there"),
    ("stdout", {"first_key"}, "the first start shows the first key, once"),
    ("answer", {"prompt", "response", "user", "mail", "tool", "field", "file"}, "a client reads the answer to what it said"),
    # A name that a wildcard route stands for is a model's, like any other: box/NAME.
    ("error", {"model"}, "the provider says that it does not know the model"),
    ("stderr", {"model"}, "a call that failed is told with its target"),
    ("command records", {"model"}, "a record names the target"),
    ("file tokenroute.db", {"model"}, "a record names the target"),
    ("file of the database", {"model"}, "a record names the target"),
    ("PostgreSQL", {"model"}, "a record names the target"),
    ("Redis, what was said", {"model"}, "edges tell each other how a target stands"),
]


class Run:
    """A gateway, its secrets, and everything that is said to it."""

    def __init__(self):
        words = ["credential", "variable", "prompt", "response", "user", "mail", "cookie", "query", "organisation", "scheme",
                 "stranger", "model", "field", "tool", "file", "database_password", "redis_password"]
        self.canaries = Canaries(**{word: made_up(word[:4]) for word in words}, address=CLIENT)
        self.leaky = Leaky(self.canaries["response"], self.canaries["organisation"])
        self.places, self.answers = {}, 0

    def providers(self):
        """A route to each way of failing, and for each a second one that goes on with a target that does."""
        text = '[[routes]]\nmodel = "sticky"\naffinity = "prefix"\ntargets = [{ provider = "box", model = "echo" }]\n'
        for number, way in enumerate(WAYS):
            credential = 'credential_env = "CANARY_KEY"' if number % 2 else 'credential_file = "credential"'
            text += f'[providers.{way}]\nbase_url = "{self.leaky.base_url(way)}"\n{credential}\n'
            target = f'{{ provider = "{way}", model = "m" }}'
            text += f'[[routes]]\nmodel = "{way}"\ntargets = [{target}]\n'
            text += f'[[routes]]\nmodel = "{way}-then-box"\ntargets = [{target}, {{ provider = "box", model = "echo" }}]\n'
        return text

    def prepare(self, gateway):
        """Gives it the secrets that come from outside."""
        gateway.credential = self.canaries["credential"]
        (gateway.folder / "credential").write_text(gateway.credential + "\n")
        gateway.environment |= {"CANARY_KEY": self.canaries["variable"]}

    def body(self, model, **more):
        say = self.canaries
        tool = {"type": "function", "function": {"name": say["tool"], "description": say["tool"], "parameters": {}}}
        return chat(model, f"{say['prompt']} {say['mail']}@example.invalid", user=say["user"], metadata={"k": say["field"]},
                    tools=[tool], file={"file_data": say["file"]}, **more)

    def fields(self, key):
        say = self.canaries
        return [("authorization", f"Bearer {key}"), ("cookie", f"session={say['cookie']}"), ("referer", say["query"]),
                ("openai-organization", say["stranger"]), ("user-agent", say["field"]), ("x-forwarded-for", CLIENT)]

    def send(self, gateway, data, leave_after=None):
        """One request from the client's address; what it reads is looked through too."""
        with raw.Connection(gateway.address, source=CLIENT) as connection:
            connection.send(data)
            try:
                if leave_after:
                    connection.read_head()
                    for _ in range(leave_after):
                        connection.read_chunk()
                    return None
                answer = connection.read_answer()
            except (EOFError, OSError):
                return None
        self.answers += 1
        kind = "answer" if answer.status == 200 else "error"
        self.places[f"{kind} {self.answers} {answer.status}"] = repr(answer.fields).encode() + answer.body
        return answer

    def request(self, gateway, body, key, path=None, fields=None):
        path = path or f"/v1/chat/completions?key={self.canaries['query']}"
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        fields = fields or self.fields(key)
        return raw.head("POST", path, *fields, ("content-type", "application/json"), ("content-length", len(data))) + data

    def call(self, gateway, key):
        """Everything that can come of a call."""
        say = self.canaries
        models = [name for way in WAYS for name in (way, f"{way}-then-box")]
        models += ["box/echo", "sticky", "box/echo+no-usage", "box/status-500", "box/words-9+cut-after-3", "box/silence",
                   "box/reset-before-head", "box/not-http", "box/bad-chunk", "box/sse-9x5ms+stall-after-4", "box/gzip",
                   "box/status-400-context", "box/status-429-retry-1", f"box/{say['model']}", f"none/{say['field']}"]
        for model in models:
            for stream in (False, True):
                body = self.body(model, stream=stream)
                self.send(gateway, self.request(gateway, body, key))
        sound = json.dumps(self.body("box/echo")).encode()
        for broken in [sound[:-9], sound[:-1], b"\xff" + sound, sound + sound, sound.replace(b'"model"', b'"model":"x","model"'),
                       b'{"' + say["field"].encode() + b'":' + sound, b"", b"[" * 1000 + sound]:
            self.send(gateway, self.request(gateway, broken, key))
        for path in ["/v1/embeddings", "/v1/completions", f"/v1/{say['query']}", f"/v1/models/{say['query']}?key={say['query']}",
                     f"/{say['query']}", "/v1/chat/completions/../" + say["query"]]:
            self.send(gateway, self.request(gateway, self.body("box/echo"), key, path))
        for fields in [[("authorization", f"Basic {say['scheme']}")], [("authorization", f"Bearer {say['scheme']}")],
                       [("authorization", say["scheme"])], [("x-api-key", key), ("authorization", f"Bearer {say['scheme']}")],
                       [("authorization", f"Bearer {key[:-1]}{'0' if key[-1] != '0' else '1'}")], [("cookie", say["cookie"])]]:
            self.send(gateway, self.request(gateway, self.body("box/echo"), key, fields=fields))
        # Too long, too many, never finished, no HTTP.
        long = self.request(gateway, self.body("box/echo"), key).split(b"\r\n\r\n")[0]
        self.send(gateway, long.replace(b"content-length: ", b"content-length: 9999") + b"\r\n\r\n" + sound)
        self.send(gateway, long + b"\r\nx-long: " + say["field"].encode() * 3000 + b"\r\n\r\n")
        self.send(gateway, f"{say['field']} {say['query']}\r\nauthorization: Bearer {key}\r\n\r\n".encode())
        self.send(gateway, f"GET /{say['query']} HTTP/1.1\r\nhost: a\r\nhost: {say['field']}\r\n{say['field']}\r\n\r\n".encode())
        self.send(gateway, self.request(gateway, self.body("box/sse-200x10ms", stream=True), key), leave_after=3)
        self.send(gateway, raw.head("GET", "/v1/models", *self.fields(key)))
        with socket.create_connection(gateway.address, source_address=(CLIENT, 0)) as half:
            half.sendall(self.request(gateway, self.body("box/echo"), key)[:-20])
        with socket.create_connection((gateway.address[0], gateway.admin_port), source_address=(CLIENT, 0)) as admin:
            admin.sendall(raw.head("GET", f"/{say['query']}?key={say['query']}", *self.fields(key)))
            admin.recv(65536)

    def reload(self, gateway):
        """Files that are refused: none of what they hold is told."""
        say, sound = self.canaries, gateway.config_text()
        before = gateway.metric("tokenroute_config_reload_failures_total")
        wrong = [f'{sound}\nkey = "{say["field"]}', f'{sound}\n[providers.x]\nbase_url = "https://u:{say["field"]}@h"\n',
                 f'{sound}\n[providers.x]\nbase_url = "https://h"\ncredential = "{say["field"]}"\n',
                 f'{sound}\n[providers.x]\nbase_url = "https://h?key={say["field"]}"\nmodels = "{say["field"]}"\n']
        for count, text in enumerate(wrong, 1):
            gateway.write_config(text)
            gateway.process.send(signal.SIGHUP)
            until(lambda: gateway.metric("tokenroute_config_reload_failures_total") >= before + count, "it is refused")
            checked = gateway.command("check")
            assert checked.returncode == 1
            self.places[f"check {count}"] = (checked.stdout + checked.stderr).encode()
        gateway.write_config()

    def collect(self, gateway):
        """What is to be seen of it while it runs."""
        name = gateway.name
        for path in ("/metrics", "/readyz", "/healthz", "/admin/targets", "/", "/admin", "/v1/models", "/config"):
            self.places[f"page {path} of {name}"] = gateway.page(path)[1].encode()
        for words in (["keys", "list", "--json"], ["records", "--json", "--limit", "9999"], ["usage", "--json"],
                      ["accounts", "list", "--json"], ["explain", "--model", "sticky"], ["reconcile"]):
            ran = gateway.command(*words)
            self.places[f"command {words[0]} of {name}"] = (ran.stdout + ran.stderr).encode()
        process = pathlib.Path(f"/proc/{gateway.process.pid}")
        self.places[f"cmdline of {name}"] = (process / "cmdline").read_bytes()
        self.places[f"environ of {name}"] = (process / "environ").read_bytes()

    def stop(self, gateway):
        """Ends it as an operator does, in the middle of a stream, and takes what it has left."""
        with raw.Connection(gateway.address, source=CLIENT) as connection:
            connection.send(self.request(gateway, self.body("box/sse-5000x10ms", stream=True), gateway.key))
            connection.read_head()
            gateway.process.send(signal.SIGTERM)
            gateway.process.await_end()
        self.leave(gateway)

    def leave(self, gateway):
        """Its log and its state folder."""
        self.places[f"stdout of {gateway.name}"] = gateway.process.out_path.read_bytes()
        self.places[f"stderr of {gateway.name}"] = gateway.process.err_path.read_bytes()
        for place, data in canaries.files(gateway.state).items():
            self.places[place] = data

    def check(self):
        """Nothing is anywhere, and what was looked through was not empty."""
        hits = self.canaries.hits(self.places, ALLOWED)
        assert not hits, "\n".join(map(str, hits))
        refused = [place for place in self.places if place.startswith("error")]
        assert len(refused) > 60 and len(self.places) > 120, sorted(self.places)
        # What the provider is told is the body and its own credential.
        for path, head, body in self.leaky.requests:
            number = WAYS.index(path.split("/")[1])
            own = {"variable" if number % 2 else "credential"}
            assert self.canaries.found(head, own) == set() and path.count("?") == 0, head
            spoken = {"prompt", "user", "mail", "field", "tool", "file"}
            assert self.canaries.found(body, spoken) == set(), body
        assert len(self.leaky.requests) > len(WAYS)


def test_what_is_looked_for_is_found_in_every_form():
    text = made_up("finder")
    data, looked_for = text.encode(), Canaries(secret=text)
    shapes = [data, data[::-1], data.hex().encode(), data.hex().upper().encode(), hashlib.sha256(data).digest(),
              hashlib.sha256(data).hexdigest().encode(), data[9 : 9 + canaries.PART], "".join(f"%{b:02X}" for b in data).encode()]
    shapes += [base64.b64encode(b"x" * count + data + b"y" * more) for count in range(4) for more in range(4)]
    shapes += [base64.urlsafe_b64encode(b"~?" + data), json.dumps({"k": text}).encode()]
    for shape in shapes:
        assert looked_for.found(b"before " + shape + b" after"), shape
    assert not looked_for.found(data[: canaries.PART - 1]) and not looked_for.found(made_up("finder").encode()[9:])


@pytest.fixture
def run():
    running = Run()
    yield running
    running.leaky.close()


@pytest.fixture
def box(folder, run):
    """A provider that takes the credential of this run."""
    running = Provider(folder, ports.free(), key=run.canaries["credential"])
    yield running
    running.process.stop()


def shown(database):
    """An SQLite database as SQL."""
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        return "\n".join(connection.iterdump()).encode()
    finally:
        connection.close()


# Nothing here is about time: whoever waits is answered soon.
SECTIONS = """
[limits]
body_idle_seconds = 0.5
head_bytes_max = 16_384
[routing]
wait_seconds_max = 0
[deadlines]
head_seconds = 0.3
first_token_seconds = 0.3
stall_seconds = 0.3
"""


def test_on_one_node_nothing_is_kept(folder, box, run):
    gateway = Gateway(folder / "edge", box, sections=SECTIONS, routes=run.providers())
    run.prepare(gateway)
    gateway.start()
    try:
        run.canaries.add("first_key", gateway.key)
        run.canaries.add("pepper", (gateway.state / "pepper").read_text().strip())
        key, _ = gateway.create_key("canary")
        run.canaries.add("key", key)
        run.call(gateway, key)
        run.reload(gateway)
        until(lambda: gateway.metric("tokenroute_calls_in_flight") == 0, "no call is in flight")
        run.collect(gateway)
        # Of a database that is open: its journal of writes too.
        run.places |= {f"{place}, open": data for place, data in canaries.files(gateway.state).items()}
        assert any("-wal" in place for place in run.places), sorted(run.places)
        run.stop(gateway)
        run.places["file of the database, as SQL"] = shown(gateway.state / "tokenroute.db")
    finally:
        gateway.process.stop()
    log = gateway.process.log()
    assert " DEBUG " in log and '"answered"' in log, "all that the program can say is said"
    run.check()


class WithPassword:
    """A PostgreSQL whose databases are asked for by a URL that has a password in it. It takes any."""

    def __init__(self, postgres, password):
        self.postgres, self.password = postgres, password

    def create(self):
        return self.postgres.create().replace("@", f":{self.password}@", 1)


def test_with_shared_stores_that_fail_nothing_is_kept(folder, box, run, own_postgres, durable_redis):
    say = run.canaries
    # It writes down every statement with its values.
    assert own_postgres.runs("ALTER SYSTEM SET log_statement = 'all'") and own_postgres.runs("SELECT pg_reload_conf()")
    assert durable_redis.ask("ACL", "SETUSER", "canary", "on", f">{say['redis_password']}", "~*", "&*", "+@all") == b"+OK"
    durable_redis.url = durable_redis.url.replace("://", f"://canary:{say['redis_password']}@")
    monitor = durable_redis.monitor(keep=True)
    nodes = Fleet(folder / "fleet", box, postgres=WithPassword(own_postgres, say["database_password"]), redis=durable_redis,
                  sections=SECTIONS, routes=run.providers(), models=priced("sse-5000x10ms", input=1, output=4))
    for node in nodes.nodes:
        run.prepare(node)
    edge = nodes.start().first
    try:
        run.canaries.add("pepper", edge.pepper.read_text().strip())
        books.open_account(edge, "canary", "5.00")
        edge.key, _ = edge.create_key("canary", "--account", "canary")
        run.canaries.add("key", edge.key)
        run.call(edge, edge.key)
        free, _ = edge.create_key("free", "--account", "free")
        run.canaries.add("key", free)
        run.call(edge, free)
        fail(run, edge, (own_postgres, durable_redis))
        until(lambda: edge.metric("tokenroute_calls_in_flight") == 0, "no call is in flight")
        run.collect(edge)
        run.places["page /metrics of control"] = nodes.control.page("/metrics")[1].encode()
        monitor.stop()
        run.places["Redis, what was said"] = b"".join(monitor.kept)
        run.places["Redis, its keys and values"] = durable_redis.snapshot()
        run.stop(edge)
        nodes.control.stop()
        run.leave(nodes.control)
        run.places["PostgreSQL, all tables"] = dump(nodes.database)
        run.places["PostgreSQL, its log"] = own_postgres.process.err_path.read_bytes()
    finally:
        for node in nodes.nodes:
            node.process.stop()
    assert b"INSERT INTO" in run.places["PostgreSQL, all tables"] and b"exchange" in run.places["Redis, what was said"].lower()
    run.check()


def fail(run, edge, stores):
    """Calls while the stores are away, one after the other and both, with keys that have to be looked up."""
    postgres, redis = stores
    redis.freeze()
    run.send(edge, run.request(edge, run.body("box/echo"), edge.key))
    postgres.crash()
    run.send(edge, run.request(edge, run.body("box/echo"), edge.key))
    redis.thaw()
    run.send(edge, run.request(edge, run.body("box/echo"), edge.key))
    postgres.start()
    until(lambda: edge.ask(chat("box/sse-5000x10ms", max_tokens=1)).status == 200, "calls are served again", 30)


def dump(database):
    """All tables of a PostgreSQL database, as statements."""
    words = [find("pg_dump"), "--inserts", "--dbname", database]
    return subprocess.run(words, capture_output=True, check=True, timeout=60).stdout
