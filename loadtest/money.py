"""What a paid call costs beside an unpaid one: the same process, the same models, two keys, in turns.

On one node (SQLite) and with Redis and PostgreSQL, where a node of its own posts. The CPU is the edge's alone. At last, at a
fixed rate, the commands that reach Redis are counted: none of them is on a call's way, so they do not grow with the calls.
"""

import json
import pathlib
import statistics
import subprocess
import sys
import time

import table

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests" / "e2e"))

from harness.postgres import Postgres  # noqa: E402
from harness.redis import Redis  # noqa: E402

ACCOUNT, CREDIT = "load", "1000000.00"
COUNTED_SECONDS, COUNTED_RATE = 10, 1_000

SECTIONS = """
{database}
{redis}

[keys]
pepper_file = "{pepper}"

[tiers.default]
requests_per_second = 1_000_000
"""
MODEL = """
[[providers.box.models]]
id = "{}"
input = "1"
output = "4"
"""

# title, figure in the driver's report, arguments of the driver
MEASURES = [
    # At a rate that posting can hold as well: what is not posted at the end would not have been counted.
    ("CPU us/request, 1 KB, 64 connections, 5,000/s", "cpu_us_per_request",
     ["--model", "load-json-600", "--connections", "64", "--body-bytes", "1024", "--rate", "5000"]),
    ("p50 us at one connection, 1 KB", ("latency_us", "p50"),
     ["--model", "load-json-600", "--connections", "1", "--body-bytes", "1024"]),
    ("CPU us/event, bunched", "cpu_us_per_event",
     ["--mode", "sse", "--model", "load-sse-1000-0", "--connections", "32"]),
]
MODELS = sorted({arguments[arguments.index("--model") + 1] for _, _, arguments in MEASURES})


class Node(table.Tokenrouted):
    """A node of some role; nodes of one database share a pepper."""

    def __init__(self, role, sections, *arguments):
        super().__init__(*arguments)
        self.role = role
        text = self.config.read_text() + sections + "".join(map(MODEL.format, MODELS))
        self.config.write_text(text)

    def command(self):
        return [*super().command(), "--role", self.role]

    def run(self, *words):
        ran = subprocess.run([self.binary(), *words], env=self.environment(), capture_output=True, text=True,
                             timeout=table.READY_SECONDS_MAX, check=False)
        if ran.returncode:
            raise table.Failed(f"{words}: {ran.stdout}{ran.stderr}")
        return ran.stdout

    def make_key(self, *words):
        return next(word for word in self.run("keys", "create", *words).split() if word.startswith("sk-tr-"))


class Form:
    """A way to run: its nodes, and a key that pays beside one that does not."""

    def __init__(self, name, options, folder, provider_port, redis=None, database=None):
        self.name, self.redis = name, redis
        pepper = folder / f"{name}.pepper"
        pepper.write_text("5a" * 32 + "\n")
        pepper.chmod(0o600)
        sections = SECTIONS.format(
            database=f'[database]\nurl = "{database}"' if database else "",
            redis=f'[redis]\nurl = "{redis.url}"' if redis else "", pepper=pepper)
        # What posts has a core of its own, so that the edge alone is measured.
        self.edge = Node("edge" if database else "all", sections, f"{name}-edge", options.bins, folder, provider_port, options.proxy_core)
        self.control = database and Node("control", sections, f"{name}-control", options.bins, folder, provider_port, options.load_core)

    def start(self):
        if self.control:
            self.edge.run("migrate")
            self.control.process = table.start(
                table.pinned(self.control.core, self.control.command()), self.control.log, self.control.environment())
        self.edge.run("accounts", "create", "--name", ACCOUNT, "--prepaid")
        self.edge.run("credit", "add", "--account", ACCOUNT, "--amount", CREDIT)
        self.keys = {"paid": self.edge.make_key("--name", "paid", "--account", ACCOUNT),
                     "unpaid": self.edge.make_key("--name", "unpaid")}
        self.edge.key = self.keys["unpaid"]
        self.edge.start()

    def stop(self):
        for node in filter(None, (self.edge, self.control)):
            node.stop()

    def measure(self, options, who, arguments):
        self.edge.key = self.keys[who]
        report = table.measure(options, self.edge, f"{self.name} {who}", arguments)
        if report["errors"]:
            raise table.Failed(f"{self.name}, {who}: {report['errors_by_kind']}")
        return report

    def count_commands(self, options):
        """Commands for 1,000 paid calls, by name."""
        self.edge.key = self.keys["paid"]
        command = [options.bins / "driver", "--address", f"127.0.0.1:{self.edge.port}", "--key", self.edge.key,
                   "--model", table.model_of(self.edge.port, MODELS[0]), "--rate", COUNTED_RATE, "--warmup-millis", 2_000,
                   "--window-millis", COUNTED_SECONDS * 1_000]
        load = subprocess.Popen(table.pinned(options.load_core, command), stdout=subprocess.PIPE, text=True)
        time.sleep(2)
        monitor = self.redis.monitor()
        report = json.loads(load.communicate(timeout=COUNTED_SECONDS + 30)[0])
        counts = monitor.stop()
        return {name: count * 1_000 / report["requests"] for name, count in counts.most_common()}


def measure_all(options, forms):
    """Reports by form, figure and who, in rounds that take turns."""
    results = {}
    for turn in range(options.rounds):
        for form in forms:
            for title, _, arguments in MEASURES:
                for who in ("unpaid", "paid")[::-1 if turn % 2 else 1]:
                    report = form.measure(options, who, list(arguments))
                    results.setdefault((form.name, title), {}).setdefault(who, []).append(report)
            print(f"round {turn + 1}: {form.name}", file=sys.stderr, flush=True)
    return results


def print_table(options, results):
    print(f"\nmin/median/max of {options.rounds} rounds of {options.seconds:g} s; added: the median of the ratios within a round\n")
    print("| | | unpaid | paid | added |\n|---|---|---|---|---|")
    for (form, title), reports in results.items():
        path = next(path for name, path, _ in MEASURES if name == title)
        values = {who: [table.figure(report, path) for report in reports[who]] for who in ("unpaid", "paid")}
        ratio = statistics.median(paid / unpaid for unpaid, paid in zip(values["unpaid"], values["paid"], strict=True))
        print(f"| {form} | {title} | {table.shown(values['unpaid'])} | {table.shown(values['paid'])} | {100 * (ratio - 1):+.1f} % |")
    print(flush=True)


def run(options, folder):
    provider_port = table.port_free()
    log = folder / "provider.log"
    provider = table.start(table.pinned(options.load_core, [
        options.bins / "provider", "--listen", f"127.0.0.1:{provider_port}"]), log)
    started = []
    try:
        table.wait_ready(provider, provider_port, table.STATIC_KEY, log)
        redis, postgres = Redis(folder, durable=True), Postgres(folder)
        started += [redis.process, postgres]
        forms = [Form("one node", options, folder, provider_port),
                 Form("with Redis", options, folder, provider_port, redis, postgres.create())]
        for form in forms:
            started.insert(0, form)
            form.start()
        time.sleep(table.SETTLE_SECONDS)
        print_table(options, measure_all(options, forms))
        counts = forms[1].count_commands(options)
        print(f"Redis commands for 1,000 paid calls at {COUNTED_RATE} a second: {sum(counts.values()):.1f}")
        for name, count in counts.items():
            print(f"  {name}: {count:.1f}")
    except table.Failed as failure:
        sys.exit(f"table.py: {failure}")
    finally:
        for one in started:
            one.stop()
        table.stop(provider)
