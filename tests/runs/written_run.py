"""A run that is written to its folder as by the process that trains it, and a way to wait for what others do."""

import time

from tunebook.runs.controls import Controls
from tunebook.runs.folder import event_log
from tunebook.runs.hearing import Hearing
from tunebook.runs.lock import RunLock


def soon(condition, seconds=20):
    """What `condition` gives as soon as that is something."""
    deadline = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


class Writer:
    """A run as its process keeps it, told its events by the test."""

    def __init__(self, folder):
        self.controls, self.lock = Controls(), RunLock(folder)
        self.hearing, self.keep = Hearing(self.controls, folder), event_log(folder)
        self.hearing.__enter__()

    def tell(self, *events):
        for event in events:
            self.keep(event)
            self.hearing(event)

    def acknowledge(self, step=0):
        heard = soon(lambda: list(self.controls.listen(step, None)))
        self.tell(*heard)
        return heard

    def close(self, *, killed=False):
        if killed:
            self.hearing._over.set()
            self.hearing._thread.join()
        else:
            self.hearing.__exit__()
        self.lock.release()
