"""The shell's way in: `python -m tunebook COMMAND`, and `python -m tunebook --help` lists the commands.

Each command calls one function of the kit.
"""

import argparse
import sys
import traceback
from pathlib import Path

from .machine.without_torch import torch_unseen


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code is 0 when it did what was asked."""
    parser = argparse.ArgumentParser(prog="python -m tunebook", description="Fine-tune language models with MLX.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    check = commands.add_parser(
        "doctor", help="check this machine and environment; exit code 1 when something is broken"
    )
    check.add_argument(
        "--gpu", action="store_true", help="time training here and with mlx-lm; a report to send, as JSON"
    )
    check.set_defaults(run=lambda given: _doctor(given.gpu))

    get = commands.add_parser("fetch", help="get a model, and print where it is and where it came from")
    get.add_argument("name", help="a hub id, a folder or a .gguf file")
    get.add_argument("--revision", help="a branch, tag or commit of the hub's repository")
    get.set_defaults(run=lambda given: _fetch(given.name, given.revision))

    show = commands.add_parser("demo", help="train a small model from data to a file, and show what came of it")
    show.set_defaults(run=lambda _: _demo())

    _add_score(commands)
    _add_jobs(commands)
    given = parser.parse_args(arguments)
    with torch_unseen():  # no command needs it
        return given.run(given)


def _add_score(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    score = commands.add_parser(
        "score",
        help="ask a model the rows of an exam; exit code 1 when it is not good enough, 2 when it cannot be asked",
    )
    score.add_argument("folder", help="adapters, a model folder, a .gguf file or a hub id")
    score.add_argument("--exam", required=True, help="a file of rows with their answers, as a Trainer reads them")
    score.add_argument(
        "--metric", action="append", help="exact_match (the default), numeric, chrf, perplexity, ...; may be repeated"
    )
    score.add_argument("--max-tokens", type=int, default=256, help="longest answer in tokens")
    score.add_argument("--batch-size", type=int, default=8, help="rows that are asked at a time")
    score.add_argument("--fail-below", type=float, help="the least score of the first metric")
    score.add_argument("--better-than-base", action="store_true", help="the adapters have to be better than none")
    score.add_argument("--by", type=float, default=0.0, help="by how much, at least")
    score.add_argument(
        "--as-exported",
        action="store_true",
        help="ask the program the files are for, in a fresh process: llama.cpp for a .gguf, else mlx-lm or mlx-vlm",
    )
    score.add_argument("--report", help="a .json or a .xml (JUnit) file to write")
    score.set_defaults(run=_score)


def _add_jobs(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    train = commands.add_parser(
        "train", help="train a job, from where it was; exit code 1 when that fails, 2 when it cannot begin"
    )
    train.add_argument("job", help="a folder that trainer.save_job or trainer.start made")
    train.add_argument("--supervised", action="store_true", help=argparse.SUPPRESS)  # below `supervise`
    train.set_defaults(run=lambda given: _train(given.job, supervised=given.supervised))

    supervise = commands.add_parser(
        "supervise", help="train a job in a process that is looked after, when its turn has come"
    )
    supervise.add_argument("job", help="a folder that trainer.save_job or trainer.start made")
    supervise.add_argument("--wanted-elsewhere", action="store_true", help=argparse.SUPPRESS)  # by a notebook
    supervise.set_defaults(run=lambda given: _supervise(given.job, wanted_elsewhere=given.wanted_elsewhere))

    queue = commands.add_parser("queue", help="the jobs that go on and those that wait")
    queue.set_defaults(run=lambda _: _queue())


# Each command imports what it needs when it runs: `doctor` must answer where MLX cannot even be loaded.


def _doctor(gpu: bool) -> int:
    from .check_up import doctor

    if gpu:
        report = doctor(gpu=True)
        print(report, file=sys.stderr)
        print(report.json(), end="")
        return 0
    diagnosis = doctor()
    print(diagnosis)
    return 0 if diagnosis.works else 1


def _fetch(name: str, revision: str | None) -> int:
    from .models.fetch import ModelNotFound, fetch

    try:
        fetched = fetch(name, revision=revision)
    except ModelNotFound as error:
        print(error, file=sys.stderr)
        return 1
    print(fetched.path)
    print(fetched.source)
    return 0


def _score(given: argparse.Namespace) -> int:
    from .export.readback.asking import DidNotReply
    from .fast_model import FastModel
    from .models.fetch import ModelNotFound
    from .scores import Exam
    from .scores.gate import gate
    from .scores.reports import check_path, write_report

    try:
        if given.report is not None:
            check_path(given.report)
        exam = Exam(given.exam, given.metric or ["exact_match"], max_tokens=given.max_tokens)
        model = given.folder if given.as_exported else FastModel.from_pretrained(given.folder)[0]
        found = gate(
            model,
            exam,
            name=Path(given.folder).name,
            fail_below=given.fail_below,
            better_than_base=given.better_than_base,
            by=given.by,
            batch_size=given.batch_size,
        )
        if given.report is not None:
            write_report(given.report, found.marks, found.failures)
    except (ModelNotFound, DidNotReply, ValueError, ImportError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    except Exception:  # noqa: BLE001 - Python's own exit code is 1, and that says here that the score is too low
        traceback.print_exc()
        return 2
    for marks in found.marks:
        print(marks)
    for failure in found.failures:
        print(failure, file=sys.stderr)
    return 1 if found.failures else 0


def _train(job: str, *, supervised: bool) -> int:
    from .events import EndReason
    from .jobs.layout import NoJob
    from .jobs.training import train_job
    from .models.fetch import ModelNotFound
    from .runs.lock import RunInUse

    try:
        result = train_job(Path(job), supervised=supervised)
    except (NoJob, ModelNotFound, RunInUse) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    return 1 if result.reason is EndReason.FAILED else 0


def _supervise(job: str, *, wanted_elsewhere: bool) -> int:
    from .jobs.layout import NoJob
    from .jobs.supervisor import Supervised, supervise

    try:
        state = supervise(Path(job), wanted_elsewhere=wanted_elsewhere)
    except (NoJob, Supervised) as error:
        print(error, file=sys.stderr)
        return 2
    print(state.said)
    return 0 if state.ended_well else 1


def _queue() -> int:
    from .jobs import queue

    print(queue())
    return 0


def _demo() -> int:
    from .demo import demo

    demo()
    return 0


if __name__ == "__main__":
    sys.exit(main())
