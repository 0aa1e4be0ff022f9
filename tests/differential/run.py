#!/usr/bin/env python3
"""Holds the request scanner against CPython's and Node's readers of JSON.

`run.py [COUNT] [--seed N] [--release]` makes up COUNT bodies (20000 unless told otherwise), half of
them damaged, and fails unless all three agree on each: on whether it is sound, on the members that
decide routing or price, and on what the upstream reads in what we send.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True

import check  # noqa: E402 (after the line above, so that no cache is left in the tree)

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
ROUND_BODIES = 50_000
SHOWN_MAX = 10


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("count", nargs="?", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--release", action="store_true")
    return parser.parse_args()


def write_bodies(seed, count, path, release):
    command = ["cargo", "run", "--quiet", "--package", "tokenroute-fuzz", "--example", "bodies"]
    command += ["--release"] if release else []
    command += ["--", str(seed), str(count), str(path)]
    subprocess.run(command, cwd=ROOT, check=True)


def show(wrong, record):
    body, found, sent = record
    print(f"CPython: {wrong}\n  found {found}\n  body  {body.hex()}\n  sent  {sent.hex()}")


def check_round(folder, seed, count, release, tally):
    """One round of bodies. Returns how many were judged wrongly."""
    records, verdicts = folder / "records", folder / "verdicts"
    write_bodies(seed, count, records, release)
    node = subprocess.run(["node", str(HERE / "check.mjs"), str(records), str(verdicts)])
    if node.returncode not in (0, 1):
        raise SystemExit("Node did not finish")
    failed = node.returncode
    checked = 0
    for wrong, record in check.check_file(records, verdicts):
        checked += 1
        verdict = record[1]["verdict"]
        tally[verdict] = tally.get(verdict, 0) + 1
        if wrong:
            failed += 1
            if failed <= SHOWN_MAX:
                show(wrong, record)
    if checked != count:
        raise SystemExit(f"{checked} bodies of {count} were checked")
    return failed


def main():
    options = arguments()
    done, failed, tally = 0, 0, {}
    with tempfile.TemporaryDirectory() as name:
        while done < options.count:
            count = min(ROUND_BODIES, options.count - done)
            seed = options.seed * 1_000_003 + done
            failed += check_round(pathlib.Path(name), seed, count, options.release, tally)
            done += count
    print(", ".join(f"{verdict} {count}" for verdict, count in sorted(tally.items())))
    print(f"{done - failed} passed, {failed} failed")
    sys.exit(1 if failed or not done else 0)


if __name__ == "__main__":
    main()
