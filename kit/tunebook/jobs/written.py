"""A run's work written into a folder, from which any process can begin it: values, arrays and rows, no code.

What cannot be carried is named, all of it at once, before anything is written.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..config import TrainingConfig
from ..data.encoded import Encoded
from ..machine.private import new_private_folder
from ..machine.sealed import sealed_json
from ..memory.footprint import Estimate
from ..models.base_digest import digest_of
from ..models.tensors import flat
from ..train.kept.identity import rows_digest
from .carried import exams, models, objectives, prompts, rows
from .carried.refused import NotCarried
from .layout import DESCRIPTION, JOB, VERSION
from .work import Work, check_trainable

TRAIN, HELD_OUT = "train", "held_out"


def check_carried(work: Work) -> dict[str, Any]:
    """What of `work` is carried by value. Raises NotCarried with everything that cannot be carried."""
    check_trainable(work.model)
    parts: dict[str, Callable[[], Any]] = {
        "objective": lambda: objectives.as_plain(work.plan.objective),
        "exam": lambda: exams.as_plain(work.plan.exam),
        "config": lambda: _plain_config(work.plan.config),
    }
    plain, wrong = {}, []
    for name, part in parts.items():
        try:
            plain[name] = part()
        except NotCarried as error:
            wrong.append(str(error))
    if not work.plan.feed.is_whole:
        wrong.append(
            "TrainingConfig.streaming is on: a job holds its rows, and nobody knows where a stream ends. Set it off, "
            "the rows are then kept on the disk and not in memory; or train in the kernel with trainer.train()."
        )
    if wrong:
        raise NotCarried("\n".join(wrong))
    return plain


def fingerprint_of(work: Work, carried: Mapping[str, Any]) -> str:
    """Sixteen digits for all that decides what a run comes to, its first weights too; `carried` is what is by value.

    Two jobs of one fingerprint end with the same weights. Where a run is kept is no part of it.
    """
    plan = work.plan
    whole = {
        **carried,
        "config": {name: value for name, value in carried["config"].items() if name != "output_dir"},
        "identity": plan.identity,
        "prompts": prompts.as_plain(plan.prompts),
        "held out": rows_digest(plan.eval_rows),
        "skip_unreadable": plan.skip_unreadable,
        "gradient_checkpointing": work.model.gradient_checkpointing,
        "begins with": digest_of(flat(work.model.loaded.module.trainable_parameters())),
    }
    return hashlib.sha256(json.dumps(whole, sort_keys=True, default=repr).encode()).hexdigest()[:16]


def write_job(work: Work, encoded: Sequence[Encoded], home: Path, *, need: Estimate) -> None:
    """Write `work` as the job of `home`, a run folder; `encoded` are its training rows before they were packed.

    Raises NotCarried, and ValueError for an image that is gone.
    """
    plan, carried = work.plan, check_carried(work)
    with new_private_folder(home / JOB) as folder:
        model = models.write(work.model, folder, home.absolute())
        rows.write(folder / TRAIN, encoded)
        if plan.eval_rows:
            rows.write(folder / HELD_OUT, plan.eval_rows)
        document = {
            "version": VERSION,
            **carried,
            "model": model,
            "prompts": prompts.as_plain(plan.prompts),
            "max_seq_length": plan.max_seq_length,
            "skip_unreadable": plan.skip_unreadable,
            "notices": list(work.notices),
            "identity": plan.identity,
            "fingerprint": fingerprint_of(work, carried),
            "memory_gb": need.total / 1e9,
            "device_gb": need.device / 1e9,
        }
        (folder / DESCRIPTION).write_text(sealed_json(document))


def _plain_config(config: TrainingConfig) -> dict[str, Any]:
    plain = config.as_plain()
    try:
        json.dumps(plain, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise NotCarried(
            f"TrainingConfig.sample_prompts hold what JSON has no word for ({error}); give texts, or images as paths."
        ) from error
    return plain
