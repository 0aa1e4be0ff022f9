"""Keys that pay, a steady load on them over all edges, and what must hold of it afterwards whatever became of the stores."""

import collections
import itertools

from harness import books
from harness.calls import Warm
from harness.edge import priced
from harness.gateway import INPUT_PRICE, OUTPUT_PRICE, chat
from harness.waiting import until

MODEL, SLOW, DEAR = "echo+tag-paid", "echo+pace-50+tag-slow", "echo+pace-200+tag-dear"
MODELS = (priced(MODEL, input=INPUT_PRICE, output=OUTPUT_PRICE) + priced(SLOW, input=INPUT_PRICE, output=OUTPUT_PRICE)
          + priced(DEAR, input="0", output="0", request="0.10"))
CALLS_PER_SECOND = 200
CREDIT = 1000
KEYS = 6


def open_keys(nodes, account="payer", count=KEYS):
    books.open_account(nodes.first, account, f"{CREDIT}.00")
    return [books.open_key(nodes.first, account, name=f"key-{number}") for number in range(count)]


def warm_up(nodes, keys):
    """Each edge knows each key, and has money for it."""
    for edge in nodes.edges:
        for key, _ in keys:
            until(lambda edge=edge, key=key: edge.ask(chat(f"box/{MODEL}"), key=key).status == 200, "the key is known")


def begin_load(nodes, keys, rate=CALLS_PER_SECOND):
    """Calls on known keys, over all edges in turn."""
    turns = itertools.cycle([
        (edge.address, edge.request(chat(f"box/{MODEL}"), key=key)) for key, _ in keys for edge in nodes.edges])
    return Warm(lambda: next(turns), rate)


def kinds(calls):
    return collections.Counter((one.status, one.reason, one.error) for one in calls)


def check_never_misjudged(calls):
    """A store that is away is nobody's fault but ours: 503 and when to come back, never 401 or 402."""
    assert {one.status for one in calls} <= {200, 503}, kinds(calls)
    assert all("retry-after" in one.fields for one in calls if one.status == 503), kinds(calls)


def check_books(nodes, path, calls, account="payer"):
    """Every call that was answered is recorded once and paid for once."""
    answered = sum(one.status == 200 for one in calls)
    payer = books.account_id(nodes.books, account)
    counted = (f"SELECT count(*) AS calls, count(DISTINCT call) AS distinct_calls, coalesce(sum(charge), 0) AS charge "
               f"FROM records WHERE account = '{payer}' AND outcome = 'answered'")

    def is_posted():
        row = nodes.books.rows(counted)[0]
        left = CREDIT * books.NANO_USD - int(row["charge"])
        return row if row["calls"] >= answered and books.balance(nodes.books, account) == left else None

    row = until(is_posted, f"{answered} calls are posted", 60)
    assert row["calls"] == row["distinct_calls"], row
    # Those that warmed up are in the books and not in `calls`.
    assert answered <= row["calls"] <= answered + KEYS * len(nodes.edges) * 4, (answered, row)
    served = sum(one.end == "finished" for one in served_of(path))
    assert int(row["charge"]) == row["calls"] * price_of_a_call() and served >= row["calls"], (served, row)
    until(lambda: not books.reconcile(nodes.control or nodes.first), "reconciling finds nothing", 30)


def served_of(path):
    """What the provider served, marked or not."""
    ends = (line for line in path.read_text().splitlines() if '"event":"end"' in line)
    return [books.audit.Served("", "", 0, 0, end="finished" if '"end":"finished"' in line else "cut") for line in ends]


def price_of_a_call():
    """`Hello there` and its echo: two tokens each."""
    return 2 * books.INPUT + 2 * books.OUTPUT
