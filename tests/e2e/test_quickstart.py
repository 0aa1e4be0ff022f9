"""The README's quickstart, run as it stands there, and what follows it."""

import os
import pathlib
import re
import signal
import subprocess
import sys

import pytest

from harness import ports, programs, raw
from harness.cli import Cli
from harness.gateway import KEY
from harness.waiting import until

MARK = "<!-- tests/e2e/test_quickstart.py runs this as it stands here. -->"
# What the edge promises between a revocation and the last call that it lets through.
REVOKED_SECONDS = 1.0

CONFIG = """
state_dir = "{state}"
[listen]
address = "127.0.0.1:{edge}"
threads = 1
[admin]
address = "127.0.0.1:{admin}"
[control]
address = "127.0.0.1:{control}"
[limits]
lag_seconds_max = 0
"""


def script():
    """The block of shell under the mark."""
    text = (programs.ROOT / "README.md").read_text().partition(MARK)[2]
    return re.match(r"\s*```sh\n(.*?)```", text, re.S)[1]


@pytest.fixture
def quickstart(folder):
    """The script has been run, on ports of our own; the gateway that it started goes with the test."""
    edge, admin, control = ports.free(), ports.free(), ports.free()
    state = folder / "state"
    (folder / "tokenroute.toml").write_text(CONFIG.format(state=state, edge=edge, admin=admin, control=control))
    url = f"http://127.0.0.1:{control}"
    folders = [programs.find("tokenroute").parent, pathlib.Path(sys.executable).parent]
    environment = {
        "PATH": ":".join([*map(str, folders), os.environ["PATH"]]), "HOME": str(folder),
        "TOKENROUTE_CONFIG": str(folder / "tokenroute.toml"), "TOKENROUTE_API_URL": url,
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script()], cwd=folder, env=environment, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=100,
    )
    yield done, Cli(folder, url), ("127.0.0.1", edge)
    os.kill(int((state / "tokenrouted.pid").read_text()), signal.SIGINT)


def test_the_readme_leads_from_nothing_to_a_call(quickstart):
    done, cli, address = quickstart
    assert done.returncode == 0, done.stderr + done.stdout
    assert "OK connected (demo/echo, " in done.stdout
    # The official SDK has streamed the echo with nothing but what `env` printed.
    assert "Hello from nothing" in done.stdout
    key = cli.file("last_key.txt").strip()
    assert KEY.fullmatch(key)
    # One call by `test`, one by the SDK.
    used = until(lambda: cli.run("usage", "--days", "1", json=True).json()["total_requests"] == 2, "both are counted")
    assert used
    listed = cli.run("keys", "list", json=True).json()
    identity = next(one["id"] for one in listed if key.startswith(one["key_prefix"]))
    assert cli.run("keys", "revoke", identity).code == 0

    def status():
        fields = [("authorization", f"Bearer {key}"), ("content-type", "application/json")]
        body = b'{"model":"demo/echo","messages":[{"role":"user","content":"Hello"}]}'
        head = raw.head("POST", "/v1/chat/completions", *fields, ("content-length", len(body)))
        return raw.exchange(address, head + body).status

    until(lambda: status() == 401, "the key is refused", REVOKED_SECONDS)
