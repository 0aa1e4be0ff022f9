"""nginx and HAProxy look at the same requests. What both refuse, the gateway refuses; what it refuses though both let
it through, it has a reason for."""

import pytest

from harness import raw
from harness.judges import Judge, last_head
from http1_cases import KEY, fields, framing, targets

CASES = [*framing.CASES, *targets.CASES, *fields.CASES]


@pytest.fixture(scope="module")
def judges(tmp_path_factory, provider):
    running = []
    try:
        for name in ("nginx", "haproxy"):
            running.append(Judge(name, tmp_path_factory.mktemp("judge") / name, provider))
        yield running
    finally:
        for judge in running:
            judge.stop()


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES])
def test_case(shared, judges, case):
    data = case.data.replace(KEY, shared.key.encode())
    with raw.Connection(shared.address) as connection:
        connection.send(data)
        refused = last_head(connection).status >= 400
    passes = {judge.name: judge.passes(data) for judge in judges}
    if not any(passes.values()):
        assert refused, "both judges refuse it"
    if all(passes.values()) and refused:
        assert case.stricter, "both judges let it through"


def test_the_judges_judge(judges, shared):
    """They let through what is sound, and not what is not, so that their word is worth something."""
    verdicts = {True: 0, False: 0}
    for case in (framing.CASES[0], framing.CASES[3], next(one for one in CASES if one.name == "length-words")):
        for judge in judges:
            verdicts[judge.passes(case.data.replace(KEY, shared.key.encode()))] += 1
    assert verdicts == {True: 4, False: 2}
