#!/usr/bin/env bash
# packages.sh COMMAND…: installs the Debian packages that bring these commands, for those that are missing.
set -euo pipefail

missing=()
for command in "$@"; do
    # Servers are in folders that are not on every user's PATH.
    PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin:$(echo /usr/lib/postgresql/*/bin | tr ' ' :)" command -v "$command" >/dev/null || missing+=("$command")
done
if [ "$#" -eq 0 ] || [ "${#missing[@]}" -eq 0 ]; then
    exit 0
fi

# Each of these commands is in a package of its own name, but for these.
packages=("${missing[@]/#python3-ensurepip/python3-venv}")
packages=("${packages[@]/%postgres/postgresql}")
as_root=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || { echo "please install: ${packages[*]}" >&2; exit 1; }
    as_root=(sudo)
fi
command -v apt-get >/dev/null || { echo "please install: ${packages[*]}" >&2; exit 1; }
echo "installing ${packages[*]} (apt-get)"
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${packages[@]}" >/dev/null
