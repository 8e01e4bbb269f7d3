"""Jobs of tiny models, and children of them that die at moments of one's choice."""

import json
import subprocess
import sys

from tests.makers.arrays import in_numpy
from tunebook.jobs.layout import ERRORS, ORDER, OUT, Order, write_record
from tunebook.jobs.processes import Child
from tunebook.jobs.results import read_weights
from tunebook.jobs.written import write_job
from tunebook.runs.looked_after.state import PROCESS

# Pauses and patience as short as a test can have them.
QUICK = {"pause_seconds": 0.01, "silent_seconds": 3.0}

DYING = """
import json, os, signal, sys
from pathlib import Path
import tests.makers.without_torch
from tunebook.events import Working
from tunebook.jobs.training import train_job
folder, deaths = Path(sys.argv[1]), Path(sys.argv[2])
left = json.loads(deaths.read_text())
how, step, done = left.pop(0) if left else (None, 0, 0)
deaths.write_text(json.dumps(left))
def at(event):
    here = isinstance(event, Working) and event.what == "training" and (event.step, event.done) == (step, done)
    if not here:
        return
    if how == "exit":
        os._exit(7)
    if how == "metal":
        sys.stderr.write("libc++abi: terminating due to uncaught exception of type std::runtime_error: [METAL] Command "
            "buffer execution failed: Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)\\n")
        sys.stderr.flush()
        how_ = signal.SIGABRT
    elif how == "raise":
        raise KeyboardInterrupt
    else:
        how_ = getattr(signal, how)
    os.kill(os.getpid(), how_)
train_job(folder, supervised=True, listeners=[("death", at)])
"""


def job_of(trainer, folder, **order):
    """The job of a trainer in `folder`, with an order for its supervisor."""
    write_job(trainer._work(), trainer.data.train.rows, folder, need=trainer.memory())
    write_record(folder, ORDER, Order(**{**QUICK, "keep": True, **order}))
    return folder


def result_of(folder):
    """name -> the weights that a job left."""
    return {name: in_numpy(array) for name, array in read_weights(folder).items()}


def dying(tmp_path, deaths):
    """What starts the child of a job in place of `processes.start_children`: each dies the next of `deaths`."""
    file = tmp_path / "deaths.json"
    file.write_text(json.dumps(deaths))

    def start(folder, order):
        with (folder / PROCESS / OUT).open("ab") as out, (folder / PROCESS / ERRORS).open("ab") as errors:
            command = [sys.executable, "-c", DYING, str(folder), str(file)]
            started = subprocess.Popen(command, stdout=out, stderr=errors, start_new_session=True)
            return [Child(started, folder / PROCESS / ERRORS)]

    return start
