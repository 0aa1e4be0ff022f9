#!/usr/bin/env python3
"""Many streams at once, opened and closed several times: failures, cores, memory of each, and what memory comes to.

The edge has one thread on one core, the provider and the driver share another. Every stream has an event a second and
outlives the measurement. It prints and asserts nothing; --json writes the figures.
"""

import argparse
import json
import os
import pathlib
import sys
import tempfile
import time

import overload
import table

# Streams opened in a second: more would be an overload of their own.
OPENED_PER_SECOND = 1000
# To be added to how long a stream lasts.
SPARE_SECONDS = 30
# Addresses of this network are called from in turns: each has its own ports.
SOURCE = "127.0.1.{}"


def rss_kb(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise table.Failed("the edge is gone")


def open_files(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def cycle(options, edge, turn):
    """Opens the streams, measures, and closes them."""
    ramp = max(1.0, options.streams / OPENED_PER_SECOND)
    events = int(ramp + options.warmup + options.seconds + SPARE_SECONDS)
    report = overload.drive(options, edge, [
        "--mode", "sse", "--model", f"load-sse-{events}-1000", "--connections", options.streams,
        "--ramp-millis", int(ramp * 1000), "--warmup-millis", int(options.warmup * 1000),
        "--source", SOURCE.format(turn + 1), "--body-bytes", "1024"], options.seconds)
    time.sleep(options.pause)
    begin, end = report["rss_kb_begin"], report["rss_kb_end"]
    expected = options.streams * report["seconds"]
    return {
        "streams": report["streams_open_max"],
        "failed": report["errors"] + report["sheds"] + max(0, options.streams - report["streams_open_max"]),
        "events": report["events"] / expected,
        "delay_p99_ms": report["event_delay_us"]["p99"] / 1000,
        "cores": report["cpu_seconds"] / report["seconds"],
        "kb_per_stream": (begin - report["rss_kb_idle"]) / options.streams,
        "drift": (end - begin) / begin,
        "mb_open": end / 1024,
        "mb_after": rss_kb(edge.pid()) / 1024,
        "files_after": open_files(edge.pid()),
    }


TITLES = {
    "streams": "streams open", "failed": "failed", "events": "events that came : due", "delay_p99_ms": "delay of an event, p99 ms",
    "cores": "cores", "kb_per_stream": "KB for a stream", "drift": "memory, end : begin - 1", "mb_open": "MB with streams",
    "mb_after": "MB after they were closed", "files_after": "descriptors after",
}


def run(options, folder):
    provider_port = table.port_free()
    log = folder / "provider.log"
    provider = table.start(table.pinned(options.load_core, [
        options.bins / "provider", "--listen", f"127.0.0.1:{provider_port}"]), log)
    edge = None
    try:
        table.wait_ready(provider, provider_port, table.STATIC_KEY, log)
        edge = overload.Edge("tokenrouted", options.bins, folder, provider_port, options.proxy_core)
        edge.start()
        # The first answer that is cut off has its tokens counted, for which much is loaded once.
        warm = argparse.Namespace(**{**vars(options), "streams": 4, "seconds": 0.5, "warmup": 0.1, "pause": 2.0})
        cycle(warm, edge, options.cycles)
        idle, files = rss_kb(edge.pid()) / 1024, open_files(edge.pid())
        cycles = [cycle(options, edge, turn) for turn in range(options.cycles)]
        time.sleep(options.rest)
        rested = rss_kb(edge.pid()) / 1024
    finally:
        if edge:
            edge.stop()
        table.stop(provider)
    found = {
        "idle_mb": idle, "idle_files": files, "cycles": cycles, "rested_mb": rested,
        "last_to_first": cycles[-1]["mb_after"] / cycles[0]["mb_after"], "rested_to_idle": rested / idle,
    }
    print_cycles(options, found)
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(found, indent=1))


def print_cycles(options, found):
    cycles = found["cycles"]
    print(f"\n{options.streams} streams, an event a second each, for {options.seconds:g} s; {len(cycles)} times\n")
    print("| | " + " | ".join(f"cycle {turn + 1}" for turn in range(len(cycles))) + " |")
    print("|---" * (len(cycles) + 1) + "|")
    for name, title in TITLES.items():
        print(f"| {title} | " + " | ".join(f"{one[name]:.4g}" for one in cycles) + " |")
    print(f"\nMB at rest before: {found['idle_mb']:.1f}, descriptors {found['idle_files']}; after the last cycle : after the first: "
          f"{found['last_to_first']:.2f}; {options.rest:g} s later: {found['rested_mb']:.1f} MB, {found['rested_to_idle']:.2f} of before")


def read_options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bins", type=pathlib.Path, default=table.FOLDER.parent / "target" / "release",
                        help="folder of the release binaries")
    parser.add_argument("--streams", type=int, default=8000)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each measurement; 600 for the whole bar")
    parser.add_argument("--warmup", type=float, default=5.0, help="seconds before each measurement, with all streams open")
    parser.add_argument("--cycles", type=int, default=3)
    parser.add_argument("--pause", type=float, default=15.0,
                        help="seconds after each cycle, before memory is read: the allocator gives it back within 10")
    parser.add_argument("--rest", type=float, default=30.0, help="seconds after the last cycle, before memory is read again")
    parser.add_argument("--proxy-core", type=int, default=1)
    parser.add_argument("--load-core", type=int, default=0)
    parser.add_argument("--json", help="a file for the figures")
    options = parser.parse_args()
    options.events = 0
    if not (1 <= options.streams <= 20_000 and 1 <= options.cycles <= 100 and 0.2 <= options.seconds <= 3600):
        parser.error("streams, cycles or seconds are out of bounds")
    return options


def main():
    options = read_options()
    if not {options.proxy_core, options.load_core} <= os.sched_getaffinity(0):
        sys.exit("streams.py: this process may not use these cores")
    overload.raise_descriptors()
    with tempfile.TemporaryDirectory(prefix="tokenroute-streams-") as folder:
        try:
            run(options, pathlib.Path(folder))
        except table.Failed as failure:
            sys.exit(f"streams.py: {failure}")


if __name__ == "__main__":
    main()
