"""Edges that share books: on SQLite one of them, on PostgreSQL and Redis any number."""

import secrets

from harness.books import audit
from harness.gateway import CREDENTIAL, Gateway
from harness.scale import scaled

# What an operator would set; the lease is scaled like any other time.
LEASE_SECONDS = 60

SECTIONS = """
{database}
{redis}

[keys]
pepper_file = "{pepper}"
vault_file = "{vault}"

[money]
lease_seconds = {lease}
{money}

# Money is what is tested, not rates.
[tiers.default]
requests_per_second = 100_000
"""

MODEL = """
[[providers.box.models]]
id = "{}"
created = 1_750_000_000
{}
"""


def priced(model, **prices):
    """A model of the box and its prices in USD, as a table."""
    return MODEL.format(model, "".join(f'{name} = "{value}"\n' for name, value in prices.items()))


class Edge(Gateway):
    """A node of some role. Its database, its Redis and its pepper can be other nodes' too; its state folder, with the
    journal in it, outlives it."""

    def __init__(self, folder, provider, name="edge", role="all", database=None, redis=None, pepper=None, models="", **parts):
        folder.mkdir(exist_ok=True, parents=True)
        self.role, self.database_url, self.redis, self.models = role, database, redis, models
        self.lease = parts.pop("lease", scaled(LEASE_SECONDS))
        authorities = parts.pop("authorities", None)
        trust = f'\nca_file = "{authorities}"' if authorities else ""
        self.pepper = pepper or folder / "pepper"
        if not self.pepper.exists():
            self.pepper.write_text(secrets.token_hex(32) + "\n")
            self.pepper.chmod(0o600)
        sections = SECTIONS.format(
            database=f'[database]\nurl = "{database}"{trust}' if database else "",
            redis=f'[redis]\nurl = "{redis.url}"{trust}' if redis else "",
            pepper=self.pepper, vault=self.pepper.with_name("vault"), lease=self.lease, money=parts.pop("money", ""),
        ) + parts.pop("sections", "")
        super().__init__(folder, provider, name=name, sections=sections, **parts)
        self.books = audit.Books(database or self.state / "tokenroute.db")

    def config_text(self, **parts):
        text = super().config_text(**parts)
        return text.replace("[[routes]]", f"{self.models}\n[[routes]]", 1)

    def command_line(self):
        return [*super().command_line(), "--role", self.role]

    def is_ready(self):
        if self.role != "control":
            return super().is_ready()
        try:
            return self.page("/readyz")[0] == 200
        except OSError:
            return False

    def kill(self):
        """Ends it between two instructions."""
        self.process.child.kill()
        self.process.await_end()


class Fleet:
    """Edges that share books, and a node that posts where Redis is in front of SQL."""

    def __init__(self, folder, provider, edges=1, postgres=None, redis=None, node=Edge, **parts):
        database = postgres.create() if postgres else None
        assert postgres or edges == 1, "edges cannot share SQLite"
        (folder / "shared").mkdir(parents=True, exist_ok=True)
        parts |= {"database": database, "redis": redis, "pepper": folder / "shared" / "pepper"}

        def one(name, role):
            return node(folder / name, provider, name=name, role=role, **parts)

        self.edges = [one(f"edge-{number}", "edge" if postgres else "all") for number in range(edges)]
        self.control = one("control", "control") if postgres else None
        self.folder, self.credential = folder, CREDENTIAL

    @property
    def nodes(self):
        return [*self.edges, *([self.control] if self.control else [])]

    @property
    def first(self):
        return self.edges[0]

    @property
    def books(self):
        return self.first.books

    @property
    def database(self):
        """As the auditor is told it."""
        return self.books.database

    def start(self):
        if self.first.database_url:
            ran = self.first.command("migrate")
            assert ran.returncode == 0, ran.stdout + ran.stderr
        for node in reversed(self.nodes):
            node.start()
        return self

    def stop(self):
        for node in self.nodes:
            # A test may have failed before all of them were started.
            if hasattr(node, "process"):
                node.stop()
                assert "panicked" not in node.process.log()
