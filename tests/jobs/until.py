"""Waiting for what another process does."""

import time


def until(true, seconds=300.0):
    """Wait until `true()` holds."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)
