"""A real PostgreSQL of the tests' own, as durable as one that an operator runs."""

import contextlib
import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import tempfile

from harness import ports
from harness.process import Process

# PostgreSQL refuses to be root.
USER = "postgres"
DEBIAN = "/usr/lib/postgresql"


def find(name):
    """One of PostgreSQL's programs: on the PATH, else where Debian has those of each version."""
    found = shutil.which(name) or max(map(str, pathlib.Path(DEBIAN).glob(f"*/bin/{name}")), default=None)
    assert found, f"{name} is not installed: make setup"
    return found


class Postgres:
    """A running `postgres`; each test makes a database of its own."""

    def __init__(self, folder, name="postgres", certificate=None):
        """With a certificate and its key it takes no connections without TLS."""
        self.host, self.certificate = "localhost" if certificate else "127.0.0.1", certificate
        self.log_folder, self.name = folder, name
        self.port, self.databases = ports.free(), 0
        # Test folders are their owner's alone; this one is the server's.
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="tokenroute-postgres-"))
        self.as_user, self.user = [], pwd.getpwuid(os.getuid()).pw_name
        if os.getuid() == 0:
            self.as_user, self.user = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups"], USER
            shutil.chown(self.folder, USER, USER)
        self.data = self.folder / "data"
        if certificate:
            # The server insists on a key that is its own and its own alone.
            self.certificate = [pathlib.Path(shutil.copy(file, self.folder)) for file in certificate]
            for file in self.certificate:
                file.chmod(0o600)
                if os.getuid() == 0:
                    shutil.chown(file, USER, USER)
        # Not synced while it is made; it is from then on.
        initdb = [find("initdb"), "--no-sync", "--auth=trust", f"--username={self.user}", "--encoding=UTF8", "--no-locale"]
        subprocess.run([*self.as_user, *initdb, "--pgdata", self.data], check=True, capture_output=True, cwd=self.folder)
        if certificate:
            (self.data / "pg_hba.conf").write_text("hostssl all all all trust\n")
        self.start()

    def start(self):
        settings = {"port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": self.folder,
                    "max_connections": 200, "shared_buffers": "64MB"}
        if self.certificate:
            settings |= dict(zip(["ssl_cert_file", "ssl_key_file"], self.certificate, strict=True)) | {"ssl": "on"}
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        self.process = Process(self.name, [*self.as_user, find("postgres"), "-D", self.data, *words], self.log_folder)
        self.process.await_ready(lambda: self.runs("SELECT 1"), "PostgreSQL answers")

    def url(self, database="postgres"):
        return f"postgres://{self.user}@{self.host}:{self.port}/{database}"

    def runs(self, statement, database="postgres"):
        """Whether a statement succeeds."""
        words = [find("psql"), "--no-psqlrc", "--quiet", "--command", statement, self.url(database)]
        return subprocess.run(words, capture_output=True, timeout=30).returncode == 0

    def create(self):
        """The URL of a new, empty database."""
        self.databases += 1
        name = f"books_{self.databases}"
        assert self.runs(f"CREATE DATABASE {name}")
        return self.url(name)

    def freeze(self):
        """Connections stay open and nothing is answered: every process of it stands still."""
        self._send_all(signal.SIGSTOP)

    def thaw(self):
        self._send_all(signal.SIGCONT)

    def _send_all(self, what):
        tree = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        for process in [self.process.pid, *map(int, tree.read_text().split())]:
            # A connection that has just ended has no process any more.
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, what)

    def crash(self):
        """Ends it at once, as a crash does: the next start recovers from its log."""
        self.process.send(signal.SIGQUIT)
        self.process.await_end()

    def restart(self):
        self.crash()
        self.start()

    def stop(self):
        if self.process.alive():
            self.thaw()
        self.process.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
