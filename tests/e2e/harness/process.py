"""One program under test: what it prints is kept, and it never outlives the test."""

import os
import pathlib
import signal
import subprocess

from harness.waiting import until

STOP_SECONDS = 10.0


def is_gone(process):
    """Whether it runs no more; a parent that is on its way out itself may not have noticed."""
    try:
        return pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


class Process:
    """A running program."""

    def __init__(self, name, command, folder, environment=None):
        self.name = name
        self.out_path = folder / f"{name}.out"
        self.err_path = folder / f"{name}.err"
        # A clean environment: a developer's own variables must not turn providers on.
        clean = {"PATH": os.environ["PATH"], "HOME": str(folder)} | (environment or {})
        # Appended to, so that a program that is started again adds to what the first one said.
        with open(self.out_path, "ab") as out, open(self.err_path, "ab") as err:
            self.child = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=folder, env=clean,
            )

    @property
    def pid(self):
        return self.child.pid

    def out(self):
        return self.out_path.read_text()

    def log(self):
        return self.err_path.read_text()

    def alive(self):
        return self.child.poll() is None

    def await_ready(self, ready, what):
        """Waits until `ready` says so; fails at once if the program ends before."""

        def check():
            if not self.alive():
                raise AssertionError(
                    f"{self.name} ended with {self.child.returncode}: {self.log()[-2000:]}"
                )
            return ready()

        return until(check, what)

    def send(self, what):
        self.child.send_signal(what)

    def await_end(self, seconds=STOP_SECONDS):
        """The exit code."""
        return self.child.wait(seconds)

    def stop(self):
        """Ends it, kindly and then not."""
        if not self.alive():
            return
        # A stopped process does not hear anything else.
        self.send(signal.SIGCONT)
        self.send(signal.SIGINT)
        try:
            self.await_end()
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.await_end()
