"""The child of a job, which dies at a moment of one's choice: `main([FOLDER, DEATHS])`.

DEATHS is a file of JSON, a list of [how, step, micro-batches of it done]; each child takes the first that is left.
"""

import json
import os
import signal
import sys
from pathlib import Path

import tests.makers.processes.without_torch
from tunebook.events import Working
from tunebook.jobs.training import train_job

assert tests.makers.processes.without_torch

METAL = (
    "libc++abi: terminating due to uncaught exception of type std::runtime_error: [METAL] Command buffer execution "
    "failed: Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)\n"
)


def main(arguments: list[str]) -> None:
    """Train the job in FOLDER until its moment has come."""
    folder, deaths = map(Path, arguments)
    left = json.loads(deaths.read_text())
    how, step, done = left.pop(0) if left else (None, 0, 0)
    deaths.write_text(json.dumps(left))

    def at(event):
        if isinstance(event, Working) and (event.what, event.step, event.done) == ("training", step, done):
            die(how)

    train_job(folder, supervised=True, listeners=[("death", at)])


def die(how: str) -> None:
    """By a signal of that name, by `exit`, or as an abort of `metal` looks."""
    if how == "exit":
        os._exit(7)
    if how == "metal":
        sys.stderr.write(METAL)
        sys.stderr.flush()
    os.kill(os.getpid(), signal.SIGABRT if how == "metal" else getattr(signal, how))
