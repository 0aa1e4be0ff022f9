"""Where the programs under test are."""

import os
import pathlib
import shutil

ROOT = pathlib.Path(__file__).resolve().parents[3]
_BUILT = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug"


def built():
    """Where cargo put what it built."""
    return _BUILT


def find(name):
    """A program of this repository: `$TOKENROUTED`, `$PROVIDER`, else the one that cargo built."""
    path = pathlib.Path(os.environ.get(name.upper(), _BUILT / name))
    assert path.is_file(), f"{path} is not there: make e2e builds it"
    return path


def find_on_path(name):
    """A program of the system. Missing is a failure, never a reason to skip."""
    # Servers are in folders that are not on every user's PATH.
    path = shutil.which(name, path=f"{os.environ['PATH']}:/usr/local/sbin:/usr/sbin:/sbin")
    assert path, f"{name} is not installed: make setup"
    return path
