"""The auditor finds what is wrong: doctored books and a doctored truth, one defect each."""

import contextlib
import json
import sqlite3
import subprocess
import sys
import time

import pytest

from harness import books
from harness.programs import ROOT

AUDIT = ROOT / "tests/audit/audit.py"
SECOND = 1_000_000
INPUT, OUTPUT = 1_000, 4_000
GRANT = 1_000_000_000

# What the auditor reads, without the checks that would keep defects out.
SCHEMA = """
CREATE TABLE accounts (id TEXT PRIMARY KEY, funding TEXT);
CREATE TABLE records (call TEXT, sequence BIGINT, key_id TEXT, account TEXT, model TEXT, outcome TEXT, usage_source TEXT,
                      cost_nano_usd BIGINT, charge BIGINT);
CREATE TABLE ledger_accounts (id TEXT PRIMARY KEY, balance BIGINT);
CREATE TABLE ledger_transactions (id TEXT PRIMARY KEY, kind TEXT, subject TEXT, first_record BIGINT, last_record BIGINT);
CREATE TABLE ledger_entries (transaction_id TEXT, seq BIGINT, account TEXT, amount BIGINT, balance_after BIGINT);
CREATE TABLE pools (account TEXT PRIMARY KEY, free BIGINT);
CREATE TABLE pool_loans (account TEXT, node TEXT, amount BIGINT, in_use BIGINT, deadline BIGINT);
CREATE TABLE key_purses (key_id TEXT, period TEXT, number BIGINT, spent BIGINT);
"""


class World:
    """An account with a grant, and calls that were served and paid for."""

    def __init__(self, folder):
        self.truth, self.database = folder / "truth.jsonl", folder / "books.db"
        self.lines = []
        self.connection = sqlite3.connect(self.database, isolation_level=None)
        self.connection.executescript(SCHEMA)
        self.run("INSERT INTO accounts VALUES ('acc_a', 'prepaid')")
        self.run("INSERT INTO pools VALUES ('acc_a', 0)")
        self.post("grant", None, ("customer:acc_a", GRANT), ("house:cash", -GRANT))
        self.run("UPDATE pools SET free = ?", GRANT)

    def run(self, statement, *values):
        self.connection.execute(statement, values)

    def post(self, kind, records, *entries):
        """A transaction; a charge is over the records from one number to another."""
        count = self.connection.execute("SELECT count(*) FROM ledger_transactions").fetchone()[0]
        self.run("INSERT INTO ledger_transactions VALUES (?, ?, 'acc_a', ?, ?)", f"txn_{count}", kind,
                 *(records or (None, None)))
        for sequence, (account, amount) in enumerate(entries):
            self.run("INSERT INTO ledger_entries VALUES (?, ?, ?, ?, 0)", f"txn_{count}", sequence, account, amount)
            self.run("INSERT INTO ledger_accounts VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET balance = balance + ?",
                     account, amount, amount)

    def serve(self, number, tokens=10, end="finished", every_us=100_000, said=None):
        """A request of 5 prompt tokens, a piece a token; `said` are the tokens that the provider says it sent in the end."""
        key, model = f"key_{number}", f"echo+tag-{number}"
        at = number * 100 * SECOND
        self.lines.append({"event": "begin", "id": number, "at_us": at, "mark": f"mark-{key}", "model": model, "prompt_tokens": 5})
        for token in range(tokens):
            at += every_us
            self.lines.append({"event": "sending", "id": number, "at_us": at, "completion_tokens": token + 1})
        if end:
            said = tokens if said is None else said
            self.lines.append({"event": "end", "id": number, "ended_us": at, "end": end, "completion_tokens": said})

    def charge(self, number, cost, charge=None, outcome="answered", source="provider", posted=None, excess=None):
        """The call's record, and its transaction."""
        charge = cost if charge is None else charge
        call = f"call_{number}_{self.connection.total_changes}"
        sequence = self.connection.execute("SELECT count(*) FROM records").fetchone()[0] + 1
        self.run("INSERT INTO records VALUES (?, ?, ?, 'acc_a', ?, ?, ?, ?, ?)", call, sequence, f"key_{number}", f"box/echo+tag-{number}",
                 outcome, source, cost, charge)
        posted = charge if posted is None else posted
        excess = cost - charge if excess is None else excess
        if posted or excess:
            self.post("charge", (sequence, sequence), ("customer:acc_a", -posted), ("house:revenue", posted),
                      ("house:loss", -excess), ("house:revenue", excess))
        self.run("UPDATE pools SET free = free - ?", posted)
        return sequence

    def audit(self, *more):
        """The kinds of findings, and the program's exit code."""
        self.truth.write_text("".join(json.dumps(line) + "\n" for line in self.lines))
        ran = subprocess.run(
            [sys.executable, AUDIT, "--truth", self.truth, "--database", self.database, "--input", str(INPUT),
             "--output", str(OUTPUT), *more], capture_output=True, text=True, timeout=60)
        assert ran.returncode in (0, 1), ran.stderr
        kinds = {line.split(":")[0] for line in ran.stdout.splitlines()}
        assert (ran.returncode == 1) == bool(kinds), ran.stdout
        return kinds


def cost(tokens):
    return 5 * INPUT + tokens * OUTPUT


@pytest.fixture
def world(folder):
    """Two calls that were answered, one whose edge was killed in mid-stream, one that came to nothing."""
    world = World(folder)
    for number in (1, 2):
        world.serve(number)
        world.charge(number, cost(10))
    world.serve(3, tokens=30, end="client_closed", said=29)
    world.charge(3, cost(20), outcome="cut")
    world.serve(4, tokens=0, end="client_closed")
    world.charge(4, 0, outcome="cut", source="none")
    assert world.audit() == set()
    yield world
    world.connection.close()


def test_books_that_agree_are_left_alone(world):
    # What the provider has not told may be counted a little otherwise, and what was clamped is the house's.
    world.serve(5)
    world.charge(5, cost(10) + 20 * INPUT, source="estimated")
    world.serve(6)
    world.charge(6, cost(10), charge=7_000)
    # A line that is being written is no line yet.
    world.lines.append({"event": "begin", "id": 9, "at_us": 1, "mark": None, "model": "echo", "prompt_tokens": 1})
    assert world.audit() == set()
    world.truth.write_text(world.truth.read_text() + '{"event":"begin","id":1')
    assert subprocess.run([sys.executable, AUDIT, "--truth", world.truth, "--database", world.database, "--input", str(INPUT),
                           "--output", str(OUTPUT)], timeout=60).returncode == 0


def lost(world):
    world.serve(5)


def lost_in_mid_stream(world):
    world.serve(5, end=None)


def doubled(world):
    world.charge(1, cost(10))


def doubled_in_the_ledger(world):
    sequence = world.charge(1, 0)
    for _ in range(2):
        world.post("charge", (sequence, sequence), ("customer:acc_a", 0), ("house:revenue", 0))


def invented(world):
    world.charge(5, cost(1))


def dearer_than_what_was_whole(world):
    world.serve(5)
    world.charge(5, cost(11))


def dearer_than_what_was_cut(world):
    world.serve(5, tokens=30, end="client_closed", said=29)
    world.charge(5, cost(31), outcome="cut")


def dearer_than_an_estimate_may_be(world):
    world.serve(5)
    world.charge(5, cost(30), source="estimated")


def cheaper_than_what_was_whole(world):
    world.serve(5)
    world.charge(5, cost(9))


def cheaper_than_what_was_marked(world):
    # 30 tokens in 3 s: what was sent until a second before the end is written down.
    world.serve(5, tokens=30, end="client_closed")
    world.charge(5, cost(17), outcome="cut")


def cheaper_than_an_estimate_may_be(world):
    world.serve(5, tokens=100)
    world.charge(5, cost(60), source="estimated")


def charged_beyond_its_cost(world):
    world.serve(5)
    world.charge(5, cost(9), charge=cost(10))


def recorded_and_not_posted(world):
    world.serve(5)
    world.charge(5, cost(10), posted=0, excess=0)


def clamped_and_nobody_bears_it(world):
    world.serve(5)
    world.charge(5, cost(10), charge=7_000, excess=0)


def posted_and_not_recorded(world):
    world.post("charge", (900, 901), ("customer:acc_a", -5), ("house:revenue", 5))


def a_transaction_out_of_balance(world):
    world.post("grant", None, ("customer:acc_a", 5), ("house:cash", -4))


def a_balance_that_no_entry_makes(world):
    world.run("UPDATE ledger_accounts SET balance = balance + 1 WHERE id = 'customer:acc_a'")
    world.run("UPDATE ledger_accounts SET balance = balance - 1 WHERE id = 'house:cash'")


def an_account_below_zero(world):
    world.run("INSERT INTO accounts VALUES ('acc_b', 'prepaid')")
    world.post("withdrawal", None, ("customer:acc_b", -5), ("house:cash", 5))


def a_pool_with_too_much(world):
    world.run("UPDATE pools SET free = free + 1")


def a_loan_from_nowhere(world):
    world.run("INSERT INTO pool_loans VALUES ('acc_a', 'node_1', 7, 0, ?)", time.time_ns() // 1_000 + SECOND)


def a_pool_below_zero(world):
    world.run("UPDATE pools SET free = -1")


def a_loan_below_zero(world):
    world.run("UPDATE pools SET free = free + 1")
    world.run("INSERT INTO pool_loans VALUES ('acc_a', 'node_1', -1, 0, ?)", time.time_ns() // 1_000 + SECOND)


def a_purse_below_zero(world):
    world.run("INSERT INTO key_purses VALUES ('key_1', 'day', 1, -1)")


def a_loan_that_never_came_back(world):
    world.run("UPDATE pools SET free = free - 7")
    world.run("INSERT INTO pool_loans VALUES ('acc_a', 'node_1', 7, 7, ?)", time.time_ns() // 1_000 - 61 * SECOND)


@pytest.mark.parametrize(("break_it", "kinds"), [
    (lost, {"lost"}), (lost_in_mid_stream, {"lost"}), (doubled, {"doubled"}), (doubled_in_the_ledger, {"doubled"}),
    (invented, {"invented"}), (dearer_than_what_was_whole, {"overcharged"}), (dearer_than_what_was_cut, {"overcharged"}),
    (dearer_than_an_estimate_may_be, {"overcharged"}), (cheaper_than_what_was_whole, {"undercharged"}),
    (cheaper_than_what_was_marked, {"undercharged"}), (cheaper_than_an_estimate_may_be, {"undercharged"}),
    (charged_beyond_its_cost, {"miscounted", "undercharged"}), (recorded_and_not_posted, {"unposted", "unbalanced"}),
    (clamped_and_nobody_bears_it, {"unposted"}), (posted_and_not_recorded, {"unrecorded", "unbalanced"}),
    (a_transaction_out_of_balance, {"unbalanced"}), (a_balance_that_no_entry_makes, {"unbalanced"}),
    (an_account_below_zero, {"below_zero"}), (a_pool_with_too_much, {"unbalanced"}), (a_loan_from_nowhere, {"unbalanced"}),
    (a_pool_below_zero, {"below_zero", "unbalanced"}), (a_loan_below_zero, {"below_zero"}), (a_purse_below_zero, {"below_zero"}),
    (a_loan_that_never_came_back, {"orphan"}),
])
def test_what_is_wrong_is_found(world, break_it, kinds):
    break_it(world)
    assert world.audit() == kinds


@pytest.mark.parametrize("form", ["sqlite", "postgres"])
def test_the_migrations_tables_are_read(folder, postgres, form):
    """By their real names, in both dialects: an account that nobody has used is in order."""
    scripts = sorted((ROOT / "src/store/migrations" / form).glob("*.sql"))
    assert scripts
    account = ("INSERT INTO accounts (id, name, funding, created) VALUES ('acc_a', 'a', 'prepaid', 1);"
               "INSERT INTO pools (account, free) VALUES ('acc_a', {});")
    truth = folder / "truth.jsonl"
    truth.write_text("")
    for free, kinds in ((0, []), (5, ["unbalanced"])):
        statements = "".join(path.read_text() for path in scripts) + account.format(free)
        if form == "postgres":
            database = postgres.create()
            assert postgres.runs(statements, database.rpartition("/")[2])
        else:
            database = folder / f"books-{free}.db"
            with contextlib.closing(sqlite3.connect(database)) as connection:
                connection.executescript(statements)
        found, text = books.run_audit(truth, database)
        assert found == kinds, text


def test_what_comes_to_rest_late_is_waited_for(world):
    world.serve(5)
    world.truth.write_text("".join(json.dumps(line) + "\n" for line in world.lines))
    auditor = subprocess.Popen([sys.executable, AUDIT, "--truth", world.truth, "--database", world.database, "--input", str(INPUT),
                                "--output", str(OUTPUT), "--wait", "30"])
    time.sleep(1)
    assert auditor.poll() is None
    world.charge(5, cost(10))
    assert auditor.wait(20) == 0
