"""How fast time goes in tests: every duration that a test configures is divided by this."""

import os

# 1 in `make soak-faults`: then it is as long as an operator would set it.
SCALE = float(os.environ.get("TOKENROUTE_TEST_SCALE", "10"))


def scaled(seconds):
    """So many seconds of an operator's configuration, as long as they are in this run."""
    return seconds / SCALE


def millis(seconds):
    """The same in whole milliseconds, for the names of the provider's scripts."""
    return round(scaled(seconds) * 1_000)
