"""What money does not differ in between tests: accounts, keys, what SQL says, and what the auditor says of it."""

import json
import re
import subprocess
import sys

from harness import programs
from harness.gateway import INPUT_PRICE, OUTPUT_PRICE

NANO_USD = 1_000_000_000
AUDIT = programs.ROOT / "tests/audit/audit.py"
sys.path.insert(0, str(AUDIT.parent))

import audit  # noqa: E402

# Nano-USD for a token: prices are USD for a million.
INPUT, OUTPUT = INPUT_PRICE * 1_000, OUTPUT_PRICE * 1_000


def run(edge, *words):
    """Runs an operator's command that succeeds, and returns what it printed."""
    ran = edge.command(*words)
    assert ran.returncode == 0, f"{words}: {ran.stdout}{ran.stderr}"
    return ran.stdout


def open_account(edge, name, usd):
    """A prepaid account with so much in it: a decimal string."""
    run(edge, "accounts", "create", "--name", name, "--prepaid")
    run(edge, "credit", "add", "--account", name, "--amount", usd)


def open_key(edge, account, *terms, name="test"):
    """A key that this account pays for, and its ID."""
    return edge.create_key(name, "--account", account, *terms)


def account_id(books, name):
    return books.value(f"SELECT id FROM accounts WHERE name = '{name}'")


def balance(books, name):
    """What an account has, posted: with the customer or lent to the hot store."""
    account = account_id(books, name)
    rows = books.rows(f"SELECT balance FROM ledger_accounts WHERE id IN ('customer:{account}', 'escrow:{account}')")
    return sum(row["balance"] for row in rows)


def reconcile(edge):
    """What `tokenrouted reconcile` has found: nothing, if it is well."""
    ran = edge.command("reconcile")
    assert ran.returncode in (0, 1), ran.stdout + ran.stderr
    return (ran.stdout + ran.stderr).strip() if ran.returncode else ""


def run_audit(truth, database, wait_seconds=0):
    """The kinds of findings of the auditor, run as a program of its own, and all that it printed."""
    ran = subprocess.run(
        [sys.executable, AUDIT, "--truth", truth, "--database", database, "--input", str(INPUT), "--output", str(OUTPUT),
         "--wait", str(wait_seconds)], capture_output=True, text=True, timeout=wait_seconds + 120)
    kinds = [line.split(":")[0] for line in ran.stdout.splitlines()]
    # An auditor that fails has found nothing, and has cleared nobody.
    assert ran.returncode == (1 if kinds else 0), ran.stderr
    return kinds, ran.stdout + ran.stderr


def reason(answer):
    """The stable word of a refusal."""
    return json.loads(answer.body)["error"].get("metadata", {}).get("reason")


def pick(pattern, text):
    found = re.search(pattern, text)
    assert found, f"no {pattern} in {text}"
    return found[0]
