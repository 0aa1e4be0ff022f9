"""Waiting for something to become true, with a deadline. Nothing here sleeps for a fixed time and hopes."""

import time

POLL_SECONDS = 0.02
WAIT_SECONDS = 15.0


def until(condition, what, seconds=WAIT_SECONDS):
    """Calls `condition` until it gives something true, and returns that. Fails when time is up."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what} (last: {found!r})")
        time.sleep(POLL_SECONDS)
