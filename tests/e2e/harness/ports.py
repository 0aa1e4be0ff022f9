"""Free loopback ports, each handed out once in a test process."""

import os
import socket

# Below the range that the kernel gives to outgoing connections, so that none of these is taken later.
FIRST = 20_000
PER_WORKER = 2_000
_handed_out = 0


def free():
    """A port that nobody listens on."""
    global _handed_out
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    while _handed_out < PER_WORKER:
        port = FIRST + worker * PER_WORKER + _handed_out
        _handed_out += 1
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no loopback port is free")
