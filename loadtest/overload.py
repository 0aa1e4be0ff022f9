#!/usr/bin/env python3
"""What is left of an edge under several times the load that it can take, and how those are told whom it does not take.

First as many calls as there can be over a fixed number of connections: that is the most. Then several times as many a
second, whatever becomes of them, over many more connections. The edge has one thread on one core, the provider and the
driver share another. It prints and asserts nothing; --json writes the figures.
"""

import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import table

# name, title, arguments of the driver, connections for the most calls and for the overload: as many as it takes to keep the
# edge busy, and no more, for these wait for each other in the edge. What a call costs decides how much of an overload can be turned away: to say no costs
# as much for the smallest call as for the longest.
LOADS = [
    ("stream", "answers of {events} events", ["--mode", "sse", "--model", "load-sse-{events}-0", "--body-bytes", "4096"], 16, 2000),
    ("paced", "answers of 40 events 25 ms apart", ["--mode", "sse", "--model", "load-sse-40-25", "--body-bytes", "4096"], 2500, 9000),
    ("small", "JSON answers of 600 bytes", ["--model", "load-json-600", "--body-bytes", "1024"], 16, 2000),
]


class Edge(table.Tokenrouted):
    """The gateway with the defaults that the table leaves out."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        kept = [line for line in self.config.read_text().splitlines() if not line.startswith("lag_seconds_max")]
        self.config.write_text("\n".join(kept) + "\n")


def raise_descriptors():
    """As many as there may be, for everything that is started from here."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def drive(options, edge, arguments, seconds):
    """One run of the driver against the edge: its report."""
    arguments = [str(one).format(events=options.events) for one in arguments]
    at = arguments.index("--model") + 1
    arguments[at] = table.model_of(edge.port, arguments[at])
    command = [options.bins / "driver", "--address", f"127.0.0.1:{edge.port}", "--key", edge.key, "--pid", edge.pid(),
               "--window-millis", int(seconds * 1000), *arguments]
    ran = subprocess.run(table.pinned(options.load_core, command), capture_output=True, text=True, timeout=seconds + 120, check=False)
    if ran.returncode != 0:
        raise table.Failed(ran.stderr.strip())
    return json.loads(ran.stdout)


def overload(options, edge, arguments, connections, clients):
    """The most calls a second, and what becomes of several times as many."""
    connections, clients = max(1, int(connections * options.scale)), max(1, int(clients * options.scale))
    warmup = ["--warmup-millis", int(options.warmup * 1000)]
    most = drive(options, edge, [*arguments, "--connections", connections, *warmup], options.seconds)
    rate = max(1, int(most["requests_per_second"] * options.times))
    over = drive(options, edge, [*arguments, "--connections", clients, "--rate", rate, *warmup], options.seconds)
    after = drive(options, edge, [*arguments, "--connections", connections, "--warmup-millis", 2000], options.seconds)
    return {"most": most, "rate": rate, "over": over, "after": after}


def figures(found):
    """What is shown of a run."""
    most, over, after = found["most"], found["over"], found["after"]
    called = (over["requests"] + over["sheds"]) / over["seconds"]
    return {
        "most_per_second": most["requests_per_second"],
        "offered_per_second": found["rate"],
        "called_per_second": called,
        "goodput": over["requests_per_second"] / most["requests_per_second"],
        "shed": over["sheds"] / max(1, over["requests"] + over["sheds"]),
        "shed_p50_ms": ((over["shed_us"] or {}).get("p50") or 0) / 1000,
        "shed_p99_ms": ((over["shed_us"] or {}).get("p99") or 0) / 1000,
        "first_p99": (over["sent_first_us"]["p99"] / most["sent_first_us"]["p99"]) if over["sent_first_us"] else None,
        "cores": over["cpu_seconds"] / over["seconds"],
        "errors": over["errors"],
        "after": after["requests_per_second"] / most["requests_per_second"],
    }


TITLES = {
    "most_per_second": "the most, calls/s", "offered_per_second": "due, calls/s", "called_per_second": "came, calls/s",
    "goodput": "served : the most", "shed": "turned away", "shed_p50_ms": "turned away within, p50 ms",
    "shed_p99_ms": "p99 ms", "first_p99": "first byte of those served, p99 : before", "cores": "cores", "errors": "errors",
    "after": "served afterwards : the most",
}


def run(options, folder):
    provider_port = table.port_free()
    log = folder / "provider.log"
    provider = table.start(table.pinned(options.load_core, [
        options.bins / "provider", "--listen", f"127.0.0.1:{provider_port}"]), log)
    edge, shown = None, {}
    try:
        table.wait_ready(provider, provider_port, table.STATIC_KEY, log)
        edge = Edge("tokenrouted", options.bins, folder, provider_port, options.proxy_core)
        edge.start()
        time.sleep(table.SETTLE_SECONDS)
        for name, title, arguments, *connections in LOADS:
            if name in options.only:
                shown[name] = figures(overload(options, edge, arguments, *connections))
                print_load(title.format(events=options.events), shown[name])
    finally:
        if edge:
            edge.stop()
        table.stop(provider)
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(shown, indent=1))


def print_load(title, found):
    print(f"\n{title}")
    for name, what in TITLES.items():
        value = found[name]
        print(f"  {what}: " + ("-" if value is None else f"{value:.0f}" if value >= 100 else f"{value:.3g}"), flush=True)


def read_options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bins", type=pathlib.Path, default=table.FOLDER.parent / "target" / "release",
                        help="folder of the release binaries")
    parser.add_argument("--only", default="stream,paced,small", type=lambda text: text.split(","), help="which loads")
    parser.add_argument("--times", type=float, default=4.0, help="the overload, in multiples of the most")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--warmup", type=float, default=2.0, help="seconds before each measurement")
    parser.add_argument("--scale", type=float, default=1.0, help="for other than the usual number of connections")
    parser.add_argument("--events", type=int, default=300, help="of a stream")
    parser.add_argument("--proxy-core", type=int, default=1)
    parser.add_argument("--load-core", type=int, default=0)
    parser.add_argument("--json", help="a file for the figures")
    options = parser.parse_args()
    unknown = set(options.only) - {name for name, *_ in LOADS}
    if unknown or not 1 <= options.times <= 100 or not 0.2 <= options.seconds <= 600:
        parser.error("loads, times or seconds are out of bounds")
    return options


def main():
    options = read_options()
    if not {options.proxy_core, options.load_core} <= os.sched_getaffinity(0):
        sys.exit("overload.py: this process may not use these cores")
    raise_descriptors()
    with tempfile.TemporaryDirectory(prefix="tokenroute-overload-") as folder:
        try:
            run(options, pathlib.Path(folder))
        except table.Failed as failure:
            sys.exit(f"overload.py: {failure}")


if __name__ == "__main__":
    main()
