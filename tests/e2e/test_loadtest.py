"""The load tests' scripts, in small: that they measure, not what they measure. A small run has no say about speed."""

import json
import os
import subprocess
import sys

from harness import programs


def run_script(folder, name, *arguments):
    """Runs a script on the programs under test, and reads its figures."""
    figures, cores = folder / "figures.json", sorted(os.sched_getaffinity(0))
    ran = subprocess.run(
        [sys.executable, programs.ROOT / "loadtest" / name, "--bins", programs.find("driver").parent, "--json", figures,
         "--proxy-core", str(cores[-1]), "--load-core", str(cores[0]), *arguments],
        capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return json.loads(figures.read_text()), ran.stdout


def test_many_streams(folder):
    found, shown = run_script(
        folder, "streams.py", "--streams", "200", "--seconds", "3", "--warmup", "1", "--cycles", "2", "--pause", "1", "--rest", "0")
    assert [(one["streams"], one["failed"]) for one in found["cycles"]] == [(200, 0)] * 2, shown
    for one in found["cycles"]:
        assert 0.5 < one["events"] < 1.5 and one["kb_per_stream"] > 0 and one["mb_after"] > 1, shown
        # Nothing of a stream is left open.
        assert one["files_after"] <= found["idle_files"] + 8, shown
    assert "cycle 2" in shown


def test_overload(folder):
    found, shown = run_script(folder, "overload.py", "--only", "small", "--seconds", "2", "--warmup", "1", "--scale", "0.2")
    small = found["small"]
    assert small["errors"] == 0 and small["goodput"] > 0 and small["after"] > 0, shown
    assert small["offered_per_second"] >= 3.9 * small["most_per_second"], shown
