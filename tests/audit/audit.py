#!/usr/bin/env python3
"""Compares what a provider says that it served with what the books say that it cost.

It shares no code with the gateway and reads two things: the provider's truth file (`--truth`, JSON lines) and SQL (the
path of an SQLite file, or a postgres:// URL, which psql reads). A call is known by its key and its model, so the load has
to use each pair once: the key's ID stands in the prompt as `mark-key_…`, and the model is the gateway's name for it.
Prints one line a finding and exits with 1 if there is any. What comes to rest only some time after a crash is looked at
again until it is right or `--wait` seconds are over.
"""

import argparse
import bisect
import collections
import dataclasses
import json
import pathlib
import sqlite3
import subprocess
import sys
import time

POLL_SECONDS = 0.5
# Longest that SQL may take to answer.
SQL_SECONDS_MAX = 30
# How much of an answer's end may be missing from what a call was charged whose edge was killed: progress is
# written down every 250 ms, and the provider is ahead of it by what is on the way.
UNMARKED_US = 1_000_000
# What our own count of tokens may differ from the provider's, where that had not told its own.
PROMPT_TOKENS_OFF = 60
OUTPUT_TOKENS_OFF, OUTPUT_PERCENT_OFF = 3, 10
# A loan whose edge is gone goes back within this time of its end.
LAPSED_US_MAX = 60_000_000

Finding = collections.namedtuple("Finding", "kind subject detail")


@dataclasses.dataclass
class Prices:
    """Nano-USD for a token, and for an answered request."""

    input: int
    output: int
    request: int = 0

    def of(self, prompt, output):
        return self.request + prompt * self.input + output * self.output


@dataclasses.dataclass
class Served:
    """A request as the provider saw it. Times are its own, in microseconds."""

    key: str
    model: str
    prompt: int
    begun_us: int
    # When how many tokens of the answer were about to be sent.
    sending: list = dataclasses.field(default_factory=list)
    sent: int = 0
    end: str | None = None
    ended_us: int = 0

    @property
    def most(self):
        """Tokens that a client can have at most."""
        return max([self.sent] + [tokens for _, tokens in self.sending])

    def sent_by(self, at_us):
        """Tokens that were sent at that time for sure: the last piece of which the sending had begun may not be."""
        return max([0] + [tokens for at, tokens in self.sending if at <= at_us][:-1])

    @property
    def is_whole(self):
        return self.end == "finished"


# What the provider says.


def read_truth(path):
    """Every marked request of a truth file, in order. A last line that is being written is left out."""
    served = {}
    lines = pathlib.Path(path).read_text().split("\n")
    for line in lines[:-1]:
        told = json.loads(line)
        number = told["id"]
        if told["event"] == "begin" and (told["mark"] or "").startswith("mark-"):
            key = told["mark"].removeprefix("mark-")
            served[number] = Served(key, told["model"], told["prompt_tokens"], told["at_us"])
        elif number not in served:
            continue
        elif told["event"] == "sending":
            served[number].sending.append((told["at_us"], told["completion_tokens"]))
        elif told["event"] == "end":
            one = served[number]
            one.sent, one.end, one.ended_us = told["completion_tokens"], told["end"], told["ended_us"]
    return list(served.values())


# What the books say.


class Books:
    """Reads SQL: a path is SQLite's, a URL PostgreSQL's."""

    def __init__(self, database):
        self.database = str(database)
        self.is_postgres = self.database.startswith(("postgres://", "postgresql://"))

    def rows(self, statement):
        """Rows as dictionaries."""
        return self._by_psql(statement) if self.is_postgres else self._by_sqlite(statement)

    def value(self, statement):
        """The only column of the only row."""
        (row,) = self.rows(statement)
        (value,) = row.values()
        return value

    def has(self, table):
        catalog = (f"SELECT to_regclass('{table}') IS NOT NULL AS found" if self.is_postgres
                   else f"SELECT count(*) AS found FROM sqlite_master WHERE name = '{table}'")
        return bool(self.value(catalog))

    def _by_sqlite(self, statement):
        connection = sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=SQL_SECONDS_MAX)
        connection.row_factory = sqlite3.Row
        try:
            return [dict(row) for row in connection.execute(statement)]
        finally:
            connection.close()

    def _by_psql(self, statement):
        wrapped = f"SELECT coalesce(json_agg(audited_row), '[]') FROM ({statement}) AS audited_row"
        ran = subprocess.run(
            ["psql", "--no-psqlrc", "--no-align", "--tuples-only", "--quiet", "--command", wrapped, self.database],
            capture_output=True, text=True, timeout=SQL_SECONDS_MAX, check=False)
        if ran.returncode:
            raise OSError(ran.stderr.strip())
        return json.loads(ran.stdout)


# Comparing.


def audit(served, books, prices, model_prefix="box/", now_us=None):
    """Every finding there is now."""
    now_us = time.time_ns() // 1_000 if now_us is None else now_us
    records = books.rows("SELECT call, sequence, key_id, account, model, outcome, usage_source, cost_nano_usd AS cost, charge FROM records")
    return [
        *check_calls(served, records, prices, model_prefix),
        *check_postings(records, books),
        *check_ledger(books),
        *check_accounts(records, books),
        *check_pools(books, now_us),
    ]


def check_calls(served, records, prices, model_prefix):
    """Each request that the provider served has one record, which charges what it allows."""
    by_pair, truth = collections.defaultdict(list), collections.defaultdict(list)
    for record in records:
        by_pair[record["key_id"], record["model"]].append(record)
    for one in served:
        truth[one.key, model_prefix + one.model].append(one)
    for pair, all_of_it in truth.items():
        found = by_pair.get(pair, [])
        if not found:
            tokens = sum(one.most for one in all_of_it)
            yield Finding("lost", " ".join(pair), f"{tokens} tokens were served and there is no record")
        elif len(found) > 1:
            yield Finding("doubled", " ".join(pair), f"{len(found)} records: {[one['call'] for one in found]}")
        else:
            yield from check_charge(all_of_it, found[0], prices)
    for pair, found in by_pair.items():
        for record in found:
            if pair not in truth and (record["charge"] or record["cost"]):
                yield Finding("invented", record["call"], f"{record['cost']} nano-USD for what nobody served: {pair}")


def check_charge(all_of_it, record, prices):
    most, least = bounds(all_of_it, record, prices)
    cost, charge = record["cost"], record["charge"]
    if charge > most or cost > most:
        yield Finding("overcharged", record["call"], f"cost {cost}, charged {charge} of at most {most}: {record}")
    if cost < least:
        yield Finding("undercharged", record["call"], f"cost {cost} of at least {least}: {record}")
    if not 0 <= charge <= cost:
        yield Finding("miscounted", record["call"], f"charge {charge} of a cost of {cost}")


def bounds(all_of_it, record, prices):
    """The most and the least that a call may have cost."""
    most = sum(prices.of(one.prompt, one.most) for one in all_of_it)
    estimated = record["usage_source"] != "provider"
    if estimated:
        tokens = sum(one.most for one in all_of_it)
        off = tokens * OUTPUT_PERCENT_OFF // 100 + OUTPUT_TOKENS_OFF
        most += PROMPT_TOKENS_OFF * prices.input + off * prices.output
    if record["outcome"] == "answered":
        # It had all of it, so it pays for all of it.
        whole = [one for one in all_of_it if one.is_whole]
        least = min((prices.of(one.prompt, one.sent) for one in whole), default=0)
    else:
        last = all_of_it[-1]
        marked = last.sent_by((last.ended_us or last.begun_us) - UNMARKED_US)
        least = prices.of(last.prompt, marked) if marked else 0
    if estimated and least:
        off = PROMPT_TOKENS_OFF * prices.input + OUTPUT_TOKENS_OFF * prices.output
        least = max(0, least * (100 - OUTPUT_PERCENT_OFF) // 100 - off)
    return most, least


def check_postings(records, books):
    """Each charge is what the records that it is over were charged, each record is under one charge alone, and with the
    excess they make up the cost."""
    posted = collections.defaultdict(collections.Counter)
    for row in books.rows(
            "SELECT t.id, e.account, e.amount FROM ledger_transactions t "
            "JOIN ledger_entries e ON e.transaction_id = t.id WHERE t.kind = 'charge'"):
        whose = row["account"] if row["account"].startswith("house:") else "account"
        posted[row["id"]][whose] += int(row["amount"])
    under = collections.Counter()
    metered = prepaid_accounts(books)
    by_account = collections.defaultdict(list)
    for record in sorted(records, key=lambda record: record["sequence"]):
        by_account[record["account"]].append(record)
    numbers = {account: [record["sequence"] for record in found] for account, found in by_account.items()}
    for row in books.rows("SELECT id, subject, first_record, last_record FROM ledger_transactions WHERE kind = 'charge'"):
        one, account = row["id"], row["subject"]
        begin = bisect.bisect_left(numbers.get(account, []), row["first_record"])
        end = bisect.bisect_right(numbers.get(account, []), row["last_record"])
        over = by_account[account][begin:end]
        under.update(record["call"] for record in over)
        if not over:
            yield Finding("unrecorded", one, f"the ledger charges {dict(posted[one])} and there is no record")
            continue
        took, excess = -posted[one]["account"], -posted[one]["house:loss"]
        charge, cost = sum(record["charge"] for record in over), sum(record["cost"] for record in over)
        if took != charge:
            yield Finding("unposted", one, f"its records charge {charge}, the ledger {took}")
        if account in metered and took + excess != cost:
            yield Finding("unposted", one, f"its calls cost {cost}; charged {took}, the house's loss {excess}")
    for record in records:
        call = record["call"]
        if under[call] > 1:
            yield Finding("doubled", call, f"{under[call]} transactions charge it")
        if not under[call] and (record["charge"] or (record["account"] in metered and record["cost"])):
            yield Finding("unposted", call, f"it cost {record['cost']}, its record charges {record['charge']}, the ledger nothing")


def check_ledger(books):
    """Entries and balances agree, every transaction is balanced, and no customer is below zero."""
    total = int(books.value("SELECT coalesce(sum(balance), 0) AS total FROM ledger_accounts"))
    if total:
        yield Finding("unbalanced", "ledger", f"all balances make {total}, not 0")
    for row in books.rows("SELECT transaction_id, sum(amount) AS total FROM ledger_entries GROUP BY transaction_id HAVING sum(amount) <> 0"):
        yield Finding("unbalanced", row["transaction_id"], f"its entries make {row['total']}, not 0")
    entries = books.rows("SELECT account, sum(amount) AS total FROM ledger_entries GROUP BY account")
    entries = {row["account"]: int(row["total"]) for row in entries}
    for row in books.rows("SELECT id, balance FROM ledger_accounts"):
        if row["balance"] != entries.pop(row["id"], 0):
            yield Finding("unbalanced", row["id"], f"its balance of {row['balance']} is not what its entries make")
        if row["balance"] < 0 and not row["id"].startswith("house:"):
            yield Finding("below_zero", row["id"], f"its balance is {row['balance']}")
    for account in entries:
        yield Finding("unbalanced", account, "it has entries and no balance")


def prepaid_accounts(books):
    return {row["id"] for row in books.rows("SELECT id FROM accounts WHERE funding = 'prepaid'")}


def check_accounts(records, books):
    """What was granted to an account is what it was charged and what it has."""
    charged = collections.Counter()
    for record in records:
        charged[record["account"]] += record["charge"]
    credited, left = collections.Counter(), collections.Counter()
    for row in books.rows(
            "SELECT e.account, e.amount FROM ledger_entries e JOIN ledger_transactions t ON t.id = e.transaction_id "
            "WHERE t.kind IN ('grant', 'withdrawal') AND e.account LIKE 'customer:%'"):
        credited[row["account"].removeprefix("customer:")] += int(row["amount"])
    for row in books.rows("SELECT id, balance FROM ledger_accounts"):
        kind, _, account = row["id"].partition(":")
        if kind in ("customer", "escrow"):
            left[account] += row["balance"]
    for account in prepaid_accounts(books):
        if credited[account] != charged[account] + left[account]:
            detail = f"credited {credited[account]}, charged by records {charged[account]}, left {left[account]}"
            yield Finding("unbalanced", account, detail)


def check_pools(books, now_us):
    """Where SQL lends, what is free and what is lent is what the account has; what has lapsed has gone back."""
    if not books.has("pools"):
        return
    balances = {row["id"]: row["balance"] for row in books.rows("SELECT id, balance FROM ledger_accounts")}
    loans = collections.Counter()
    for row in books.rows("SELECT account, node, amount, in_use, deadline FROM pool_loans"):
        loans[row["account"]] += row["amount"]
        if row["amount"] < 0 or row["in_use"] < 0:
            yield Finding("below_zero", f"{row['account']} {row['node']}", f"it has {row['amount']} on loan, {row['in_use']} in use")
        if row["deadline"] < now_us - LAPSED_US_MAX:
            seconds = (now_us - row["deadline"]) // 1_000_000
            yield Finding("orphan", f"{row['account']} {row['node']}", f"its loan of {row['amount']} lapsed {seconds} s ago")
    for row in books.rows("SELECT account, free FROM pools"):
        account, free = row["account"], row["free"]
        if free < 0:
            yield Finding("below_zero", account, f"its pool has {free} free")
        # With a hot store the pools are there, and the money that it lends is in escrow.
        has = balances.get(f"customer:{account}", 0)
        if f"escrow:{account}" not in balances and has != free + loans[account]:
            yield Finding("unbalanced", account, f"it has {has}, its pool {free} free and {loans[account]} on loan")
    for row in books.rows("SELECT key_id, period, spent FROM key_purses WHERE spent < 0"):
        yield Finding("below_zero", f"{row['key_id']} {row['period']}", f"{row['spent']} is spent under its ceiling")


def audit_until(path, database, prices, model_prefix, wait_seconds):
    """The findings that are left when there are none or time is over, and what was compared."""
    deadline = time.monotonic() + wait_seconds
    books = Books(database)
    while True:
        served = read_truth(path)
        try:
            findings = audit(served, books, prices, model_prefix)
        except (OSError, sqlite3.Error, subprocess.SubprocessError) as error:
            findings = [Finding("unreadable", str(database), str(error))]
        if not findings or time.monotonic() > deadline:
            return findings, served
        time.sleep(POLL_SECONDS)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--truth", required=True, help="the provider's file")
    parser.add_argument("--database", required=True, help="the path of an SQLite file, or a postgres:// URL")
    parser.add_argument("--input", type=int, required=True, help="nano-USD for a token of the prompt")
    parser.add_argument("--output", type=int, required=True, help="nano-USD for a token of the answer")
    parser.add_argument("--request", type=int, default=0, help="nano-USD for a request")
    parser.add_argument("--model-prefix", default="box/", help="what the gateway puts before the provider's name of a model")
    parser.add_argument("--wait", type=float, default=0, help="seconds for everything to come to rest")
    options = parser.parse_args()
    prices = Prices(options.input, options.output, options.request)
    findings, served = audit_until(options.truth, options.database, prices, options.model_prefix, options.wait)
    for one in findings:
        print(f"{one.kind}: {one.subject}: {one.detail}")
    kinds = dict(collections.Counter(one.kind for one in findings))
    print(f"{len(served)} requests served; findings: {kinds or 'none'}", file=sys.stderr)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
