#!/usr/bin/env python3
"""Holds the call path to its counts: instructions of its pure parts (callgrind), and system calls of a whole call (strace).

Counts are the same on every machine, as times are not. `counts.json` has what they were when somebody last looked; this
fails where one has grown by more than a quarter, and says so where one has shrunk as much: then `count.py --write`.
"""

import argparse
import http.client
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.dont_write_bytecode = True
sys.path.insert(0, str(ROOT / "tests" / "e2e"))

from harness import ports  # noqa: E402 (after its folder is known)
from harness.gateway import CREDENTIAL, Gateway  # noqa: E402
from harness.provider import Provider  # noqa: E402

COUNTS = pathlib.Path(__file__).with_name("counts.json")
SLACK = 1.25
CASES = {"body of 1 KB": 500, "body of 100 KB": 20, "answer": 500, "100 events": 50}
CALLS = 200
ATTACH_SECONDS_MAX = 10
# What a call may do on a socket; the rest is the runtime's own.
SYSTEM_CALLS = ("recvfrom", "recvmsg", "read", "readv", "sendto", "sendmsg", "write", "writev", "getpeername", "getsockname",
                "setsockopt", "getsockopt", "shutdown", "close", "socket", "connect")


def run(*command, **options):
    return subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True, **options)


def target_folder():
    metadata = run("cargo", "metadata", "--format-version", "1", "--no-deps", "--offline", cwd=ROOT).stdout
    return pathlib.Path(json.loads(metadata)["target_directory"])


def instructions(program, case, times):
    told = run("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", program, case, times).stderr
    return int(re.search(r"Collected : (\d+)", told).group(1))


def count_instructions():
    """Instructions of one run of each case: what more runs cost more."""
    run("cargo", "build", "--quiet", "--profile", "counted", "--package", "tokenroute-wire", "--example", "instructions", cwd=ROOT)
    program = target_folder() / "counted" / "examples" / "instructions"
    counts = {}
    for case, times in CASES.items():
        more = instructions(program, case, 2 * times) - instructions(program, case, times)
        counts[f"instructions: {case}"] = round(more / times)
    return counts


def edge_thread(pid):
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        if (task / "comm").read_text().strip().startswith("edge"):
            return task.name
    sys.exit("count.py: the gateway has no thread named edge")


def trace(thread, out):
    """strace on one thread, attached."""
    tracer = subprocess.Popen(["strace", "-c", "-U", "calls,name", "-o", str(out), "-p", thread], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + ATTACH_SECONDS_MAX
    while "attached" not in tracer.stderr.readline():
        if tracer.poll() is not None or time.monotonic() > deadline:
            sys.exit("count.py: strace cannot attach; it needs the right to trace processes")
    return tracer


def count_system_calls():
    """System calls of the thread that serves, for a call on connections that are kept, the client's and the provider's."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="tokenroute-counts-"))
    provider = Provider(folder, ports.free(), key=CREDENTIAL)
    # One thread does it all, and says nothing of it.
    gateway = Gateway(folder / "gateway", provider, threads=1, sections='[log]\nlevel = "warn"\n').start()
    try:
        call(gateway, 20)
        tracer = trace(edge_thread(gateway.process.child.pid), folder / "calls")
        call(gateway, CALLS)
        tracer.terminate()
        tracer.wait()
        lines = [line.split() for line in (folder / "calls").read_text().splitlines()]
    finally:
        gateway.stop()
        provider.process.stop()
        shutil.rmtree(folder)
    made = {line[1]: int(line[0]) for line in lines if len(line) == 2 and line[0].isdigit()}
    return {"system calls on sockets": round(sum(made.get(name, 0) for name in SYSTEM_CALLS) / CALLS, 2)}


def call(gateway, times):
    """So many calls, one after the other on one connection."""
    connection = http.client.HTTPConnection(*gateway.address, timeout=10)
    body = json.dumps({"messages": [{"role": "user", "content": "word " * 100}], "model": "box/echo"})
    for _ in range(times):
        connection.request("POST", "/v1/chat/completions", body, {"Authorization": f"Bearer {gateway.key}", "Content-Type": "application/json"})
        answer = connection.getresponse()
        if answer.read() and answer.status != 200:
            sys.exit(f"count.py: a call was answered with {answer.status}")
    connection.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="takes the counts as they are now for those to be held")
    write = parser.parse_args().write
    counts = count_instructions() | count_system_calls()
    held = json.loads(COUNTS.read_text()) if COUNTS.exists() else {}
    failed = False
    for name, count in counts.items():
        ratio = count / held.get(name, count)
        word = "grown" if ratio > SLACK else "shrunk" if ratio < 1 / SLACK else "ok"
        failed |= ratio > SLACK
        print(f"{name}: {count} ({ratio:.2f} of what it was, {word})")
    if write:
        COUNTS.write_text(json.dumps(counts, indent=1) + "\n")
    elif failed or held.keys() != counts.keys():
        sys.exit("count.py: the call path does more than it did. If it must, say why in the commit that runs count.py --write.")


if __name__ == "__main__":
    main()
