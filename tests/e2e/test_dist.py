"""What is published of the command line, installed as its users do: by uvx, pipx and npx, each in a fresh home, from
local files, without a network."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

from harness import programs, registry
from harness import scripted_gateway as contract
from harness.cli import Cli
from harness.scripted import Scripted, hang, refusal
from harness.scripted_gateway import KEY
from harness.waiting import until

# Whoever asks for anything but this machine is told that there is nobody.
NOWHERE = "http://127.0.0.1:9"
OFFLINE = {
    **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"), NOWHERE),
    **dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost"),
}


@pytest.fixture(scope="module")
def dist():
    folder = programs.built().parent / "dist"
    assert list(folder.glob("*.whl")), f"{folder} is empty: make e2e fills it"
    return folder


@pytest.fixture
def gateway():
    running = Scripted()
    running.answers = contract.answers(running.url)
    yield running
    running.stop()


def tool(name):
    """A program that the tests' Python environment brings."""
    path = pathlib.Path(sys.executable).with_name(name)
    assert path.exists(), f"{name} is not installed: make setup"
    return path


@pytest.fixture
def uvx(dist, folder, gateway):
    words = [tool("uvx"), "--offline", "--no-config", "--no-index", "--find-links", dist]
    words += ["--python", sys.executable, "tokenroute"]
    return Cli(folder / "home", gateway.url, words, TOKENROUTE_API_KEY=KEY, **OFFLINE)


@pytest.fixture
def pipx(dist, folder, gateway):
    home = folder / "home"
    environment = {
        "HOME": str(home), "PATH": os.environ["PATH"], "PIPX_DEFAULT_PYTHON": sys.executable,
        # pipx installs by uv where it finds it, as here, and else by pip.
        "UV_NO_INDEX": "1", "UV_OFFLINE": "1", "UV_NO_CONFIG": "1", "UV_FIND_LINKS": str(dist),
        "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(dist), "PIP_CONFIG_FILE": os.devnull, **OFFLINE,
    }
    home.mkdir()
    done = subprocess.run([tool("pipx"), "install", "tokenroute"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return Cli(home, gateway.url, [home / ".local/bin/tokenroute"], TOKENROUTE_API_KEY=KEY)


@pytest.fixture
def npx(dist, folder, gateway):
    served = registry.serve(dist)
    words = [programs.find_on_path("npx"), "--yes", "tokenroute@latest"]
    environment = {"npm_config_registry": served.url, "npm_config_update_notifier": "false", **OFFLINE}
    yield Cli(folder / "home", gateway.url, words, TOKENROUTE_API_KEY=KEY, **environment)
    served.stop()


@pytest.fixture(params=["uvx", "pipx", "npx"])
def cli(request):
    return request.getfixturevalue(request.param)


def test_it_runs_and_passes_exit_codes_on(cli, gateway):
    assert cli.run("balance", json=True).json() == contract.BALANCE
    assert cli.run("--version").out.strip() == f"tokenroute {version()}"
    gateway.answers["GET /api/v1/balance"] = refusal(402, "balance")
    done = cli.run("balance", json=True)
    assert (done.code, done.out) == (1, "")
    assert cli.run("balance", TOKENROUTE_API_URL=NOWHERE).code == 2
    gateway.answers["GET /api/v1/balance"] = refusal(503, "unavailable")
    assert cli.run("balance").code == 3


def version():
    words = [programs.find("tokenroute"), "--version"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()[1]


def test_all_packages_have_one_version(dist):
    wheels = [path.name.split("-")[1] for path in dist.glob("*.whl")]
    packages = [registry.description(path) for path in dist.glob("*.tgz")]
    assert {*wheels, *(one["version"] for one in packages)} == {version()}
    main = next(one for one in packages if one["name"] == "tokenroute")
    platforms = main["optionalDependencies"]
    assert set(platforms.values()) == {version()} and len(platforms) == 8
    assert {one["name"] for one in packages} - {"tokenroute"} <= set(platforms)
    # Installing runs nothing.
    assert all("scripts" not in one for one in packages)


@pytest.fixture
def unpacked(dist, folder):
    """The package that picks, by itself."""
    path = next(path for path in dist.glob("*.tgz") if registry.description(path)["name"] == "tokenroute")
    subprocess.run(["tar", "-xzf", path, "-C", folder], check=True)
    return folder / "package"


def test_where_no_program_was_installed_it_says_so(unpacked, folder, gateway):
    words = [programs.find_on_path("node"), unpacked / "bin/tokenroute.js"]
    cli = Cli(folder / "home", gateway.url, words)
    done = cli.run("balance")
    assert done.code == 1 and "is not installed" in done.err
    assert cli.run("balance", json=True).error()["metadata"]["reason"] == "installation"


def test_a_signal_is_passed_on(unpacked, folder, gateway):
    """What ends the program ends the one that started it, and looks the same from outside."""
    name = subprocess.run(
        ["node", "-p", "process.platform + '-' + process.arch"], capture_output=True, text=True, check=True,
    ).stdout.strip()
    place = unpacked / "node_modules/@tokenroute" / name / "bin"
    place.mkdir(parents=True)
    (place / "tokenroute").symlink_to(programs.find("tokenroute"))
    gateway.answers["GET /api/v1/balance"] = hang
    cli = Cli(folder / "home", gateway.url, ["node", unpacked / "bin/tokenroute.js"], TOKENROUTE_API_KEY=KEY)
    running = cli.start("balance")
    until(lambda: gateway.asked("GET /api/v1/balance"), "the program asks")
    children = pathlib.Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGTERM)
    running.communicate(timeout=30)
    assert running.returncode == -signal.SIGTERM
