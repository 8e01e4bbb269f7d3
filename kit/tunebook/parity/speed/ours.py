"""The kit's own steps: its trainer's Stepper, in the forms the self-test before a run's first step settles on."""

from collections.abc import Callable
from dataclasses import asdict, replace

import numpy as np

from ...config import LoraConfig, TrainingConfig
from ...data.encoded import Encoded
from ...machine.runtime import memory_for_training
from ...models.adapters import add_adapters
from ...models.loader import load
from ...train.passes.self_test import Settled, Waiting, settle
from ...train.step import Stepper
from .job import RANK, RATE, Job, Timed, timed


def our_steps(job: Job) -> Timed:
    """The steps, timed; `forms` has one entry for each form of the pass that the self-test tried."""
    length, steps = len(job.rows[0]), job.warmup + job.steps
    loaded = load(job.folder, max_seq_length=length, say=lambda _: None)
    loaded.module.freeze()
    add_adapters(loaded.module, LoraConfig(r=RANK, lora_alpha=RANK))
    rows = [Encoded(tokens=np.array(row, np.int32), loss_mask=np.ones(len(row), bool)) for row in job.rows]
    config = TrainingConfig(
        per_device_train_batch_size=len(rows),
        gradient_accumulation_steps=1,
        max_steps=steps,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        warmup_steps=0,
        weight_decay=0.0,
        gradient_checkpointing=False,
    )
    stepper = Stepper(loaded, config, rows, total_steps=steps, max_seq_length=length)

    def train(ended: Callable[[float], None]) -> None:
        for step in range(1, steps + 1):
            stepper.begin(step)
            stepper.add(rows, alone=True)
            ended(stepper.finish().loss)

    with memory_for_training():
        settled = _ended(settle(loaded, stepper.forms, rows, stepper.pass_in))
        stepper.use(settled.forms)
        found = timed(job, train)
    return replace(found, forms=[asdict(one) for one in settled.tried])


def _ended(testing: Waiting) -> Settled:
    while True:
        try:
            next(testing)
        except StopIteration as end:
            return end.value
