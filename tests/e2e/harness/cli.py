"""The command line as a person or an agent runs it, in a home of its own."""

import json
import os
import stat
import subprocess

from harness import programs

# Longer than any command of a test should take: a command that hangs is a failure, not a wait.
PATIENCE_SECONDS = 60


class Done:
    """A command that has ended."""

    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    def json(self):
        """The one JSON document that it answered."""
        assert self.code == 0, self.err
        assert self.out.count("\n") == 1, self.out
        return json.loads(self.out)

    def error(self):
        """The one JSON object on stderr of a command that failed."""
        assert self.code != 0 and self.out == "", (self.code, self.out)
        assert self.err.count("\n") == 1, self.err
        return json.loads(self.err)["error"]


class Cli:
    """`tokenroute` for one gateway."""

    def __init__(self, home, url, program=None, **environment):
        home.mkdir(exist_ok=True)
        self.home, self.url = home, url
        self.program = [str(part) for part in (program or [programs.find("tokenroute")])]
        # A clean environment: a developer's own variables must not log tests in.
        self.environment = {
            "PATH": os.environ["PATH"], "HOME": str(home), "TOKENROUTE_API_URL": url,
        } | environment

    def start(self, *words, json=False, **more):
        """Begins a command."""
        words = [*words, "--json"] if json else words
        return subprocess.Popen(
            [*self.program, *[str(word) for word in words]], text=True, env=self._with(more),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )

    def run(self, *words, json=False, **more):
        """Runs a command to its end; further arguments are variables, `None` takes one away."""
        running = self.start(*words, json=json, **more)
        out, err = running.communicate(timeout=PATIENCE_SECONDS)
        return Done(running.returncode, out, err)

    def _with(self, more):
        environment = self.environment | more
        return {name: text for name, text in environment.items() if text is not None}

    # Its files.

    @property
    def folder(self):
        return self.home / ".tokenroute"

    def file(self, name):
        path = self.folder / name
        return path.read_text() if path.exists() else None

    def modes(self):
        """The permissions of the folder and of everything in it, by name."""
        found = {".": stat.S_IMODE(self.folder.stat().st_mode)}
        for path in self.folder.iterdir():
            found[path.name] = stat.S_IMODE(path.stat().st_mode)
        return found
