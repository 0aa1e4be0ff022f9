#!/usr/bin/env python3
"""Prints the table of what a call costs: tokenrouted beside nginx, HAProxy and a bare Pingora, in one run.

Each proxy has one thread on one core; the provider in a box and the driver share another. Rounds go in
rotated order. The figure that counts is the proxy's own CPU time for a request or an event, and its ratio
to the yardsticks. Runs on loopback only and stops everything that it started. It asserts nothing: absolute
figures are the machine's as much as the proxies'.
"""

import argparse
import json
import os
import pathlib
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

FOLDER = pathlib.Path(__file__).resolve().parent
STATIC_KEY = "sk-load"
READY_SECONDS_MAX = 20.0
STOP_SECONDS_MAX = 10.0
# What a start still does in the background after the first answer must not count as the streams' memory.
SETTLE_SECONDS = 1.0

# name, title, figure in the driver's report, arguments of the driver
MEASURES = [
    ("spaced", "SSE CPU us/event, {streams} streams spaced 100 ms", "cpu_us_per_event", []),
    ("bunched", "SSE CPU us/event, bunched", "cpu_us_per_event",
     ["--mode", "sse", "--model", "load-sse-1000-0", "--connections", "32"]),
    ("1KB", "CPU us/request, 1 KB", "cpu_us_per_request",
     ["--model", "load-json-600", "--connections", "64", "--body-bytes", "1024"]),
    ("100KB", "CPU us/request, 100 KB body", "cpu_us_per_request",
     ["--model", "load-json-600", "--connections", "64", "--body-bytes", "102400"]),
    ("single", "p50 us at one connection, 1 KB", ("latency_us", "p50"),
     ["--model", "load-json-600", "--connections", "1", "--body-bytes", "1024"]),
]
# Further lines of the table, from the reports of the same measures.
MORE = [
    ("spaced", "KB RSS per open stream", "rss_kb_per_stream"),
    ("spaced", "event delay p50 us, spaced", ("event_delay_us", "p50")),
    ("spaced", "event delay p99 us, spaced", ("event_delay_us", "p99")),
    ("1KB", "requests/s, 1 KB, 64 connections", "requests_per_second"),
    ("1KB", "CPU s of the window used, 1 KB", "cpu_seconds"),
]


class Failed(Exception):
    """Something did not start or did not answer."""


def port_free():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def pinned(core, command):
    return ["taskset", "-c", str(core), *map(str, command)]


def start(command, log, env=None):
    with open(log, "ab") as out:
        return subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=env)


def stop(process):
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_ready(process, port, key, log):
    """Waits until a whole call is answered."""
    body = json.dumps({"messages": [], "model": model_of(port, "load-json-600")}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions", body,
        {"Authorization": f"Bearer {key}", "Content-Type": "application/json"})
    deadline = time.monotonic() + READY_SECONDS_MAX
    last = None
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                answer.read()
                return
        except (urllib.error.URLError, OSError) as error:
            last = error
            if isinstance(error, urllib.error.HTTPError) and error.code < 500:
                last = f"{error}: {error.read()[:300]!r}"
                break
            time.sleep(0.05)
    tail = pathlib.Path(log).read_text(errors="replace")[-2000:]
    raise Failed(f"no answer on port {port}: {last}\n{tail}")


PREFIXES = {}


def model_of(port, model):
    """What a model is called at a proxy: a gateway has a route for it, the others pass it on."""
    return PREFIXES.get(port, "") + model


class Subject:
    """A proxy under measurement, or none at all."""

    def __init__(self, name, bins, folder, provider_port, core):
        self.name, self.bins, self.core = name, bins, core
        self.folder = folder / name
        self.folder.mkdir()
        self.provider_port = provider_port
        self.log = self.folder / "log"
        self.key = STATIC_KEY
        self.process = None
        self.port = port_free()

    def start(self):
        command = self.command()
        self.process = start(pinned(self.core, command), self.log, self.environment())
        wait_ready(self.process, self.port, self.key, self.log)

    def stop(self):
        if self.process is not None:
            stop(self.process)

    def pid(self):
        return self.process.pid

    def environment(self):
        return None

    def filled(self, template):
        text = (FOLDER / template).read_text()
        for name, value in {"FOLDER": self.folder, "PORT": self.port, "KEY": self.key,
                            "PROVIDER": self.provider_port}.items():
            text = text.replace(f"@{name}@", str(value))
        path = self.folder / template
        path.write_text(text)
        return path


class Nginx(Subject):
    def command(self):
        return [shutil.which("nginx") or "/usr/sbin/nginx", "-p", self.folder, "-e", "stderr",
                "-c", self.filled("nginx.conf")]


class Haproxy(Subject):
    def command(self):
        return [shutil.which("haproxy") or "/usr/sbin/haproxy", "-db",
                "-f", self.filled("haproxy.cfg")]


class Bare(Subject):
    def command(self):
        return [self.bins / "bare", "--listen", f"127.0.0.1:{self.port}",
                "--upstream", f"127.0.0.1:{self.provider_port}"]


class Direct(Subject):
    """The provider itself: what the driver and the provider cost."""

    def __init__(self, provider, *arguments):
        super().__init__(*arguments)
        self.provider = provider
        self.port = self.provider_port

    def start(self):
        self.process = self.provider

    def stop(self):
        pass


class Tokenrouted(Subject):
    """The gateway with everything on: key, rewrite, metering, record."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.config = self.folder / "tokenroute.toml"
        PREFIXES[self.port] = "box/"
        (self.folder / "credential").write_text(STATIC_KEY)
        (self.folder / "credential").chmod(0o600)
        text = (FOLDER / "tokenroute.toml").read_text()
        for name, value in {"FOLDER": self.folder, "PORT": self.port, "ADMIN": port_free(),
                            "PROVIDER": self.provider_port}.items():
            text = text.replace(f"@{name}@", str(value))
        self.config.write_text(text)
        self.config.chmod(0o600)
        self.key = None

    def binary(self):
        return self.bins / "tokenrouted"

    def environment(self):
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        return {**kept, "TOKENROUTE_CONFIG": str(self.config)}

    def start(self):
        if self.key is None:
            made = subprocess.run(
                [self.binary(), "keys", "create", "--name", "load"], env=self.environment(),
                capture_output=True, text=True, timeout=READY_SECONDS_MAX, check=False)
            words = [word for word in made.stdout.split() if word.startswith("sk-tr-")]
            if not words:
                raise Failed(f"no key was made: {made.stdout} {made.stderr}")
            self.key = words[0]
        super().start()

    def command(self):
        return [self.binary(), "run", "--config", self.config]


class Before(Tokenrouted):
    """Another build of the gateway, such as the one before a change, with the same settings."""

    path = None

    def binary(self):
        return self.path


def measure(options, subject, name, arguments):
    command = [options.bins / "driver", "--address", f"127.0.0.1:{subject.port}",
               "--key", subject.key, "--pid", subject.pid(),
               "--window-millis", int(options.seconds * 1000)]
    if name == "spaced":
        # Streams that are as old as the measuring needs, started over one pause, never ending in it.
        events = int((options.seconds + options.warmup + 20) * 10)
        arguments = ["--mode", "sse", "--model", f"load-sse-{events}-100",
                     "--connections", options.streams, "--ramp-millis", "1000"]
    arguments = list(map(str, arguments))
    at = arguments.index("--model") + 1
    arguments[at] = model_of(subject.port, arguments[at])
    if options.include_usage and "sse" in arguments:
        arguments.append("--include-usage")
    command += ["--warmup-millis", int(options.warmup * 1000), *arguments]
    ran = subprocess.run(pinned(options.load_core, command), capture_output=True, text=True,
                         timeout=options.seconds + options.warmup + 60, check=False)
    if ran.returncode != 0:
        raise Failed(f"{subject.name}, {name}: {ran.stderr.strip()}")
    report = json.loads(ran.stdout)
    if report["errors"] or report["sheds"]:
        print(f"  {subject.name}, {name}: {report['errors']} errors "
              f"{report['errors_by_kind']}, {report['sheds']} turned away", file=sys.stderr)
    return report


def figure(report, path):
    for step in (path,) if isinstance(path, str) else path:
        report = (report or {}).get(step)
    return report


def shown(values):
    values = [value for value in values if value is not None]
    if not values:
        return "-"
    digits = 1 if max(values) < 1000 else 0
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{low:.{digits}f}/{middle:.{digits}f}/{high:.{digits}f}"


def median_ratio(reports, path, name, base):
    """The median of the ratios within each round: what disturbs a round disturbs both."""
    ratios = []
    for own, other in zip(reports.get(name, []), reports.get(base, [])):
        a, b = figure(own, path), figure(other, path)
        if a is not None and b:
            ratios.append(a / b)
    return f"{statistics.median(ratios):.2f}" if ratios else "-"


def print_table(options, names, results):
    lines = [(measure, title.format(streams=options.streams), path)
             for measure, title, path, _ in MEASURES] + list(MORE)
    print(f"\nmin/median/max of {options.rounds} rounds of {options.seconds:g} s\n")
    titles = [f"tokenrouted : {base}" for base in bases(names)]
    print("| | " + " | ".join([*names, *titles]) + " |")
    print("|---" * (len(names) + len(titles) + 1) + "|")
    for name, title, path in lines:
        reports = results[name]
        cells = [shown([figure(report, path) for report in reports.get(subject, [])])
                 for subject in names]
        ratios = [median_ratio(reports, path, "tokenrouted", base) for base in bases(names)]
        print(f"| {title} | " + " | ".join(cells + ratios) + " |")
    print(flush=True)
    print_threads(results["1KB"].get("tokenrouted", []))


def bases(names):
    """What the gateway is compared with."""
    return [name for name in ("nginx", "bare", "before") if name in names]


def print_threads(reports):
    """Where the gateway's time goes: its threads' share of a request."""
    names = sorted({name for report in reports for name in report["cpu_seconds_by_thread"]})
    if names:
        print("CPU us/request, 1 KB, by thread of tokenrouted:")
    for name in names:
        values = [report["cpu_seconds_by_thread"].get(name, 0) * 1e6 / report["requests"]
                  for report in reports if report["requests"]]
        print(f"  {name}: {shown(values)}")


def build_subjects(options, folder, provider, provider_port):
    kinds = {"nginx": Nginx, "haproxy": Haproxy, "bare": Bare, "tokenrouted": Tokenrouted, "before": Before}
    subjects = []
    for name in options.only:
        arguments = (name, options.bins, folder, provider_port, options.proxy_core)
        subjects.append(
            Direct(provider, *arguments) if name == "direct" else kinds[name](*arguments))
    return subjects


def run(options, folder):
    provider_port = port_free()
    log = folder / "provider.log"
    provider = start(pinned(options.load_core, [
        options.bins / "provider", "--listen", f"127.0.0.1:{provider_port}"]), log)
    results = {name: {} for name, *_ in MEASURES}
    subjects = []
    try:
        wait_ready(provider, provider_port, STATIC_KEY, log)
        subjects = build_subjects(options, folder, provider, provider_port)
        for turn in range(options.rounds):
            shift = turn % len(subjects)
            for subject in subjects[shift:] + subjects[:shift]:
                print(f"round {turn + 1}: {subject.name}", file=sys.stderr, flush=True)
                try:
                    subject.start()
                    time.sleep(SETTLE_SECONDS)
                    for name, _, _, arguments in MEASURES:
                        report = measure(options, subject, name, arguments)
                        results[name].setdefault(subject.name, []).append(report)
                finally:
                    subject.stop()
        print_table(options, [subject.name for subject in subjects], results)
        if options.json:
            pathlib.Path(options.json).write_text(json.dumps(results, indent=1))
    finally:
        for subject in subjects:
            subject.stop()
        stop(provider)


def read_options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bins", type=pathlib.Path, default=FOLDER.parent / "target" / "release",
                        help="folder of the release binaries")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--warmup", type=float, default=0.8, help="seconds before each measurement")
    parser.add_argument("--streams", type=int, default=500, help="concurrent spaced streams")
    parser.add_argument("--include-usage", action="store_true",
                        help="clients ask streams for usage, so that no gateway has to inject it")
    parser.add_argument("--quick", action="store_true", help="one short round, about 1.5 minutes")
    parser.add_argument("--only", default="direct,nginx,haproxy,bare,tokenrouted",
                        type=lambda text: text.split(","), help="which to measure")
    parser.add_argument("--before", type=pathlib.Path,
                        help="another build of tokenrouted, measured beside this one as 'before'")
    parser.add_argument("--proxy-core", type=int, default=1)
    parser.add_argument("--load-core", type=int, default=0)
    parser.add_argument("--json", help="a file for the driver's whole reports")
    parser.add_argument("--money", action="store_true",
                        help="what a paid call costs beside an unpaid one, instead")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds, options.warmup = 1, 2.0, 0.5
    known = {"direct", "nginx", "haproxy", "bare", "tokenrouted"}
    unknown = set(options.only) - known
    if options.before:
        Before.path = options.before
        options.only.append("before")
    if not 1 <= options.rounds <= 100 or not 0.2 <= options.seconds <= 600:
        parser.error("rounds or seconds are out of bounds")
    if unknown:
        parser.error(f"known are {', '.join(sorted(known))}")
    return options


def main():
    options = read_options()
    cores = os.sched_getaffinity(0)
    if not {options.proxy_core, options.load_core} <= cores:
        sys.exit(f"table.py: this process may use cores {sorted(cores)} only")
    with tempfile.TemporaryDirectory(prefix="tokenroute-load-") as folder:
        try:
            if options.money:
                # It needs more of the system, which the table does not.
                import money

                money.run(options, pathlib.Path(folder))
            else:
                run(options, pathlib.Path(folder))
        except Failed as failure:
            sys.exit(f"table.py: {failure}")


if __name__ == "__main__":
    main()
