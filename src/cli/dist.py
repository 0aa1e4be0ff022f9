#!/usr/bin/env python3
"""Builds what is published of the command line into one folder: a wheel for PyPI, and for npm the package of this
platform and the one that picks among platforms. All have Cargo's version and the same program.

    dist.py [--out FOLDER] [--profile release] [--target TRIPLE] [--zig]

A wheel that old systems take is built with `--target x86_64-unknown-linux-musl`, or with `--zig`."""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
NAME = "tokenroute"

# What is built for: Rust's name, npm's, and what npm goes by.
PLATFORMS = {
    "x86_64-unknown-linux-gnu": ("linux-x64", {"os": ["linux"], "cpu": ["x64"], "libc": ["glibc"]}),
    "aarch64-unknown-linux-gnu": ("linux-arm64", {"os": ["linux"], "cpu": ["arm64"], "libc": ["glibc"]}),
    "x86_64-unknown-linux-musl": ("linux-x64-musl", {"os": ["linux"], "cpu": ["x64"], "libc": ["musl"]}),
    "aarch64-unknown-linux-musl": ("linux-arm64-musl", {"os": ["linux"], "cpu": ["arm64"], "libc": ["musl"]}),
    "x86_64-apple-darwin": ("darwin-x64", {"os": ["darwin"], "cpu": ["x64"]}),
    "aarch64-apple-darwin": ("darwin-arm64", {"os": ["darwin"], "cpu": ["arm64"]}),
    "x86_64-pc-windows-msvc": ("win32-x64", {"os": ["win32"], "cpu": ["x64"]}),
    "aarch64-pc-windows-msvc": ("win32-arm64", {"os": ["win32"], "cpu": ["arm64"]}),
}


def run(*words, **more):
    return subprocess.run([str(word) for word in words], check=True, **more)


def host():
    said = run("rustc", "--version", "--verbose", capture_output=True, text=True).stdout
    return next(line.split()[1] for line in said.splitlines() if line.startswith("host:"))


def version():
    said = run("cargo", "metadata", "--format-version", "1", "--no-deps", "--locked",
               cwd=ROOT, capture_output=True, text=True).stdout
    packages = json.loads(said)["packages"]
    return next(one["version"] for one in packages if one["name"] == f"{NAME}-cli")


def wheel(options, out):
    """Builds the wheel and gives its path."""
    # The one that runs this script may be in an environment that is not on the PATH.
    beside = pathlib.Path(sys.executable).with_name("maturin")
    maturin = beside if beside.exists() else shutil.which("maturin")
    assert maturin, "maturin is not installed: make setup"
    words = [maturin, "build", "--locked", "--profile", options.profile, "--out", out]
    words += ["--manifest-path", HERE / "Cargo.toml"]
    words += ["--target", options.target] if options.target else []
    words += ["--zig"] if options.zig else []
    before = set(out.glob("*.whl"))
    run(*words, cwd=ROOT)
    built = set(out.glob("*.whl")) - before
    assert len(built) == 1, f"maturin built {sorted(built)}"
    return built.pop()


def program(path, into):
    """Takes the program out of the wheel: what npm gives is what PyPI gives."""
    with zipfile.ZipFile(path) as archive:
        inside = next(name for name in archive.namelist() if ".data/scripts/" in name)
        into.mkdir(parents=True)
        target = into / pathlib.PurePosixPath(inside).name
        target.write_bytes(archive.read(inside))
    target.chmod(0o755)


def pack(folder, description, out):
    """Writes the description of an npm package beside its files, and packs it."""
    (folder / "package.json").write_text(json.dumps(description, indent=2) + "\n")
    shutil.copy(ROOT / "LICENSE", folder)
    shutil.copy(HERE / "README.md", folder)
    run("npm", "pack", "--silent", "--ignore-scripts", "--pack-destination", out, cwd=folder, stdout=subprocess.DEVNULL)


def npm(path, triple, out):
    name, constraints = PLATFORMS[triple]
    main = json.loads((HERE / "npm/package.json").read_text())
    common = {"version": version(), "license": main["license"]}
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        program(path, folder / "platform/bin")
        described = {"name": f"@{NAME}/{name}", "description": f"{main['description']}: the program for {name}"}
        pack(folder / "platform", described | common | constraints | {"files": ["bin/"], "preferUnplugged": True}, out)
        shutil.copytree(HERE / "npm", folder / "main")
        platforms = {f"@{NAME}/{one}": common["version"] for one, _ in PLATFORMS.values()}
        pack(folder / "main", main | common | {"optionalDependencies": platforms}, out)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "dist")
    parser.add_argument("--profile", default="release")
    parser.add_argument("--target", choices=sorted(PLATFORMS))
    parser.add_argument("--zig", action="store_true")
    options = parser.parse_args()
    out = options.out.resolve()
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    npm(wheel(options, out), options.target or host(), out)
    for path in sorted(out.iterdir()):
        print(f"{os.path.relpath(path)}  {path.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()
