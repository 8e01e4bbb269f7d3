"""What a person may choose: `LoraConfig` for the adapters, `TrainingConfig` for the run.

Each default stands here once. Both records are frozen and keyword-only, and check themselves when they are made, so a
wrong number is a sentence before the model is touched rather than a NaN an hour later. Standard library only.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

Schedule = Literal["linear", "cosine", "constant"]


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Which layers get adapters and how strong they are (Hu et al. 2021, arXiv 2106.09685)."""

    r: int = 16  # rank R of each adapter
    lora_alpha: float = 16.0  # the update is scaled by lora_alpha / r
    lora_dropout: float = 0.0  # chance of dropping an adapter's input while training
    use_rslora: bool = False  # scale by lora_alpha / sqrt(r) instead (Kalajdzievski 2023, arXiv 2312.03732)
    target_modules: tuple[str, ...] | None = None  # leaf names or full paths; None: every attention and MLP projection
    use_dora: bool = False  # learn the magnitude of each output apart (Liu et al. 2024, arXiv 2402.09353)
    finetune_last_n_layers: int | None = None  # None: all layers
    finetune_attention_modules: bool = True
    finetune_mlp_modules: bool = True
    random_state: int = 3407

    def __post_init__(self):
        _raise_all(
            "LoraConfig",
            _at_least(1, r=self.r),
            _positive(lora_alpha=self.lora_alpha),
            _in_half_open_unit(lora_dropout=self.lora_dropout),
            _at_least(1, finetune_last_n_layers=self.finetune_last_n_layers),
            ["target_modules is empty; name at least one module, or pass None for all."]
            if self.target_modules is not None and not self.target_modules
            else [],
        )

    @property
    def scale(self) -> float:
        """The factor on B @ A, called `scale` by mlx-lm."""
        return self.lora_alpha / (math.sqrt(self.r) if self.use_rslora else self.r)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """One training run. Give `num_train_epochs` or `max_steps`, not both; with neither, one epoch is trained."""

    per_device_train_batch_size: int = 2  # rows per micro-batch
    gradient_accumulation_steps: int = 4  # micro-batches per optimizer step
    num_train_epochs: float | None = None
    max_steps: int | None = None  # optimizer steps
    learning_rate: float = 2e-4
    lr_scheduler_type: Schedule = "linear"
    warmup_steps: int = 5
    min_lr_rate: float = 0.0  # the rate the schedule ends at, as a share of learning_rate
    weight_decay: float = 0.001  # decoupled; biases and norms are never decayed
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    max_grad_norm: float | None = 1.0  # global L2 norm; None and 0 both mean off
    max_seq_length: int | None = None  # tokens; None: the length the model was loaded with
    eval_steps: int | None = None  # evaluate every n optimizer steps; None: only at the start and the end
    per_device_eval_batch_size: int | None = None  # None: as in training
    seed: int = 3407  # the order of the rows, and dropout
    output_dir: str | None = None  # each run makes a folder run-001, run-002, ... in it; None: nothing is written

    def __post_init__(self):
        both = self.num_train_epochs is not None and self.max_steps is not None
        _raise_all(
            "TrainingConfig",
            _at_least(
                1,
                per_device_train_batch_size=self.per_device_train_batch_size,
                gradient_accumulation_steps=self.gradient_accumulation_steps,
                max_steps=self.max_steps,
                max_seq_length=self.max_seq_length,
                eval_steps=self.eval_steps,
                per_device_eval_batch_size=self.per_device_eval_batch_size,
            ),
            _at_least(0, warmup_steps=self.warmup_steps),
            _not_negative(weight_decay=self.weight_decay, max_grad_norm=self.max_grad_norm),
            _positive(
                learning_rate=self.learning_rate,
                num_train_epochs=self.num_train_epochs,
                adam_epsilon=self.adam_epsilon,
            ),
            _in_half_open_unit(adam_beta1=self.adam_beta1, adam_beta2=self.adam_beta2, min_lr_rate=self.min_lr_rate),
            [f"lr_scheduler_type is {self.lr_scheduler_type!r}; choose one of {', '.join(get_args(Schedule))}."]
            if self.lr_scheduler_type not in get_args(Schedule)
            else [],
            [
                f"num_train_epochs is {self.num_train_epochs} and max_steps is {self.max_steps}; each sets the length "
                "of the run, so give one of them."
            ]
            if both
            else [],
        )


def _raise_all(record: str, *complaints: list[str]) -> None:
    """Raise every complaint at once: whoever mistyped three numbers should read about three."""
    found = [f"{record}.{text}" for group in complaints for text in group]
    if found:
        raise ValueError("\n".join(found))


def _at_least(least: int, **values: int | None) -> list[str]:
    return [
        f"{name} is {value!r}; it must be a whole number, at least {least}."
        for name, value in values.items()
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least)
    ]


def _positive(**values: float | None) -> list[str]:
    return [
        f"{name} is {value!r}; it must be a finite number above 0."
        for name, value in values.items()
        if value is not None and not 0 < value < math.inf
    ]


def _not_negative(**values: float | None) -> list[str]:
    return [
        f"{name} is {value!r}; it must be a finite number, 0 or more."
        for name, value in values.items()
        if value is not None and not 0 <= value < math.inf
    ]


def _in_half_open_unit(**values: float) -> list[str]:
    return [
        f"{name} is {value!r}; it must be at least 0 and below 1."
        for name, value in values.items()
        if not 0 <= value < 1
    ]
