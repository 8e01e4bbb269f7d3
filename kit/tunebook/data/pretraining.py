"""Multimodal continued pretraining: which documents of text and images are trained on, and what does not go with them.

A `MultimodalPretrain` stands where rows stand, as `train_dataset` or `eval_dataset`. It is checked and opened here; how
one row becomes an example is `data/formats/documents.py`.
"""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ..config import TrainOn
from .reach import Reach
from .sources import Source


@dataclass(frozen=True)
class MultimodalPretrain:
    """Documents: in each row a text, and in the text a placeholder for each image of the row; all of it is trained.

        >>> documents = MultimodalPretrain("documents.jsonl", image_base_dir="pictures", skip_bad_images=True)

    A row is {"text": ..., "images": [paths]}, or was tokenized elsewhere: {"_mm_text", "images", "input_ids",
    "attention_mask", "labels"}. `source` is anything `sources.read_rows` opens.

    `text_column` and `image_column` name the columns, `image_token` what stands for an image in these texts (None: the
    model's own placeholder). Paths of images are below `image_base_dir`, which they may not leave. The first `skip`
    rows are not used; `skip_bad_images` leaves out, and counts, rows whose images cannot be had, and without it they
    are refused; `allow_remote_images` fetches http(s) addresses, each once. `excess_length_strategy` "drop" or "raise"
    is for a document with images beyond max_seq_length. Raises ValueError with everything that is wrong with these.
    """

    source: Source
    _: KW_ONLY
    text_column: str = "text"
    image_column: str = "images"
    # Paths are below it and may not lead out of it; None: as they stand, of a loaded set below the folder it came from.
    image_base_dir: str | Path | None = None
    image_token: str | None = None  # what stands for an image in these texts; None: the model's own placeholder
    skip: int = 0  # rows at the beginning that are not used
    skip_bad_images: bool = False  # leave out, and count, rows whose images cannot be had or counted; False: refuse
    allow_remote_images: bool = False  # fetch http(s) addresses, each once
    excess_length_strategy: Literal["drop", "raise"] = "drop"  # for a document with images beyond max_seq_length

    def __post_init__(self):
        complaints = []
        if self.excess_length_strategy == "truncate":
            complaints.append(
                "excess_length_strategy is 'truncate', and a document that is cut may lose a part of an image whose "
                "pixels remain; choose 'drop' or 'raise'."
            )
        elif self.excess_length_strategy not in ("drop", "raise"):
            complaints.append(f"excess_length_strategy is {self.excess_length_strategy!r}; choose 'drop' or 'raise'.")
        if self.image_base_dir is not None and not Path(self.image_base_dir).is_dir():
            complaints.append(f"image_base_dir is {str(self.image_base_dir)!r}, which is no folder here.")
        if isinstance(self.skip, bool) or not isinstance(self.skip, int) or self.skip < 0:
            complaints.append(f"skip is {self.skip!r}; it must be a whole number, at least 0.")
        if complaints:
            raise ValueError("\n".join(f"MultimodalPretrain.{text}" for text in complaints))

    @property
    def as_plain(self) -> dict[str, Any]:
        """The settings that decide what a row becomes, as values for JSON.

        `image_base_dir` is none of them: the same images in another place are the same images.
        """
        names = ("text_column", "image_column", "image_token", "skip_bad_images", "allow_remote_images")
        return {name: vars(self)[name] for name in (*names, "excess_length_strategy")}


def reach_of_documents(given: MultimodalPretrain, source: Reach) -> Reach:
    """Which files documents may name: below their own folder of images, else those their `source` may."""
    if given.image_base_dir is not None:
        source = Reach(folder=given.image_base_dir)
    return replace(source, remote=given.allow_remote_images)


def check(
    train: Any,
    held_out: Any,
    *,
    model: str,
    placeholder: str | None,
    packing: bool,
    train_on: TrainOn,
    given: Sequence[str],
) -> None:
    """Raise ValueError with everything that does not go with documents; nothing is said where there are none.

    `placeholder` is what stands for an image in a text of `model`, None where it reads text alone; `given` are the
    names of arguments on chats that were given.

    The gates are axolotl's (its validation of `multimodal_pretrain`). Of those, some have no counterpart, as what they
    refuse cannot be said here: a `multimodal: true` shortcut, one of several routes for a source, `processor_type` and
    `remove_unused_columns` (a processor comes with the model, and columns that are not read do no harm), a second
    held-out set. Whether a run needs max_steps is told by its configuration.
    """
    joined = [each for each in (train, held_out) if isinstance(each, list | tuple)]
    complaints = []
    if any(isinstance(entry, MultimodalPretrain) for entries in joined for entry in entries):
        complaints.append("A list of MultimodalPretrain was given; join the rows of its sources, and give one.")
    documents = [each for each in (train, held_out) if isinstance(each, MultimodalPretrain)]
    if documents:
        complaints += _mixed(train, held_out)
        if placeholder is None:
            complaints.append(f"{model} reads text alone; load a model that reads images, or train on the texts.")
        if packing:
            complaints.append("TrainingConfig.packing is on, and documents with images are not packed; set it off.")
        if train_on != "assistant":
            complaints.append(f"TrainingConfig.train_on is {train_on!r}, and in documents every word is trained.")
        if given:
            complaints.append(f"{', '.join(given)} cannot be given: a document is raw text, without a chat template.")
    if complaints:
        raise ValueError("\n".join(complaints))


def _mixed(train: Any, held_out: Any) -> list[str]:
    if held_out is None:
        return []
    if not isinstance(held_out, MultimodalPretrain):
        return ["train_dataset is a MultimodalPretrain and eval_dataset is not; measure with documents as well."]
    if not isinstance(train, MultimodalPretrain):
        return ["eval_dataset is a MultimodalPretrain and train_dataset is not; train on documents as well."]
    if train.image_token != held_out.image_token:
        return [
            f"image_token is {train.image_token!r} in train_dataset and {held_out.image_token!r} in eval_dataset; one "
            "token stands for an image in both."
        ]
    return []
