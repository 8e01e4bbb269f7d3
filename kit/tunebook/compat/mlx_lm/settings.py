"""The settings of a run: mlx-lm's keys in, a `TrainingConfig` out.

mlx-lm counts iterations, each of one micro-batch; this kit counts updates, each of `grad_accumulation_steps` of them.
"""

from typing import Any, Literal

from ... import TrainingConfig
from ...settings.taken import elsewhere
from ..told import tell
from .config_file import DEFAULTS, Settings
from .optimizers import optimizer_settings
from .schedules import schedule_settings

LOSS = (
    "the loss of a step is the sum over its trained tokens, divided once by their number. mlx-lm takes the mean of "
    "means of micro-batches, and trains a token of padding behind each row. It also leaves out the rows that fill no "
    "batch; here none is."
)
MEASURED = (
    "val_batches: all rows of valid.jsonl are measured, before the first step, every steps_per_eval, and at the end."
)
RUNS = (
    "adapter_path: each run makes a folder of its own in it, such as run-001, with its checkpoints. "
    "model.save_pretrained(folder) leaves the adapters as mlx-lm does."
)
TESTED = "test: nothing is measured by itself; trainer.evaluate('{data}/test.jsonl') does."
REPORTED = "steps_per_report: every step is told."
CACHE = "clear_cache_threshold: MLX's cache is looked after by itself."

TrainOn = Literal["assistant", "last_assistant", "everything"]


def training_config(settings: Settings, *, train_on: TrainOn, has_valid: bool) -> TrainingConfig:
    """The settings of the run; raises ValueError with all that cannot be followed."""
    wrong = _wrong(settings)
    every, iters = settings["grad_accumulation_steps"], settings["iters"]
    updates, rate = iters // max(1, every), settings["learning_rate"]
    optimizer = settings["optimizer"]
    own = settings["optimizer_config"].get(optimizer) or {}
    found: dict[str, Any] = {}
    for part in (
        lambda: schedule_settings(settings["lr_schedule"], rate, updates),
        lambda: optimizer_settings(optimizer, own),
    ):
        try:
            found |= part()
        except ValueError as error:  # told together: a config is mended once, not once for each key
            wrong.append(str(error))
    if wrong:
        raise ValueError("\n".join(wrong))
    tell(LOSS)
    if iters % every:
        tell(
            f"iters: the last {iters % every} of {iters} fill no update of {every} micro-batches, and are not computed."
        )
    _tell_of_what_sets_nothing(settings, has_valid=has_valid)
    return TrainingConfig(
        per_device_train_batch_size=settings["batch_size"],
        per_device_eval_batch_size=settings["batch_size"],
        gradient_accumulation_steps=every,
        max_steps=updates,
        **found,
        max_grad_norm=None,
        train_on=train_on,
        dataset_order="length_sorted",
        hold_out=0.0,
        eval_steps=max(1, settings["steps_per_eval"] // every) if has_valid else None,
        save_steps=max(1, settings["save_every"] // every),
        gradient_checkpointing=True if settings["grad_checkpoint"] else None,
        seed=settings["seed"],
        output_dir=settings["adapter_path"],
    )


def _wrong(settings: Settings) -> list[str]:
    wrong = []
    every, iters = settings["grad_accumulation_steps"], settings["iters"]
    if every < 1 or iters < every:
        wrong.append(f"iters is {iters} and grad_accumulation_steps {every}: no update is made. Give at least as many.")
    if settings["report_to"]:
        said = elsewhere("TrainingConfig", "report_to", settings["report_to"])
        wrong.append(f"report_to is {settings['report_to']!r}: {said}.")
    if settings["test"] and not settings["train"]:
        wrong.append(
            "test is on and train is off; trainers train. Ask a model with tunebook.scores, or set train: true."
        )
    return wrong


def _tell_of_what_sets_nothing(settings: Settings, *, has_valid: bool) -> None:
    changed: dict[str, Any] = {name: value for name, value in settings.items() if DEFAULTS.get(name) != value}
    tell(RUNS)
    if has_valid:
        tell(MEASURED)
    if settings["test"]:
        tell(TESTED.format(data=settings["data"]))
    for name, said in (("steps_per_report", REPORTED), ("clear_cache_threshold", CACHE)):
        if name in changed:
            tell(said)
