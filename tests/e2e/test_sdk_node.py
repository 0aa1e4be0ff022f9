"""The official Node SDK against the gateway; what it does is in sdk.mjs."""

import os
import pathlib
import subprocess

from harness import programs


def test_node(shared):
    node = programs.find_on_path("node")
    environment = os.environ | {"GATEWAY": f"{shared.base_url} {shared.key}", "NODE_NO_WARNINGS": "1"}
    ran = subprocess.run(
        [node, "--test", "--test-reporter=tap", "sdk.mjs"], env=environment,
        cwd=pathlib.Path(__file__).parent, capture_output=True, text=True, timeout=90,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "\n# fail 0" in ran.stdout and "\n# pass 11" in ran.stdout, ran.stdout
