"""`SFTTrainer` and its like: trainers of TRL's names, each of them a `tunebook.Trainer`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ... import Trainer
from ...settings.taken import elsewhere
from .arguments import Arguments, translated
from .collators import Collated, collated
from .model import Model
from .names import DEFAULTS
from .reading import EncodedRows, FormattingFunc, reading_of
from .results import TrainerState, TrainOutput, output_of, state_of
from .tokenizer import Tokenizer, tokenizer_of


class NotebookTrainer(Trainer):
    """A `tunebook.Trainer` with what notebooks ask of a trainer of transformers. Those that are made are below."""

    model: Model
    args: Arguments
    _output: TrainOutput | None = None  # of the last run

    @property
    def state(self) -> TrainerState:
        """How far the last run came, with the losses of its steps in `log_history`."""
        return state_of(self._output)

    @property
    def train_dataset(self) -> EncodedRows:
        """The rows that are trained on, as TRL has them: `input_ids`, and `labels` that are -100 where none is."""
        return EncodedRows(self.train_rows)

    @property
    def eval_dataset(self) -> EncodedRows:
        """The rows that are measured with."""
        return EncodedRows(self.eval_rows)

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's."""
        return tokenizer_of(self.loaded)

    @property
    def processing_class(self) -> Tokenizer:
        """The model's."""
        return self.tokenizer

    def train(self, resume_from_checkpoint: bool | str | Path | None = None) -> TrainOutput:
        """`tunebook.Trainer.train`, with the numbers that notebooks print."""
        self._output = output_of(super().train(resume_from_checkpoint), self._rows_per_step)
        return self._output

    async def train_async(self, resume_from_checkpoint: bool | str | Path | None = None) -> TrainOutput:
        """`train`, while the page's buttons work."""
        self._output = output_of(await super().train_async(resume_from_checkpoint), self._rows_per_step)
        return self._output

    def save_model(self, output_dir: str) -> None:
        """`model.save_pretrained`."""
        self.model.save_pretrained(output_dir)

    @property
    def _rows_per_step(self) -> int:
        return self.config.per_device_train_batch_size * self.config.gradient_accumulation_steps


class SFTTrainer(NotebookTrainer):
    """Trains on texts, conversations, and answers to prompts.

        >>> args = SFTConfig(max_steps=2, per_device_train_batch_size=2, warmup_steps=0, report_to="none")
        >>> trainer = SFTTrainer(model=model, tokenizer=tokenizer, train_dataset=rows, args=args)
        >>> trainer_stats = trainer.train()

    `model` and `tokenizer`, or `processing_class`, are what `from_pretrained` gave, `args` what `SFTConfig` or
    `TrainingArguments` did; settings of theirs among `more` are taken too. Rows of `train_dataset` and `eval_dataset`
    are read as TRL reads them: by their text column, or as `messages`, all of which are trained, or as `prompt` and
    `completion`, of which the latter is; `train_on_responses_only` and assistant_only_loss leave out more.
    `formatting_func` makes a text of a row, or texts of columns; `data_collator` is UnslothVisionDataCollator's or one
    of transformers' that pad. Raises TypeError and ValueError for what cannot be followed, with what to write.
    """

    def __init__(
        self,
        model: Model,
        args: Arguments | None = None,
        data_collator: Any = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        *,
        tokenizer: Any = None,
        formatting_func: FormattingFunc | None = None,
        **more: Any,
    ):
        self.model = model
        said = collated(data_collator)
        self.args = settled("SFTConfig", args, more, said)
        _check_own(model, tokenizer, processing_class)
        read = reading_of(train_dataset, self.args, formatting_func or said.formatting_func)
        super().__init__(
            model,
            train_dataset=read.rows,
            eval_dataset=eval_dataset,
            args=replace(self.args.config, train_on="assistant" if said.markers else read.train_on),
            format=read.format,
            formatting_func=read.formatting_func,
            response_markers=said.markers,
        )


class PreferenceTrainer(NotebookTrainer):
    """Trains on answers that are compared; see `DPOTrainer`."""

    record: str

    def __init__(
        self,
        model: Model,
        ref_model: Any = None,
        args: Arguments | None = None,
        data_collator: Any = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        *,
        tokenizer: Any = None,
        **more: Any,
    ):
        self.model = model
        self.args = settled(self.record, args, more, collated(data_collator))
        _check_own(model, tokenizer, processing_class)
        if ref_model is not None:
            raise TypeError("ref_model is given; the reference is the model as it was before the run. Leave it out.")
        super().__init__(
            model,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            args=self.args.config,
            objective=self.args.objective,
        )


class DPOTrainer(PreferenceTrainer):
    """Trains on a `prompt` with a `chosen` and a `rejected` answer, measured against the model as it was.

        >>> args = DPOConfig(beta=0.1, max_steps=2, per_device_train_batch_size=2)
        >>> trainer = DPOTrainer(model=model, ref_model=None, args=args, train_dataset=pairs, tokenizer=tokenizer)

    `model` and `tokenizer`, or `processing_class`, are what `from_pretrained` gave, `args` what `DPOConfig` did;
    settings of it among `more`, such as beta, are taken too. `ref_model` is None: there is one model in memory.
    `train_dataset`, `eval_dataset` and `data_collator` are as for `SFTTrainer`. Raises as it does.
    """

    record = "DPOConfig"


class ORPOTrainer(PreferenceTrainer):
    """Trains on a `prompt` with a `chosen` and a `rejected` answer, with no reference.

        >>> args = ORPOConfig(beta=0.1, max_steps=2, per_device_train_batch_size=2)
        >>> trainer = ORPOTrainer(model=model, args=args, train_dataset=pairs, tokenizer=tokenizer)

    Arguments are as for `DPOTrainer`: `model`, `ref_model`, `args`, `data_collator`, `train_dataset`, `eval_dataset`,
    `processing_class`, `tokenizer` and `more`.
    """

    record = "ORPOConfig"


class KTOTrainer(PreferenceTrainer):
    """Trains on a `prompt` with one `completion` and its `label`, True or False.

        >>> args = KTOConfig(beta=0.1, max_steps=2, per_device_train_batch_size=2)
        >>> trainer = KTOTrainer(model=model, args=args, train_dataset=labelled, tokenizer=tokenizer)

    Arguments are as for `DPOTrainer`: `model`, `ref_model`, `args`, `data_collator`, `train_dataset`, `eval_dataset`,
    `processing_class`, `tokenizer` and `more`.
    """

    record = "KTOConfig"


def settled(record: str, args: Any, more: Mapping[str, Any], said: Collated) -> Arguments:
    """The settings of a run: those of `args` by their record, and those that stand beside it.

    Raises TypeError for `args` of another kit, and for arguments of a trainer that are not here.
    """
    if args is not None and not isinstance(args, Arguments):
        raise TypeError(
            f"args is a {type(args).__module__}.{type(args).__name__}; import {record} or TrainingArguments from "
            "tunebook.compat.unsloth. Or use tunebook.Trainer, which takes a tunebook.TrainingConfig."
        )
    given = {name: value for name, value in more.items() if not (value is None and _of_trainers(name))}
    if refused := [f"{name}: {_of_trainers(name)}" for name in given if _of_trainers(name)]:
        raise TypeError("\n".join(f"The trainer takes no {one}." for one in refused))
    if said.max_seq_length is not None:
        given.setdefault("max_seq_length", said.max_seq_length)
    if args is None:
        return translated(record, given)
    kept = {} if args.name == record else {"learning_rate": DEFAULTS[args.name]["learning_rate"]}
    return translated(record, {**kept, **args.given, **given})


def _of_trainers(name: str) -> str | None:
    """What is said of an argument of TRL's trainers that is no setting."""
    return elsewhere("Trainer", name, None) if name in _NOT_HERE else None


_NOT_HERE: Sequence[str] = (
    *("peft_config", "callbacks", "compute_metrics", "preprocess_logits_for_metrics", "optimizers"),
)


def _check_own(model: Any, *tokenizers: Any) -> None:
    """Raise for a model or a tokenizer that this kit did not load."""
    if not isinstance(model, Model):
        raise TypeError(
            f"model is a {type(model).__module__}.{type(model).__name__}; load it with "
            "tunebook.compat.unsloth.FastLanguageModel.from_pretrained."
        )
    for tokenizer in tokenizers:
        own = tokenizer.own if isinstance(tokenizer, Tokenizer) else tokenizer
        if own is not None and own is not model.loaded.tokenizer:
            raise ValueError("This tokenizer is not the model's own; pass the one from_pretrained returned beside it.")
