"""Jobs of tiny models, and children of them that die at moments of one's choice."""

import json
import os

from tests.makers.arrays import in_numpy
from tests.makers.processes.forked import Forked
from tunebook.jobs.layout import ERRORS, ORDER, OUT, Order, write_record
from tunebook.jobs.processes import Child
from tunebook.jobs.results import read_weights
from tunebook.jobs.written import write_job
from tunebook.runs.looked_after.state import PROCESS

CHILD = "tests.makers.processes.dying_child"

# Pauses and patience as short as a test can have them.
QUICK = {"pause_seconds": 0.01, "silent_seconds": 3.0}


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
        out, errors = folder / PROCESS / OUT, folder / PROCESS / ERRORS
        process = Forked(CHILD, [str(folder), str(file)], os.environ, out=out, errors=errors)
        return [Child(process, errors)]

    return start
