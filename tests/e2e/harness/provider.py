"""The provider in a box, and what it saw."""

import base64
import json
import urllib.request

from harness import programs
from harness.process import Process
from harness.waiting import until

# Recorded streams, for `replay-NAME` and `said-NAME`.
RECORDED = programs.ROOT / "tests/fixtures"

FNV_OFFSET = 0xCBF29CE484222325
FNV_PRIME = 0x100000001B3


def fnv64(data):
    """FNV-1a of 64 bits, as `/__observed` tells it."""
    value = FNV_OFFSET
    for byte in data:
        value = ((value ^ byte) * FNV_PRIME) & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


def count_tokens(text):
    """The provider's token rule: one at the start and at each whitespace after another character."""
    starts = [
        here.isspace() and not before.isspace() for before, here in zip(text, text[1:], strict=False)
    ]
    return sum(starts) + 1 if text else 0


class Provider:
    """A running `provider`."""

    def __init__(self, folder, port, name="provider", key=None, truth=None):
        self.port = port
        self.key = key
        self.address = ("127.0.0.1", port)
        command = [programs.find("provider"), "--listen", f"127.0.0.1:{port}"]
        command += ["--recorded", RECORDED]
        command += ["--expect-key", key] if key else []
        command += ["--truth", truth] if truth else []
        self.process = Process(name, command, folder)
        self.process.await_ready(lambda: "listening on" in self.process.out(), "the provider listens")

    def base_url(self, script=None):
        """Its base URL; `script` names what it does whatever the model."""
        return f"http://127.0.0.1:{self.port}/{script + '/' if script else ''}v1"

    def _ask(self, path, method="GET", data=None):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.read()

    def forget(self):
        self._ask("/__observed", "DELETE")

    def begin_outage(self, name, part):
        """From now on each request whose model has the part `on-NAME` meets `part`."""
        self._ask(f"/__fault/{name}", "PUT", part.encode())

    def end_outage(self, name):
        self._ask(f"/__fault/{name}", "DELETE")

    def observed(self, **match):
        """The requests that it saw, or those whose members equal `match`."""
        seen = json.loads(self._ask("/__observed"))
        return [one for one in seen if all(one[name] == value for name, value in match.items())]

    def await_observed(self, what="a request arrives", **match):
        """The last request with these members, when there is one."""
        return until(lambda: self.observed(**match), f"{what}: {match}")[-1]

    def body(self, seen):
        """The body of an observed request, if it was kept (64 KiB)."""
        bodies = json.loads(self._ask("/__observed/bodies"))
        return next(base64.b64decode(one["base64"]) for one in bodies if one["id"] == seen["id"])
