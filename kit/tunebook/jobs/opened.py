"""The job in a folder made into work again: a loaded model, rows, settings."""

import json
from functools import cache, partial
from pathlib import Path
from typing import Any

from ..config import TrainingConfig
from ..tokens.feed import StoredFeed
from ..tokens.packing import pack
from ..train.kept.identity import base_of, differences
from ..train.plan import RunPlan
from .carried import exams, models, objectives, prompts, rows
from .layout import JOB, NoJob, read_description
from .work import Work
from .written import HELD_OUT, TRAIN


class OtherModel(NoJob):
    """What was found in the place of a job's model is not what the job was made with."""


def open_job(home: Path) -> Work:
    """The work that `write_job` was given. Its prompts and rows are read by value, its model is loaded.

    Raises NoJob for what is no job, OtherModel where other weights stand in the place of the model's, Damaged for rows
    that are not whole, and what `models.loader.load` raises.
    """
    plain, folder = read_description(home), home / JOB
    config = TrainingConfig(**_with_tuples(plain["config"]))
    model = models.read(plain["model"], folder, home.absolute())
    encoded = rows.read(folder / TRAIN)
    if config.packing:
        encoded = pack(encoded, plain["max_seq_length"], seed=config.seed)
    plan = RunPlan(
        loaded=model.loaded,
        config=config,
        objective=objectives.from_plain(plain["objective"]),
        feed=StoredFeed(encoded, config),
        eval_rows=rows.read(folder / HELD_OUT) if (folder / HELD_OUT).exists() else [],
        max_seq_length=plain["max_seq_length"],
        skip_unreadable=plain["skip_unreadable"],
        prompts=prompts.from_plain(plain["prompts"]),
        exam=exams.from_plain(plain["exam"]),
        base=cache(partial(base_of, model.loaded)),
    )
    if different := differences(plain["identity"], json.loads(json.dumps(plan.identity))):
        raise OtherModel(
            f"What was opened for the job in {home} is not what it was made with:\n" + "\n".join(different) + "\nIts "
            f"model was {plain['model']['name']}, in {plain['model']['place']}; put that there, or beside the job as "
            f"{plain['model']['from here']}."
        )
    return Work(model=model, plan=plan, notices=plain["notices"])


def _with_tuples(config: dict[str, Any]) -> dict[str, Any]:
    return {**config, "sample_prompts": tuple(config["sample_prompts"])}
