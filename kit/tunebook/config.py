"""What a person may choose: `LoraConfig` for the adapters, `TrainingConfig` for the run.

Each default stands here once. Both records are frozen and keyword-only, and check themselves when they are made, so a
wrong number is a sentence before the model is touched rather than a NaN an hour later. Standard library only.
"""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from numbers import Real
from typing import Any, Literal, cast, get_args

TINIEST = 1.2e-38  # rounded up, the smallest float32 that is computed with in full

Schedule = Literal["linear", "cosine", "constant"]
Optim = Literal["adamw", "adafactor", "lion", "sgd", "muon"]
Order = Literal["shuffle", "sequential", "length_sorted", "torch_randperm", "length_grouped"]
TrainOn = Literal["assistant", "last_assistant", "everything"]
Clipping = Literal["max_grad_norm", "max_grad_leaf_norm", "max_grad_value"]


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
    finetune_vision_layers: bool = False  # of a model that reads images: its tower, and what joins it to the text
    finetune_language_layers: bool = True
    modules_to_save: tuple[str, ...] | None = None  # trained whole, without an adapter; leaf names or full paths
    random_state: int = 3407

    def __post_init__(self):
        _raise_all(
            "LoraConfig",
            _at_least(1, r=self.r),
            _positive(lora_alpha=self.lora_alpha),
            _in_half_open_unit(lora_dropout=self.lora_dropout),
            _at_least(1, finetune_last_n_layers=self.finetune_last_n_layers),
            _where(
                self.target_modules is not None and not self.target_modules,
                "target_modules is empty; name at least one module, or pass None for all.",
            ),
            _where(
                self.modules_to_save is not None and not self.modules_to_save,
                "modules_to_save is empty; name at least one module, or pass None for none.",
            ),
            _where(
                not (self.finetune_vision_layers or self.finetune_language_layers),
                "finetune_vision_layers and finetune_language_layers are both off; set one on.",
            ),
        )

    @property
    def scale(self) -> float:
        """The factor on B @ A, called `scale` by mlx-lm."""
        return self.lora_alpha / (math.sqrt(self.r) if self.use_rslora else self.r)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """One training run. Give `num_train_epochs` or `max_steps`, not both; with neither, one epoch is trained.

    `max_grad_norm` and `warmup_steps` give way to the fields that would contradict them unless they are given
    themselves. They are filled in when the record is made, so it shows what is used.
    """

    per_device_train_batch_size: int = 2  # rows per micro-batch
    gradient_accumulation_steps: int = 4  # micro-batches per optimizer step
    num_train_epochs: float | None = None
    max_steps: int | None = None  # optimizer steps
    learning_rate: float = 2e-4
    lr_scheduler_type: Schedule = "linear"
    warmup_steps: int | None = None  # None: 5, unless warmup_ratio is given
    warmup_ratio: float | None = None  # share of all steps, rounded up to a whole step
    min_lr_rate: float = 0.0  # the rate the schedule ends at, as a share of learning_rate
    embedding_learning_rate: float | None = None  # for trained embed_tokens and lm_head weights; None: learning_rate
    lora_plus_ratio: float | None = None  # rate of the B matrices over that of the A (Hayou et al. 2024, 2402.12354)
    optim: Optim = "adamw"
    weight_decay: float = 0.001  # decoupled; biases and norms are never decayed
    adam_beta1: float = 0.9  # this and the next two are for AdamW alone
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    # At most one of these three clips the gradients; None and 0 both mean off.
    max_grad_norm: float | Literal["auto"] | None = "auto"  # L2 norm of all together; "auto": 1.0 if no other is on
    max_grad_leaf_norm: float | None = None  # L2 norm of each tensor by itself
    max_grad_value: float | None = None  # absolute value of each element
    train_on: TrainOn = "assistant"  # whose turns of a conversation are supervised; raw text always is, whole
    hold_out: float = 0.05  # share of the rows to measure with when no eval_dataset is given; 0: none
    packing: bool = False  # put short training rows together, each trained as if alone; together they count as one row
    max_seq_length: int | None = None  # tokens; None: the length the model was loaded with
    eval_steps: int | None = None  # evaluate every n optimizer steps; None: only at the start and the end
    per_device_eval_batch_size: int | None = None  # None: as in training
    dataset_order: Order = "shuffle"  # what each order is stands in tokens/batch_order.py
    # Compute layers twice and keep less; "auto": where the run would not fit else; None: as get_peft_model was told.
    gradient_checkpointing: bool | Literal["auto"] | None = None
    # Compile the forward and backward pass for the commonest shapes of the batches; "auto": on a GPU, where it can be.
    compile: bool | Literal["auto"] = "auto"
    neftune_noise_alpha: float | None = None  # noise on the embeddings while training; 5 is usual; None and 0: off
    streaming: bool = False  # read and encode rows when their step comes, from a source of any length; needs max_steps
    seed: int = 3407  # the order of the rows, and dropout
    # Each run makes a folder run-001, run-002, ... in it, beside the notebook; None: nothing is written.
    output_dir: str | None = "runs"
    save_steps: int | None = 100  # a checkpoint every n optimizer steps, and one at the end; None: not by steps
    save_minutes: float | None = 10.0  # and every n minutes, the first after two at most; None: not by the clock
    save_total_limit: int | None = 2  # how many checkpoints are kept; None: all
    load_best_model_at_end: bool = False  # end with the weights of the lowest held-out loss
    early_stopping_patience: int | None = None  # end after n evaluations without a new lowest loss
    sample_prompts: Sequence[str] = ()  # answered while training; none: the openings of two held-out rows
    sample_steps: int | None = None  # answer them every n optimizer steps; None: only when asked to
    sample_max_tokens: int = 64

    def __post_init__(self):
        if self.max_grad_norm == "auto":
            object.__setattr__(self, "max_grad_norm", None if self.max_grad_leaf_norm or self.max_grad_value else 1.0)
        if isinstance(self.output_dir, os.PathLike):
            object.__setattr__(self, "output_dir", os.fspath(self.output_dir))
        given = self.sample_prompts
        object.__setattr__(self, "sample_prompts", (given,) if isinstance(given, str) else tuple(given))
        if self.warmup_steps is None and self.warmup_ratio is None:
            object.__setattr__(self, "warmup_steps", 5)
        _raise_all("TrainingConfig", self._wrong_numbers(), self._wrong_choices())

    def _wrong_numbers(self) -> list[str]:
        """What is out of its range, whatever the other settings are."""
        return [
            *_at_least(
                1,
                per_device_train_batch_size=self.per_device_train_batch_size,
                gradient_accumulation_steps=self.gradient_accumulation_steps,
                max_steps=self.max_steps,
                max_seq_length=self.max_seq_length,
                eval_steps=self.eval_steps,
                save_steps=self.save_steps,
                save_total_limit=self.save_total_limit,
                early_stopping_patience=self.early_stopping_patience,
                per_device_eval_batch_size=self.per_device_eval_batch_size,
                sample_steps=self.sample_steps,
                sample_max_tokens=self.sample_max_tokens,
            ),
            *_at_least(0, warmup_steps=self.warmup_steps, seed=self.seed),
            *_not_negative(
                weight_decay=self.weight_decay,
                neftune_noise_alpha=self.neftune_noise_alpha,
                **self._clipping_limits(),
            ),
            *_positive(
                learning_rate=self.learning_rate,
                embedding_learning_rate=self.embedding_learning_rate,
                lora_plus_ratio=self.lora_plus_ratio,
                num_train_epochs=self.num_train_epochs,
                adam_epsilon=self.adam_epsilon,
                save_minutes=self.save_minutes,
            ),
            *_not_zero_in_float32(
                learning_rate=self.learning_rate,
                embedding_learning_rate=self.embedding_learning_rate,
                adam_epsilon=self.adam_epsilon,
            ),
            *_in_half_open_unit(
                adam_beta1=self.adam_beta1,
                adam_beta2=self.adam_beta2,
                min_lr_rate=self.min_lr_rate,
                hold_out=self.hold_out,
                warmup_ratio=self.warmup_ratio,
            ),
        ]

    def _wrong_choices(self) -> list[str]:
        """What is none of the choices there are, and what does not go together."""
        return [
            *_one_of(Schedule, lr_scheduler_type=self.lr_scheduler_type),
            *_one_of(Optim, optim=self.optim),
            *_one_of(TrainOn, train_on=self.train_on),
            *_one_of(Order, dataset_order=self.dataset_order),
            *_one_of(Literal[True, False, "auto"], compile=self.compile),
            *_where(
                self.gradient_checkpointing not in (True, False, "auto", None),
                f"gradient_checkpointing is {self.gradient_checkpointing!r}; choose True, False or 'auto'.",
            ),
            *_where(
                not (self.output_dir is None or (isinstance(self.output_dir, str) and self.output_dir)),
                f"output_dir is {self.output_dir!r}; name a folder, or pass None to write nothing.",
            ),
            *self._against_streaming(),
            *_where(
                self.packing and bool(self.neftune_noise_alpha),
                "packing and neftune_noise_alpha are both on; the noise would depend on what a row is packed with.",
            ),
            *_one_at_most(
                "each sets the length of the run", num_train_epochs=self.num_train_epochs, max_steps=self.max_steps
            ),
            *_one_at_most(
                "each sets the length of the warm-up", warmup_steps=self.warmup_steps, warmup_ratio=self.warmup_ratio
            ),
            *_one_at_most(
                "each clips the gradients in its own way",
                **{name: limit or None for name, limit in self._clipping_limits().items()},
            ),
        ]

    def _against_streaming(self) -> list[str]:
        """What is wrong with a stream, of which nobody knows how many rows it has and how long they are."""
        if not self.streaming:
            return []
        return [
            *_where(self.max_steps is None, "streaming needs max_steps; nobody knows where a stream ends."),
            *_where(self.packing, "streaming and packing are both on; packing has to know every row beforehand."),
            *_where(
                self.dataset_order not in ("shuffle", "sequential"),
                f"streaming goes with dataset_order 'shuffle' (within blocks) or 'sequential', not with "
                f"{self.dataset_order!r}, which has to know every row beforehand.",
            ),
        ]

    @property
    def clipping(self) -> tuple[Clipping, float] | None:
        """The one limit on the gradients that is on, by name; None when they are left alone."""
        return next(((name, limit) for name, limit in self._clipping_limits().items() if limit), None)

    def warmup(self, total_steps: int) -> int:
        """Steps of warm-up in a run of `total_steps`; a share is rounded up, as in transformers 5."""
        if self.warmup_ratio is not None:
            return math.ceil(self.warmup_ratio * total_steps)
        return self.warmup_steps or 0

    def as_plain(self) -> dict[str, Any]:
        """Every setting by name, as values that JSON gives back unchanged."""
        return {**asdict(self), "sample_prompts": list(self.sample_prompts)}

    def _clipping_limits(self) -> dict[Clipping, float | None]:
        return {
            "max_grad_norm": cast("float | None", self.max_grad_norm),  # "auto" was filled in
            "max_grad_leaf_norm": self.max_grad_leaf_norm,
            "max_grad_value": self.max_grad_value,
        }


def _raise_all(record: str, *complaints: list[str]) -> None:
    """Raise every complaint at once: whoever mistyped three numbers should read about three."""
    found = [f"{record}.{text}" for group in complaints for text in group]
    if found:
        raise ValueError("\n".join(found))


def _where(wrong: bool, text: str) -> list[str]:
    return [text] if wrong else []


def _unless(fits: Callable[[Any], bool], text: str, values: Mapping[str, Any]) -> list[str]:
    """A complaint about each of the values that is given and does not fit."""
    return [f"{name} is {value!r}{text}" for name, value in values.items() if value is not None and not fits(value)]


def _at_least(least: int, **values: int | None) -> list[str]:
    def fits(value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and value >= least

    return _unless(fits, f"; it must be a whole number, at least {least}.", values)


def _positive(**values: float | None) -> list[str]:
    return _unless(lambda x: _is_number(x) and 0 < x < math.inf, "; it must be a finite number above 0.", values)


def _not_negative(**values: float | None) -> list[str]:
    return _unless(lambda x: _is_number(x) and 0 <= x < math.inf, "; it must be a finite number, 0 or more.", values)


def _in_half_open_unit(**values: float | None) -> list[str]:
    return _unless(lambda x: _is_number(x) and 0 <= x < 1, "; it must be a number, at least 0 and below 1.", values)


def _not_zero_in_float32(**values: float | None) -> list[str]:
    text = f", which is 0 for float32, the type of all updates; it must be at least {TINIEST}."
    return _unless(lambda x: not (_is_number(x) and 0 < x < TINIEST), text, values)


def _is_number(value: object) -> bool:
    """Not a text with digits; a plain no is the 0 that means off."""
    return isinstance(value, Real) and value is not True


def _one_of(choices: Any, **values: str | bool) -> list[str]:
    known = get_args(choices)
    wrong = {name: value for name, value in values.items() if value not in known}
    return [f"{name} is {value!r}; choose one of {', '.join(map(str, known))}." for name, value in wrong.items()]


def _one_at_most(reason: str, **values: float | None) -> list[str]:
    given = [f"{name} is {value!r}" for name, value in values.items() if value is not None]
    return [f"{' and '.join(given)}; {reason}, so give one of them."] if len(given) > 1 else []
