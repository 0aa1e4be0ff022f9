"""What an operator meets: the first start, the checker, the pages, the words of a refusal to start."""

import json
import re
import socket
import stat
import subprocess

import pytest

from harness import ports, programs
from harness.gateway import KEY, chat
from harness.process import Process
from harness.waiting import until


def run(*words, folder, **environment):
    """A command of `tokenrouted` to its end."""
    return subprocess.run(
        [programs.find("tokenrouted"), *map(str, words)], capture_output=True, text=True, timeout=20, cwd=folder,
        env={"HOME": str(folder)} | environment,
    )


def modes(folder):
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


@pytest.fixture
def defaults(folder):
    """A file that moves the embedded defaults to free ports and says nothing else."""
    path = folder / "ports.toml"
    path.write_text(f"""
[listen]
address = "127.0.0.1:{ports.free()}"
[admin]
address = "127.0.0.1:{ports.free()}"
[control]
address = "127.0.0.1:0"
[shutdown]
delay_seconds = 0
""")
    return path


def start_by_hand(folder, defaults, name="first", **environment):
    """What `make run` does, on other ports."""
    command = [programs.find("tokenrouted"), "run", "--config", defaults]
    process = Process(name, command, folder, {"TOKENROUTE_STATE_DIR": str(folder / "state")} | environment)
    process.await_ready(lambda: "tokenrouted serves" in process.out(), "it says where it is")
    return process


def test_the_first_start_prints_a_line_that_works(folder, defaults):
    process = start_by_hand(folder, defaults)
    try:
        until(lambda: "curl" in process.out(), "the curl line is printed")
        printed = process.out()
        line = next(line for line in printed.splitlines() if line.strip().startswith("curl"))
        ran = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=20)
        assert ran.returncode == 0, ran.stderr
        assert json.loads(ran.stdout)["choices"][0]["message"]["content"] == "Hello"
        # The same, streamed.
        streamed = line.replace('{"model"', '{"stream":true,"model"')
        ran = subprocess.run(["bash", "-c", streamed], capture_output=True, text=True, timeout=20)
        assert ran.stdout.endswith("data: [DONE]\n\n")
        assert len(KEY.findall(printed)) == 2 and len(set(KEY.findall(printed))) == 1
        assert stat.S_IMODE((folder / "state").stat().st_mode) == 0o700
        kept = modes(folder / "state")
        assert kept.pop("journal") == 0o700, "a folder for its owner alone"
        assert {"pepper", "tokenroute.db"} <= kept.keys() and set(kept.values()) == {0o600}
    finally:
        process.stop()
    again = start_by_hand(folder, defaults, "second")
    try:
        until(lambda: "tokenrouted keys" in again.out(), "it says how to make keys")
        assert not KEY.search(again.out())
        ran = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=20)
        assert json.loads(ran.stdout)["object"] == "chat.completion"
    finally:
        again.stop()


def test_presets_come_up_by_their_variables(folder, defaults):
    keys = {"OPENAI_API_KEY": "openai-canary", "ANTHROPIC_API_KEY": "a", "GEMINI_API_KEY": "g",
            "DEEPSEEK_API_KEY": "d", "MISTRAL_API_KEY": "m", "XAI_API_KEY": "x"}
    process = start_by_hand(folder, defaults, **keys)
    try:
        key = until(lambda: KEY.search(process.out()), "the key is printed")[0]
        base = re.search(r"http://[\d.:]+/v1", process.out())[0]
        listed = subprocess.run(["curl", "-s", f"{base}/models", "-H", f"Authorization: Bearer {key}"],
                                capture_output=True, text=True, timeout=10)
        names = [model["id"] for model in json.loads(listed.stdout)["data"]]
        for provider in ("openai", "anthropic", "gemini", "deepseek", "mistral", "xai", "demo"):
            assert any(name.startswith(f"{provider}/") for name in names), provider
        assert "openai-canary" not in process.out() + process.log()
    finally:
        process.stop()


PROBLEMS = """
colour = "red"
[listen]
address = "localhost"
threads = "many"
[providers.a]
base_url = "http://192.0.2.1/v1"
credential_env = "NOT_SET_ANYWHERE"
[providers.b]
[[routes]]
model = "m"
targets = [{ provider = "gone", model = "x", weight = -1 }]
"""


def test_check_tells_every_problem_with_its_path(folder):
    path = folder / "broken.toml"
    path.write_text(PROBLEMS)
    ran = run("check", path, folder=folder)
    assert ran.returncode == 1
    for place in ["colour", "listen.address", "listen.threads", "providers.a.base_url", "providers.a.credential_env",
                  "providers.b.base_url", "routes[0].targets[0].provider", "routes[0].targets[0].weight"]:
        assert any(line.startswith(f"{place}:") for line in ran.stderr.splitlines()), (place, ran.stderr)


def test_check_says_ok(folder):
    reference = programs.ROOT / "conf" / "tokenroute.toml"
    ran = run("check", reference, folder=folder)
    assert ran.returncode == 0 and "ok" in ran.stdout
    assert not (folder / ".local").exists()
    assert run("check", folder / "none.toml", folder=folder).returncode == 1


def test_what_cannot_start_says_why(folder, defaults):
    broken = folder / "broken.toml"
    broken.write_text(PROBLEMS)
    ran = run("run", "--config", broken, folder=folder)
    assert ran.returncode == 1 and "listen.address" in ran.stderr
    (folder / "state").mkdir(mode=0o755)
    ran = run("run", "--config", defaults, folder=folder, TOKENROUTE_STATE_DIR=str(folder / "state"))
    assert ran.returncode == 2 and "chmod 700" in ran.stderr
    (folder / "state").chmod(0o700)
    (folder / "state" / "pepper").write_text("too short")
    (folder / "state" / "pepper").chmod(0o600)
    ran = run("run", "--config", defaults, folder=folder, TOKENROUTE_STATE_DIR=str(folder / "state"))
    assert ran.returncode == 2 and "pepper" in ran.stderr


def test_an_address_that_is_taken_ends_the_start(folder, defaults):
    port = int(re.search(r":(\d+)\"", defaults.read_text())[1])
    with socket.create_server(("127.0.0.1", port)):
        ran = run("run", "--config", defaults, folder=folder, TOKENROUTE_STATE_DIR=str(folder / "state"))
    assert ran.returncode == 2
    assert f"127.0.0.1:{port}" in ran.stderr


def test_a_kill_leaves_a_sound_database(start):
    gateway = start()
    for _ in range(20):
        assert gateway.ask(chat("box/echo")).status == 200
    gateway.await_records(20)
    gateway.process.child.kill()
    gateway.process.await_end()
    gateway.start()
    assert gateway.ask(chat("box/echo")).status == 200
    gateway.await_records(21)
    assert gateway.query("PRAGMA integrity_check") == [{"integrity_check": "ok"}]


def test_pages_are_on_the_admin_address_alone(shared):
    assert shared.page("/healthz") == (200, "ok\n")
    assert shared.page("/readyz")[0] == 200
    assert shared.page("/nothing")[0] == 404
    assert shared.page("/v1/models")[0] == 404
    client = shared.client()
    for path in ("/healthz", "/readyz", "/metrics", "/v1/metrics"):
        assert client._client.get(f"http://127.0.0.1:{shared.port}{path}").status_code == 404


SERIES = re.compile(r"^tokenroute_\w+(\{[^}]*\})? [-+0-9.eE]+$")


def test_metrics_move_and_stay_bounded(start):
    gateway = start()

    def series():
        lines = [line for line in gateway.page("/metrics")[1].splitlines() if not line.startswith("#")]
        assert all(SERIES.match(line) for line in lines), lines
        return {line.rpartition(" ")[0] for line in lines}

    gateway.ask(chat("box/echo", "one two three"))
    gateway.ask(chat("box/words-7", stream=True))
    gateway.await_records(2)
    assert gateway.metric("tokenroute_calls_total", endpoint="chat_completions", outcome="answered") == 2
    assert gateway.metric("tokenroute_route_tokens_total", route="box/echo", direction="input") == 3
    assert gateway.metric("tokenroute_route_tokens_total", route="box/*", direction="output") == 7
    assert gateway.metric("tokenroute_route_cost_nano_usd_total", route="box/echo") == 3 * 1_000 + 3 * 4_000
    assert gateway.metric("tokenroute_first_token_seconds_count") >= 1
    until(lambda: any("tokenroute_tasks{runtime=\"background\"}" in one for one in series()), "tasks are counted")
    before = series()
    for number in range(30):
        gateway.ask(chat(f"box/words-{number + 1}"))
        gateway.ask(chat(f"acme/{number}"))
        gateway.ask(b"{}", path=f"/v1/none/{number}")
    gateway.ask(chat("box/status-500"))  # and once more by the gateway itself
    assert series() == before
    assert gateway.metric("tokenroute_calls_total", outcome="refused") == 60
    assert gateway.metric("tokenroute_attempt_failures_total") == 2
    assert gateway.metric("tokenroute_panics_total") == 0
