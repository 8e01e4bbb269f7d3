"""Collators as notebooks pass them: what they say of the rows is taken from them; batches are made by the kit."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..told import tell

# Those of transformers that pad and mask, and do nothing else; they are known by their names, and never imported.
PLAIN = ("DataCollatorForSeq2Seq", "DataCollatorForLanguageModeling", "DataCollatorWithPadding", "DefaultDataCollator")
PADDED_ANYHOW = "data_collator: batches are padded and masked already. Leave it out."
BY_THE_PROCESSOR = ("min", "max")  # of `resize`: as large as the model's own setting has it, or as they are


@dataclass(frozen=True)
class Collated:
    """What a collator says of how rows are read."""

    markers: tuple[str, str] | None = None  # (instruction_part, response_part)
    max_seq_length: int | None = None
    formatting_func: Callable[[Any], Any] | None = None


class UnslothVisionDataCollator:
    """How rows with images are read.

        >>> collator = UnslothVisionDataCollator(model, tokenizer)

    `model` and `processor` are what `from_pretrained` gave. With `train_on_responses_only` what stands behind each
    `response_part` is trained, up to the next `instruction_part`. `max_seq_length` is the longest row in tokens,
    `formatting_func` is called with each row first. Images are sized by the model's processor, whatever `resize` of
    "min" and "max" is given. Raises TypeError for `more` that would have no effect.
    """

    def __init__(
        self,
        model: Any,  # noqa: ARG002 - the trainer knows it
        processor: Any,  # noqa: ARG002 - as the model
        max_seq_length: int | None = None,
        formatting_func: Callable[[Any], Any] | None = None,
        resize: Any = "min",
        *,
        train_on_responses_only: bool = False,
        instruction_part: str | None = None,
        response_part: str | None = None,
        **more: Any,
    ):
        if resize not in BY_THE_PROCESSOR:
            raise TypeError(f"resize is {resize!r}; images are sized by the model's processor: size them in the rows.")
        if more := {name: value for name, value in more.items() if name not in _AS_ALWAYS}:
            raise TypeError(f"UnslothVisionDataCollator takes no {', '.join(more)} here; leave it out.")
        if train_on_responses_only and (instruction_part is None or response_part is None):
            raise ValueError("train_on_responses_only needs instruction_part and response_part; give both.")
        both = (instruction_part or "", response_part or "") if train_on_responses_only else None
        self.collated = Collated(both, max_seq_length, formatting_func)


class DataCollatorForSeq2Seq:
    """Says nothing of the rows: batches are padded and masked already, and a trainer says so once.

        >>> collator = DataCollatorForSeq2Seq(tokenizer=tokenizer)

    `tokenizer`, `model` and `more` are as transformers has them.
    """

    def __init__(self, tokenizer: Any = None, model: Any = None, **more: Any):
        del tokenizer, model, more


class DataCollatorForLanguageModeling:
    """Says nothing of the rows either, as long as the next token is what is learnt.

        >>> collator = DataCollatorForLanguageModeling(tokenizer=tokenizer, mlm=False)

    `tokenizer`, `mlm` and `more` are as transformers has them. Raises TypeError where tokens are to be masked.
    """

    def __init__(self, tokenizer: Any = None, mlm: bool = True, **more: Any):
        del tokenizer, more
        if mlm:
            raise TypeError(
                "mlm is True; models here learn the next token. Write mlm=False, or leave the collator out."
            )


_AS_ALWAYS = (
    "ignore_index",
    "force_match",
    "num_proc",
    "pad_to_multiple_of",
    "completion_only_loss",
    "snap_to_patch_size",
)


def collated(data_collator: Any) -> Collated:
    """What a `data_collator` says. Raises TypeError for one of somebody's own, which would make other batches."""
    if data_collator is None:
        return Collated()
    if isinstance(data_collator, UnslothVisionDataCollator):
        return data_collator.collated
    if type(data_collator).__name__ not in PLAIN:
        raise TypeError(
            f"data_collator is a {type(data_collator).__name__}, and batches are made by the kit; say what it does "
            "with formatting_func, or with train_on_responses_only(trainer, ...)."
        )
    tell(PADDED_ANYHOW)
    return Collated()
