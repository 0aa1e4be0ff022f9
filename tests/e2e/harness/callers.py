"""Every kind of caller of the management API, on a gateway that believes a static issuer."""

import hashlib
import secrets
import sqlite3

from harness import books, management
from harness.issuer import Issuer

ADMIN = "the-admin"
SECRET = secrets.token_hex(32)
CONTROL = """
admins = ["{admin}"]
{oidc}
[control.internal_secrets]
storefront = "sha256:{digest}"
"""


def control_section(issuer):
    """The part of a gateway's configuration in which these callers are known."""
    digest = hashlib.sha256(SECRET.encode()).hexdigest()
    return CONTROL.format(admin=ADMIN, oidc=issuer.section(), digest=digest)


def bearer(token):
    return [("authorization", f"Bearer {token}")]


class Person:
    """Somebody with an account and a key, and money."""

    def __init__(self, gateway, issuer, subject):
        self.gateway, self.subject = gateway, subject
        self.token = issuer.token(subject)
        self.user = self.ask("/api/v1/me").json()
        rows = gateway.query("SELECT account FROM users WHERE id = ?", self.user["id"])
        self.account = rows[0]["account"]
        self.key = self.create_key(name=f"key of {subject}")

    def ask(self, path, method="GET", body=None):
        answer = management.ask(self.gateway, path, self.token, method, body)
        return answer

    def create_key(self, **wish):
        made = self.ask("/api/v1/me/keys", "POST", {"name": "a key", **wish})
        assert made.status == 201, made.body
        return made.json()

    def pay(self, usd="5.00"):
        """Credit, as an operator adds it. The account is called what its user is."""
        books.run(self.gateway, "credit", "add", "--account", self.user["id"], "--amount", usd)
        return self


class Callers:
    """One of each kind, by what they present; and what an operation's own words make of them."""

    def __init__(self, gateway, issuer):
        self.gateway, self.issuer = gateway, issuer
        self.a, self.b = Person(gateway, issuer, "person-a").pay(), Person(gateway, issuer, "person-b")
        disabled = Person(gateway, issuer, "person-disabled")
        revoked = self.b.create_key(name="revoked")
        assert self.b.ask(f"/api/v1/me/keys/{revoked['id']}", "DELETE").status == 204
        self.disable(disabled)
        secret = [("x-internal-secret", SECRET)]
        # What is presented, the schemes that it is good for, and the status where it is good for none of those named.
        self.kinds = {
            "nobody": ([], {None}, 401),
            "key of A": (bearer(self.a.key["raw"]), {"api_key"}, 403),
            "key of B": (bearer(self.b.key["raw"]), {"api_key"}, 403),
            "person A": (bearer(self.a.token), {"user"}, 403),
            "person B": (bearer(self.b.token), {"user"}, 403),
            "disabled person": (bearer(disabled.token), set(), 403),
            "admin": (bearer(issuer.token(ADMIN)), {"user", "admin"}, 403),
            "partner": (secret, {"internal_secret"}, 401),
            "both at once": (bearer(issuer.token(ADMIN)) + secret, set(), 401),
            "two tokens": (bearer(self.a.token) + bearer(self.b.token), set(), 401),
            "expired token": (bearer(issuer.token("person-a", exp=1)), set(), 401),
            "revoked key": (bearer(revoked["raw"]), set(), 401),
            "no key": (bearer("sk-tr-nonsense"), set(), 401),
            "wrong secret": ([("x-internal-secret", "wrong")], set(), 401),
        }

    def disable(self, person):
        """As an administrator does."""
        connection = sqlite3.connect(f"{self.gateway.state}/tokenroute.db", timeout=5)
        with connection:
            connection.execute("UPDATE users SET status = 'disabled' WHERE id = ?", (person.user["id"],))
        connection.close()

    def expected(self, kind, schemes):
        """The status that an operation with these schemes has for that kind of caller; `None`: it is let in."""
        _, good_for, refused = self.kinds[kind]
        if not schemes or good_for & schemes:
            return None
        if schemes == {"internal_secret"}:
            # What is no secret is nothing here, whoever it is of.
            return 401
        return refused

    def send(self, kind, method, path, headers=(), body=None):
        presented, _, _ = self.kinds[kind]
        return management.ask(self.gateway, path, None, method, body, [*presented, *headers])


def start_issuer():
    return Issuer().start()
