"""The run that this very work was begun as before: a cell that starts one is run again, and the notebook another day.

Work goes in; the newest run of its output_dir that is of the same model, rows, settings and first weights comes out,
where it goes on or came to its end. One that was stopped, failed or died is begun anew.
"""

from pathlib import Path

from ..runs.folder import run_folders
from ..runs.resuming import as_typed
from .layout import NoJob, Order, is_job, read_description, read_order
from .run import Run, find
from .work import HoldsModel

GOES_ON = ("waiting", "running", "pausing")


def earlier_run(fingerprint: str, output_dir: str, order: Order, model: HoldsModel) -> Run | None:
    """The newest run with a job of `fingerprint`, in as many processes as `order` says; None where there is none."""
    for folder in reversed(run_folders(Path(output_dir).expanduser().absolute())):
        if _is_of(folder, fingerprint, order):
            run = find(as_typed(folder, output_dir), model)
            if run.state in (*GOES_ON, "finished"):
                return run
    return None


def in_a_line(run: Run) -> str:
    """What whoever gets an earlier run in place of a new one is told."""
    how = "has finished" if run.state == "finished" else "goes on" if run.state == "running" else f"is {run.state}"
    return (
        f"{run.run_folder} is a run of this very model, these rows and settings, and {how}: this is its handle. "
        "start(again=True) trains anew."
    )


def _is_of(folder: Path, fingerprint: str, order: Order) -> bool:
    try:
        if not is_job(folder) or read_description(folder).get("fingerprint") != fingerprint:
            return False
    except NoJob:
        return False  # damaged, or another version's
    before = read_order(folder)
    return (before.processes, before.hosts) == (order.processes, order.hosts)
