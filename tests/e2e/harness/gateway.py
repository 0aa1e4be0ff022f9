"""The real `tokenrouted`: its configuration, its state folder, its records and its metrics."""

import collections
import json
import os
import re
import sqlite3
import subprocess
import urllib.error
import urllib.request

import openai

from harness import canaries, ports, programs, raw
from harness.process import Process
from harness.waiting import until

KEY = re.compile(r"sk-tr-[0-9A-Za-z]{49}")
# What the provider's own key looks like. It must turn up nowhere but at the provider.
CREDENTIAL = "upstream-credential-canary-7b1d"
# Prices in USD per million tokens: a whole number of nano-USD per token.
INPUT_PRICE, OUTPUT_PRICE = 1, 4
# Everything that the program can say: each gateway's log is searched when it stops.
LOUDEST = '[log]\nlevel = "trace"'

# Models with a price, by the provider's script. Any other script can be asked for, without one.
PRICED = ("echo", "no-usage+words-50", "usage-huge+words-50")
MODEL = """
[[providers.box.models]]
id = "{}"
created = 1_750_000_000
input = "{}"
output = "{}"
"""

CONFIG = """
state_dir = "{state}"

[listen]
address = "127.0.0.1:{port}"
threads = {threads}
{listen}

[admin]
address = "127.0.0.1:{admin}"

[control]
address = "127.0.0.1:{control}"
{control_more}

[shutdown]
delay_seconds = 0
streams_seconds = 2

{sections}

[providers.box]
base_url = "{box}"
credential_file = "credential"

{models}

[[routes]]
model = "box/*"
targets = [{{ provider = "box", model = "*" }}]

{routes}
"""


def patient(sections):
    """On a machine that other tests keep busy threads are late, and calls would be turned away for that."""
    if "lag_seconds_max" in sections:
        return sections
    if "[limits]" in sections:
        return sections.replace("[limits]", "[limits]\nlag_seconds_max = 0", 1)
    return sections + "\n[limits]\nlag_seconds_max = 0\n"


class Gateway:
    """A running edge."""

    def __init__(self, folder, provider, name="edge", state=None, **parts):
        folder.mkdir(exist_ok=True)
        self.folder, self.name, self.provider = folder, name, provider
        self.state = state or folder / "state"
        self.port, self.admin_port, self.control_port = ports.free(), ports.free(), ports.free()
        self.address = ("127.0.0.1", self.port)
        self.parts = {"listen": "", "sections": "", "routes": "", "control_more": "", "threads": 2} | parts
        self.environment = {"RUST_LOG": "trace"}
        self.key = self.first_key = None
        self.credential = CREDENTIAL
        (folder / "credential").write_text(self.credential + "\n")
        self.config = folder / "tokenroute.toml"
        self.write_config()

    @property
    def base_url(self):
        scheme = "https" if "[listen.tls]" in self.parts["listen"] else "http"
        return f"{scheme}://127.0.0.1:{self.port}/v1"

    def config_text(self, **parts):
        """Its configuration, with other parts than its own where some are named."""
        parts = self.parts | parts
        parts["sections"] = patient(parts["sections"])
        if "[log]" not in parts["sections"]:
            parts["sections"] += f"\n{LOUDEST}"
        return CONFIG.format(
            state=self.state, port=self.port, admin=self.admin_port, control=self.control_port,
            box=self.provider.base_url(),
            models="".join(MODEL.format(name, INPUT_PRICE, OUTPUT_PRICE) for name in PRICED),
            **parts,
        )

    def write_config(self, text=None):
        """Replaces the configuration in one step, as an operator's tool does."""
        fresh = self.config.with_suffix(".new")
        fresh.write_text(self.config_text() if text is None else text)
        os.replace(fresh, self.config)

    def command_line(self):
        return [programs.find("tokenrouted"), "run", "--config", self.config]

    def start(self):
        self.process = Process(self.name, self.command_line(), self.folder, self.environment)
        self.process.await_ready(self.is_ready, f"{self.name} is ready")
        found = KEY.search(self.process.out())
        self.first_key = found and found[0]
        self.key = self.key or self.first_key
        return self

    def stop(self):
        self.process.stop()
        canaries.search_log(self)

    def command(self, *words):
        """Runs `tokenrouted` with its configuration and returns the finished process."""
        return subprocess.run(
            [programs.find("tokenrouted"), *words, "--config", str(self.config)],
            capture_output=True, text=True, timeout=20, env={"HOME": str(self.folder)},
        )

    def create_key(self, name="test", *more):
        """A new key and its ID."""
        made = self.command("keys", "create", "--name", name, *more)
        assert made.returncode == 0, made.stderr
        return KEY.search(made.stdout)[0], re.search(r"key_\w+", made.stderr)[0]

    # Operators' pages.

    def page(self, path):
        """Status and text of an admin page."""
        try:
            url = f"http://127.0.0.1:{self.admin_port}{path}"
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def is_ready(self):
        try:
            return self.page("/readyz")[0] == 200 and raw.Connection(self.address).close() is None
        except OSError:
            return False

    def metric(self, name, **labels):
        """The value of a series; several with these labels are added up."""
        total = None
        for line in self.page("/metrics")[1].splitlines():
            series, _, value = line.rpartition(" ")
            found, _, rest = series.partition("{")
            if found == name and all(f'{label}="{text}"' in rest for label, text in labels.items()):
                total = (total or 0) + float(value)
        assert total is not None, f"there is no series {name}{labels}"
        return total

    def targets(self):
        """What the gateway thinks of each target, by the target's name."""
        status, text = self.page("/admin/targets")
        assert status == 200, text
        return {one["name"]: one for one in json.loads(text)["targets"]}

    # Records.

    def query(self, statement, *values):
        """Rows of the database as dictionaries."""
        connection = sqlite3.connect(f"file:{self.state}/tokenroute.db?mode=ro", uri=True, timeout=5)
        connection.row_factory = sqlite3.Row
        try:
            return [dict(row) for row in connection.execute(statement, values)]
        finally:
            connection.close()

    def records(self):
        return self.query("SELECT * FROM records ORDER BY sequence")

    def record(self, call):
        """The record of a call, when it is written."""
        select = "SELECT * FROM records WHERE call = ?"
        return until(lambda: self.query(select, call), f"the record of {call}")[0]

    def await_records(self, count):
        """All records, once there are that many and no call is in flight that may add another."""
        until(lambda: self.metric("tokenroute_calls_in_flight") == 0, "no call is in flight")
        until(lambda: len(self.records()) >= count, f"{count} records")
        records = self.records()
        kinds = collections.Counter((one["outcome"], one["error"]) for one in records)
        assert len(records) == count, kinds
        return records

    # Clients.

    def client(self, key=None, **options):
        """The official SDK, without the retries that would hide what the gateway answers."""
        return openai.OpenAI(
            base_url=self.base_url, api_key=key or self.key,
            **({"max_retries": 0, "timeout": 30} | options),
        )

    def head(self, path="/v1/chat/completions", *fields, method="POST", key=None):
        """The bytes of a request head with a key."""
        bearer = ("authorization", f"Bearer {key or self.key}")
        return raw.head(method, path, bearer, ("content-type", "application/json"), *fields)

    def request(self, body, path="/v1/chat/completions", key=None):
        """The bytes of a whole request."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.head(path, ("content-length", len(data)), key=key) + data

    def ask(self, body, path="/v1/chat/completions", key=None):
        """One call over a bare socket."""
        return raw.exchange(self.address, self.request(body, path, key))


def chat(model, text="Hello there", **more):
    """A chat request."""
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}
