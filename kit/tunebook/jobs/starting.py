"""Work saved as a job, and begun in a process of its own."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..data.encoded import Encoded
from ..memory.footprint import Estimate
from ..runs.resuming import as_typed
from ..train.kept.saving import make_run_folder
from ..train.ranks.check import check_use
from ..train.ranks.launch import count_of, read_hosts
from .earlier import earlier_run, in_a_line
from .layout import ORDER, Order, write_record
from .run import Run
from .work import Work, trained_before
from .written import check_carried, fingerprint_of, write_job


def save(work: Work, encoded: Sequence[Encoded], folder: Path, need: Estimate) -> Path:
    """Write `work` as a job into a new folder. Raises NotCarried, and ValueError for a folder that holds something."""
    check_carried(work)
    if folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"{folder} holds something already; give save_job a folder that is empty, or none yet.")
    folder.mkdir(parents=True, exist_ok=True)
    write_job(_with_its_past(work), encoded, folder, need=need)
    return folder


def hosts_of(hosts: str | Path | None, processes: int) -> str:
    """What a hosts file says; "" for none. Raises ValueError for one by which no run could begin."""
    if hosts is None:
        return ""
    if processes != 1:
        raise ValueError(
            f"start is given processes={processes} and hosts={str(hosts)!r}; give one of them: a hosts file says how "
            "many processes there are."
        )
    return read_hosts(Path(hosts).expanduser())


def start(work: Work, encoded: Sequence[Encoded], need: Estimate, order: Order, *, again: bool = False) -> Run:
    """Save `work` as the job of a new run folder and begin it there. Raises as `save` does.

    Unless it is to be trained `again`, a run of the same work that goes on or has finished is found, and it is said.
    """
    carried = check_carried(work)
    size = count_of(order.hosts) if order.hosts else order.processes
    check_use(size, work.plan)
    output_dir = work.plan.config.output_dir
    if output_dir is None:
        raise ValueError(
            "TrainingConfig.output_dir is None, and a run in a process of its own lives in its folder; set it, or "
            "train in the kernel with trainer.train()."
        )
    if not again and (run := earlier_run(fingerprint_of(work, carried), output_dir, order, work.model)) is not None:
        print(in_a_line(run))
        return run
    folder = make_run_folder(output_dir)
    write_job(_with_its_past(work), encoded, folder, need=need)
    typed = as_typed(folder, output_dir)
    estimate = need.total / 1e9 * order.processes  # each has the model; those on other machines are not counted
    order = replace(order, typed=typed, estimate_gb=estimate, limit_gb=need.device / 1e9)
    write_record(folder, ORDER, order)
    run = Run(typed, work.model)
    run.begin()
    return run


def _with_its_past(work: Work) -> Work:
    """`work` that says what its model was taught before, which another process cannot know."""
    return replace(work, notices=[*work.notices, *trained_before(work.model)])
