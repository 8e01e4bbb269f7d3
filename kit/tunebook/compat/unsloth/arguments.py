"""`SFTConfig` and its like: settings by TRL's names in, this kit's `TrainingConfig` and objective out.

A setting is this kit's under the same name, or is translated here, or sets nothing and is told of, or is refused with
what to write. Each default that is not given is TRL's; the longest row alone is the model's, as Unsloth has it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any

from ... import TrainingConfig
from ...objectives import DPO, KTO, ORPO, Objective
from ...settings.taken import elsewhere
from ..told import tell
from .names import DEFAULTS, LEFT_OUT, NOTHING, OUTPUT_DIR, SETS_NOTHING, TRANSLATED, USUAL

OBJECTIVES: Mapping[str, type[DPO] | type[ORPO] | type[KTO]] = {"DPOConfig": DPO, "ORPOConfig": ORPO, "KTOConfig": KTO}
OWN = frozenset(field.name for field in fields(TrainingConfig))  # pyright: ignore[reportArgumentType] - a dataclass
ORDERS = {"random": "shuffle", "sequential": "sequential", "group_by_length": "length_grouped"}

Given = dict[str, Any]  # what is still to be translated; each function below takes out what it knows


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What a record of TRL's was given, in this kit's terms.

    `name` is the record's, `given` what was written; `config` and `objective` are what is trained with. A row's text
    stands in `text_field`; `assistant_only` and `completion_only` are as TRL has them, None where nothing was said.
    """

    name: str
    given: Mapping[str, Any]
    config: TrainingConfig
    objective: Objective | None
    text_field: str = "text"
    assistant_only: bool = False
    completion_only: bool | None = None


def TrainingArguments(output_dir: str | None = None, **given: Any) -> Arguments:
    """Settings of a run by transformers' names, in `output_dir`; `given` may have this kit's names too.

    >>> TrainingArguments(max_steps=60, learning_rate=2e-4, warmup_steps=5).config.gradient_accumulation_steps
    1
    """
    return translated("TrainingArguments", _with_place(output_dir, given))


def SFTConfig(output_dir: str | None = None, **given: Any) -> Arguments:
    """Settings of a run on texts by TRL's names, in `output_dir`; `given` may have this kit's names too.

    >>> SFTConfig(max_steps=60, learning_rate=2e-4, max_length=512).config.max_seq_length
    512
    """
    return translated("SFTConfig", _with_place(output_dir, given))


def DPOConfig(output_dir: str | None = None, **given: Any) -> Arguments:
    """Settings of a run on pairs of answers, and of its loss, by TRL's names, in `output_dir`.

    >>> DPOConfig(beta=0.2, max_steps=60).objective.beta
    0.2

    `given` may have this kit's names too.
    """
    return translated("DPOConfig", _with_place(output_dir, given))


def ORPOConfig(output_dir: str | None = None, **given: Any) -> Arguments:
    """Settings of a run on pairs of answers without a reference, by TRL's names, in `output_dir`.

    >>> ORPOConfig(beta=0.2, max_steps=60).config.max_steps
    60

    `given` may have this kit's names too.
    """
    return translated("ORPOConfig", _with_place(output_dir, given))


def KTOConfig(output_dir: str | None = None, **given: Any) -> Arguments:
    """Settings of a run on answers that are good or bad, by TRL's names, in `output_dir`.

    >>> KTOConfig(desirable_weight=1.5, max_steps=60).config.dataset_order
    'sequential'

    `given` may have this kit's names too.
    """
    return translated("KTOConfig", _with_place(output_dir, given))


def translated(name: str, given: Mapping[str, Any]) -> Arguments:
    """The settings `given` to the record `name`. Raises TypeError and ValueError for what cannot be followed."""
    given = {key: value.value if isinstance(value, Enum) else value for key, value in given.items()}
    asked = {"output_dir": OUTPUT_DIR, **DEFAULTS[name], **given}
    _take_out_what_sets_nothing(asked, name)
    reading = {
        "text_field": asked.pop("dataset_text_field", None) or "text",
        "assistant_only": bool(asked.pop("assistant_only_loss", False)),
        "completion_only": asked.pop("completion_only_loss", None),
    }
    objective = _objective(name, asked)
    settings = {
        "hold_out": 0.0,
        **_length(asked, given),
        **_schedule(asked),
        **_optimizer(asked),
        **_evaluation(asked, given),
        **_checkpoints(asked),
        **_rows(asked),
    }
    config = TrainingConfig(**settings, **{key: value for key, value in asked.items() if key not in settings})
    return Arguments(name=name, given=given, config=config, objective=objective, **reading)


def _with_place(output_dir: str | None, given: Given) -> Given:
    return given if output_dir is None else {"output_dir": output_dir, **given}


def _take_out_what_sets_nothing(asked: Given, name: str) -> None:
    """What sets nothing here, and is told of; and what asks for nothing, and is not."""
    for key, value in [*asked.items()]:
        if key in OWN or key in TRANSLATED or (name in OBJECTIVES and key in _fields(OBJECTIVES[name])):
            continue
        said = SETS_NOTHING.get(key) or elsewhere("TrainingConfig", key, value)
        asks_for_nothing = value in NOTHING or (key in USUAL and USUAL[key] == value)
        if key in SETS_NOTHING:
            del asked[key]
            if not asks_for_nothing:
                tell(f"{key} sets nothing here: {said}.")
        elif asks_for_nothing and (said is not None or key in USUAL or key in LEFT_OUT):
            del asked[key]


def _objective(name: str, asked: Given) -> Objective | None:
    if name not in OBJECTIVES:
        return None
    kind = OBJECTIVES[name]
    return kind(**{key: asked.pop(key) for key in _fields(kind) if key in asked})


def _fields(kind: type[DPO] | type[ORPO] | type[KTO]) -> list[str]:
    """What an objective takes, or refuses with a reason of its own."""
    return [*(field.name for field in fields(kind)), *kind.left_out]


def _length(asked: Given, given: Mapping[str, Any]) -> Given:
    """How long the run is: steps win over epochs, as in transformers."""
    epochs, steps = asked.pop("num_train_epochs"), asked.pop("max_steps")
    if steps is None or steps <= 0:
        return {"num_train_epochs": epochs}
    if "num_train_epochs" in given:
        tell(f"max_steps={steps} is the length of the run, as in transformers; num_train_epochs={epochs} is not used.")
    return {"max_steps": steps}


def _schedule(asked: Given) -> Given:
    """The rate over the steps."""
    kind, more = asked.pop("lr_scheduler_type"), dict(asked.pop("lr_scheduler_kwargs", None) or {})
    steps, ratio = asked.pop("warmup_steps"), asked.pop("warmup_ratio", None)
    if steps is not None and 0 < steps < 1:  # as transformers 5 writes a share
        steps, ratio = 0, steps
    found: Given = {"warmup_ratio": ratio} if ratio and not steps else {"warmup_steps": steps or 0}
    if kind == "constant":
        if steps or ratio:
            tell("lr_scheduler_type='constant' has no warm-up, as in transformers; 'constant_with_warmup' has.")
        found = {"warmup_steps": 0}
    elif kind in ("cosine_with_min_lr", "cosine_warmup_with_min_lr"):
        kind = "cosine"
        share = more.pop("min_lr_rate", None)
        if share is None and "min_lr" in more:
            share = more.pop("min_lr") / asked["learning_rate"]
        if share is None:
            raise ValueError("cosine_with_min_lr needs its floor: lr_scheduler_kwargs={'min_lr_rate': 0.1}.")
        found["min_lr_rate"] = share
    if more:
        found["lr_scheduler_kwargs"] = more
    return {"lr_scheduler_type": kind, **found}


def _optimizer(asked: Given) -> Given:
    """AdamW and Lion under the names of their implementations for CUDA."""
    name = asked.pop("optim")
    kind = next((kind for kind in ("adamw", "lion") if str(name).removeprefix("paged_").startswith(kind)), None)
    if kind is None or name in ("adamw_anyprecision",):
        return {"optim": name}
    if "8bit" in name or "4bit" in name or "paged" in name:
        tell(f"optim={name!r} is {kind!r} here: what it remembers is kept whole, which is little where adapters train.")
    return {"optim": kind}


def _evaluation(asked: Given, given: Mapping[str, Any]) -> Given:
    """When the held-out loss is measured."""
    kinds = [asked.pop(name, None) for name in ("eval_strategy", "evaluation_strategy")]
    kind, steps = next((kind for kind in kinds if kind is not None), None), asked.pop("eval_steps", None)
    if kind == "epoch":
        raise ValueError(
            "eval_strategy is 'epoch'; the held-out loss is measured by steps here: eval_strategy='steps', "
            "eval_steps=50. It is always measured before the first step and after the last."
        )
    if kind in ("no", False):
        return {}
    if kind == "steps" and steps is None:
        steps = given.get("logging_steps")  # as transformers has it
        if steps is None:
            raise ValueError("eval_strategy is 'steps', and eval_steps say nothing; write eval_steps=50.")
    return {} if steps is None else {"eval_steps": steps}


def _checkpoints(asked: Given) -> Given:
    """When a checkpoint is written."""
    kind, steps = asked.pop("save_strategy", None), asked.pop("save_steps")
    if kind in ("epoch", "best"):
        tell(f"save_strategy={kind!r}: checkpoints are written every save_steps={steps} steps and every ten minutes.")
    return {"save_steps": None if kind == "no" else steps}


def _rows(asked: Given) -> Given:
    """How long rows are, and in which order."""
    found: Given = {}
    lengths = [asked.pop(name, None) for name in ("max_seq_length", "max_length")]
    if given := [length for length in lengths if length is not None]:
        if len({*given}) > 1:
            raise ValueError(f"max_seq_length is {given[0]} and max_length {given[1]}; they are the same, so give one.")
        found["max_seq_length"] = given[0]
    order = asked.pop("train_sampling_strategy", None)
    if asked.pop("group_by_length", False):
        order = "group_by_length"
    if order is not None and "dataset_order" not in asked:
        found["dataset_order"] = ORDERS.get(order, order)
    if asked.get("gradient_checkpointing") == "unsloth":
        found["gradient_checkpointing"] = True
    return found
