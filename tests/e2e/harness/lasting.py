"""A node that is meant to last: its process is replaced now and then, and what it takes of the machine is looked at."""

import contextlib
import dataclasses
import os
import pathlib
import signal

from harness.edge import Edge
from harness.process import is_gone
from harness.waiting import until

# From a signal to the end of a process, seconds: streams have two to end by themselves.
END_SECONDS = 20


@dataclasses.dataclass
class Taken:
    """What a process takes of the machine."""

    descriptors: int
    threads: int
    tasks: int
    megabytes: float


class Lasting(Edge):
    """A node of which the serving process is found by its own word, since an upgrade changes it."""

    @property
    def pid(self):
        if self.role == "control":
            return self.process.pid
        return int((self.state / "tokenrouted.pid").read_text())

    def end(self, how):
        """Ends the serving process by a signal."""
        pid = self.pid
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, how)
        until(lambda: self.process.child.poll() is not None or self.process.pid != pid, f"{pid} is heard of", END_SECONDS)
        until(lambda: is_gone(pid), f"{pid} has ended", END_SECONDS)

    def kill(self):
        self.end(signal.SIGKILL)

    def stop(self):
        # A start that failed may have left none.
        with contextlib.suppress(OSError, ValueError):
            pid = self.pid
            try:
                self.end(signal.SIGINT)
            except AssertionError:
                os.kill(pid, signal.SIGKILL)
                raise
        self.process.stop()

    def upgrade(self):
        """Its successor serves when this returns."""
        before = self.pid
        ran = self.command("upgrade")
        assert ran.returncode == 0, ran.stdout + ran.stderr
        until(lambda: self.pid != before and is_gone(before), "the predecessor has gone", END_SECONDS)

    def taken(self):
        process = pathlib.Path(f"/proc/{self.pid}")
        status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        return Taken(
            len(list((process / "fd").iterdir())), len(list((process / "task").iterdir())),
            0 if self.role == "control" else int(self.metric("tokenroute_tasks")), int(status["VmRSS"].split()[0]) / 1024)
