"""What a person may choose: `LoraConfig` for the adapters, `TrainingConfig` for the run.

Each default stands here once. Both records are frozen and keyword-only, and check themselves when they are made, so a
wrong number is a sentence before the model is touched rather than a NaN an hour later. What a field takes and what it
means stand in its type, and `settings/taken.py` goes by that. Standard library only.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, cast

from .settings.schedules import Schedule, said_of_kwargs
from .settings.taken import record
from .settings.values import Count, CountOrZero, Folder, NotNegative, Positive, Rate, Share, SomeNames

Optim = Literal["adamw", "adafactor", "lion", "sgd", "muon"]
Order = Literal["shuffle", "sequential", "length_sorted", "torch_randperm", "length_grouped"]
TrainOn = Literal["assistant", "last_assistant", "everything"]
Clipping = Literal["max_grad_norm", "max_grad_leaf_norm", "max_grad_value"]


@record
@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Which layers get adapters and how strong they are (Hu et al. 2021, arXiv 2106.09685).

    >>> LoraConfig(r=16, lora_alpha=32).scale
    2.0
    """

    r: Annotated[Count, "rank R of each adapter"] = 16
    lora_alpha: Annotated[Positive, "the update is scaled by lora_alpha / r"] = 16.0
    lora_dropout: Annotated[Share, "chance of dropping an adapter's input while training"] = 0.0
    use_rslora: Annotated[bool, "scale by lora_alpha / sqrt(r) instead (Kalajdzievski 2023, arXiv 2312.03732)"] = False
    target_modules: Annotated[
        SomeNames | None, "leaf names or full paths; None: every attention and MLP projection"
    ] = None
    use_dora: Annotated[bool, "learn the magnitude of each output apart (Liu et al. 2024, arXiv 2402.09353)"] = False
    finetune_last_n_layers: Annotated[Count | None, "adapt the last n layers; None: all"] = None
    finetune_attention_modules: Annotated[bool, "let the projections of attention be adapted"] = True
    finetune_mlp_modules: Annotated[bool, "let the projections of the MLPs be adapted"] = True
    finetune_vision_layers: Annotated[
        bool, "let be adapted, of a model that reads images, its tower and what joins it to the text"
    ] = False
    finetune_language_layers: Annotated[bool, "let the layers that read and write text be adapted"] = True
    modules_to_save: Annotated[
        SomeNames | None, "trained whole, without an adapter; leaf names or full paths; None: none"
    ] = None
    random_state: Annotated[int, "seed of the adapters' first values"] = 3407

    def __post_init__(self):
        _raise_all(
            "LoraConfig",
            _where(
                not (self.finetune_vision_layers or self.finetune_language_layers),
                "finetune_vision_layers and finetune_language_layers are both off; set one on.",
            ),
        )

    @property
    def scale(self) -> float:
        """The factor on B @ A, called `scale` by mlx-lm."""
        return self.lora_alpha / (math.sqrt(self.r) if self.use_rslora else self.r)


@record
@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """One training run. Give `num_train_epochs` or `max_steps`, not both; with neither, one epoch is trained.

        >>> TrainingConfig(max_steps=60, learning_rate=1e-4).clipping
        ('max_grad_norm', 1.0)

    `max_grad_norm` and `warmup_steps` give way to the fields that would contradict them unless they are given
    themselves. They are filled in when the record is made, so it shows what is used.
    """

    per_device_train_batch_size: Annotated[Count, "rows per micro-batch"] = 2
    gradient_accumulation_steps: Annotated[Count, "micro-batches per optimizer step, all processes together"] = 4
    num_train_epochs: Annotated[
        Positive | None, "times all rows are trained on; None: 1, unless max_steps is given"
    ] = None
    max_steps: Annotated[Count | None, "length of the run in optimizer steps; None: by num_train_epochs"] = None
    learning_rate: Annotated[Rate, "the highest rate of the schedule"] = 2e-4
    lr_scheduler_type: Annotated[
        Schedule, "after the warm-up: down to min_lr_rate, but for constant, which constant_with_warmup is too"
    ] = "linear"
    # What each schedule is stands in train/optim/schedules.py.
    lr_scheduler_kwargs: Annotated[
        Mapping[str, Any] | None,
        "num_cycles of cosine_with_restarts, power of polynomial, timescale of inverse_sqrt, num_decay_steps and "
        "decay_type of warmup_stable_decay; None: as usual",
    ] = None
    warmup_steps: Annotated[CountOrZero | None, "optimizer steps; None: 5, unless warmup_ratio is given"] = None
    warmup_ratio: Annotated[Share | None, "warm-up as a share of all steps, rounded up to a whole step"] = None
    min_lr_rate: Annotated[Share, "the rate the schedule ends at, as a share of learning_rate"] = 0.0
    embedding_learning_rate: Annotated[
        Rate | None, "for trained embed_tokens and lm_head weights; None: learning_rate"
    ] = None
    lora_plus_ratio: Annotated[
        Positive | None, "rate of the B matrices over that of the A (Hayou et al. 2024, arXiv 2402.12354); None: 1"
    ] = None
    optim: Annotated[Optim, "the optimizer: adamw, adafactor, lion, sgd or muon"] = "adamw"
    weight_decay: Annotated[NotNegative, "decoupled, per step times the rate; biases and norms are never decayed"] = (
        0.001
    )
    adam_beta1: Annotated[Share, "decay of the mean of gradients; AdamW alone"] = 0.9
    adam_beta2: Annotated[Share, "decay of the mean of their squares; AdamW alone"] = 0.999
    adam_epsilon: Annotated[Rate, "added to the root that is divided by; AdamW alone"] = 1e-8
    # At most one of these three clips the gradients; None and 0 both mean off.
    max_grad_norm: Annotated[
        NotNegative | Literal["auto"] | None,
        "clip the L2 norm of all gradients together; 'auto': 1.0 if no other is on",
    ] = "auto"
    max_grad_leaf_norm: Annotated[NotNegative | None, "clip the L2 norm of each tensor by itself; None: off"] = None
    max_grad_value: Annotated[NotNegative | None, "clip the absolute value of each element; None: off"] = None
    train_on: Annotated[
        TrainOn,
        "whose turns of a conversation are supervised: assistant, last_assistant or everything; raw text is whole",
    ] = "assistant"
    thinking: Annotated[
        bool | None, "write chats with the template's switch for thoughts on or off; None: on where the model thinks"
    ] = None
    hold_out: Annotated[Share, "share of the rows to measure with when no eval_dataset is given; 0: none"] = 0.05
    packing: Annotated[
        bool, "put short training rows together, each trained as if alone; together they count as one row"
    ] = False
    max_seq_length: Annotated[Count | None, "longest row in tokens; None: the length the model was loaded with"] = None
    eval_steps: Annotated[
        Count | None, "measure held-out loss every n optimizer steps; None: only at the start and the end"
    ] = None
    score_steps: Annotated[
        Count | None, "take the trainer's exam every n optimizer steps; None: only at the start and the end"
    ] = None
    per_device_eval_batch_size: Annotated[Count | None, "rows measured together; None: as in training"] = None
    # What each order is stands in tokens/batch_order.py.
    dataset_order: Annotated[
        Order, "of the rows in an epoch: shuffle, sequential, length_sorted, length_grouped or torch_randperm"
    ] = "shuffle"
    gradient_checkpointing: Annotated[
        bool | Literal["auto"] | None,
        "compute layers twice and keep less; 'auto': where a run would not fit else; None: as get_peft_model was told",
    ] = None
    compile: Annotated[
        bool | Literal["auto"],
        "compile the passes for the commonest shapes of the batches; 'auto': on a GPU, where it can be",
    ] = "auto"
    neftune_noise_alpha: Annotated[
        NotNegative | None, "noise on the embeddings while training; 5 is usual; None and 0: off"
    ] = None
    streaming: Annotated[
        bool, "read and encode rows when their step comes, from a source of any length; needs max_steps"
    ] = False
    seed: Annotated[CountOrZero, "of the order of the rows, and of dropout"] = 3407
    output_dir: Annotated[
        Folder | None, "each run makes a folder run-001, run-002, ... in it; None: nothing is written"
    ] = "runs"
    save_steps: Annotated[
        Count | None, "a checkpoint every n optimizer steps, and one at the end; None: not by steps"
    ] = 100
    save_minutes: Annotated[
        Positive | None, "and every n minutes, the first after two at most; None: not by the clock"
    ] = 10.0
    save_total_limit: Annotated[Count | None, "how many checkpoints are kept; None: all"] = 2
    load_best_model_at_end: Annotated[
        bool, "end with the weights of the lowest held-out loss, or of the best score; needs eval_steps, or score_steps"
    ] = False
    early_stopping_patience: Annotated[
        Count | None, "end after n evaluations, or exams, without a better loss or score; None: never"
    ] = None
    metric_for_best_model: Annotated[
        str | None, "a metric of the trainer's exam by which these two go, up or down as it is better; None: the loss"
    ] = None
    sample_prompts: Annotated[
        Sequence[str | Sequence[Mapping[str, Any]]],
        "texts, or lists of messages, answered while training; none: the openings of two held-out rows",
    ] = ()
    sample_steps: Annotated[Count | None, "answer them every n optimizer steps; None: only when asked to"] = None
    sample_max_tokens: Annotated[Count, "longest answer in tokens"] = 64

    def __post_init__(self):
        if self.max_grad_norm == "auto":
            object.__setattr__(self, "max_grad_norm", None if self.max_grad_leaf_norm or self.max_grad_value else 1.0)
        if self.warmup_steps is None and self.warmup_ratio is None:
            object.__setattr__(self, "warmup_steps", 5)
        _raise_all("TrainingConfig", self._wrong_together())

    def _wrong_together(self) -> list[str]:
        """What does not go together."""
        return [
            *self._against_streaming(),
            *said_of_kwargs(self.lr_scheduler_type, self.lr_scheduler_kwargs or {}),
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
        prompts = [prompt if isinstance(prompt, str) else list(prompt) for prompt in self.sample_prompts]
        kwargs = None if self.lr_scheduler_kwargs is None else dict(self.lr_scheduler_kwargs)
        return {**asdict(self), "sample_prompts": prompts, "lr_scheduler_kwargs": kwargs}

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


def _one_at_most(reason: str, **values: float | None) -> list[str]:
    given = [f"{name} is {value!r}" for name, value in values.items() if value is not None]
    return [f"{' and '.join(given)}; {reason}, so give one of them."] if len(given) > 1 else []
