"""Documents of text and images, for continued pretraining: one row in, one example with an image at each placeholder.

No chat template has a part in it, and every word is trained. A row may have been tokenized elsewhere; then its ids are
held against the text, which is what is read, and its labels say which words are not trained.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlx_lm.tokenizer_utils import TokenizerWrapper
from tokenizers import Encoding

from ..examples import Example, Image, Text
from ..images import ImageReference, looked_at, refer
from ..pretraining import MultimodalPretrain, reach_of_documents
from ..reach import ANYWHERE, Reach
from ..sources import Row
from ..tokenizer_state import uncut
from .columns import BadRow, check_whole
from .plain import NOT_SUPERVISED, integers
from .unread import unread_frames

PREPARED = ("input_ids", "attention_mask", "labels")  # columns of a row that was tokenized elsewhere
PREPARED_TEXT, PREPARED_IMAGES = "_mm_text", "images"


class BadImages(BadRow):
    """A row whose images cannot be had, or are not as many as its placeholders."""


def document_reader(
    entry: MultimodalPretrain,
    tokenizer: TokenizerWrapper,
    placeholder: str,
    *,
    reach: Reach | None = None,
    looks_at_images: bool = True,
) -> Callable[[Row], Example]:
    """The function that reads one row of `entry`; it raises BadRow for one it cannot use, BadImages for its images.

    `placeholder` is the model's own, `reach` says which files may be opened; None: those below the entry's folder, or
    any. Without `looks_at_images` no image is opened, for rows that were read before.
    Raises ValueError for an `image_token` that is no special token of the tokenizer.
    """
    token = placeholder if entry.image_token is None else entry.image_token
    return _Reader(
        entry=entry,
        tokenizer=tokenizer,
        token=token,
        token_id=_id_of(token, tokenizer),
        model_token=placeholder,
        model_token_id=_id_of(placeholder, tokenizer),
        reach=reach or reach_of_documents(entry, ANYWHERE),
        looks_at_images=looks_at_images,
    ).read


def image_references(row: Row, entry: MultimodalPretrain) -> list[Any]:
    """What a row names as its images, whatever that is."""
    value = row.get(PREPARED_IMAGES if _is_prepared(row) else entry.image_column)
    return list(value) if isinstance(value, list | tuple) else []


@dataclass(frozen=True, kw_only=True)
class _Reader:
    entry: MultimodalPretrain
    tokenizer: TokenizerWrapper
    token: str  # stands for an image in these texts
    token_id: int
    model_token: str  # stands for one in the texts of the model
    model_token_id: int
    reach: Reach
    looks_at_images: bool

    def read(self, row: Row) -> Example:
        is_prepared = _is_prepared(row)
        text = _text(row, PREPARED_TEXT if is_prepared else self.entry.text_column)
        references = _references(row, PREPARED_IMAGES if is_prepared else self.entry.image_column)
        opens = not (self.tokenizer.bos_token and text.startswith(self.tokenizer.bos_token))
        encoding = uncut(self.tokenizer).encode(text, add_special_tokens=opens)  # whole: nothing is cut
        supervised, is_end_supervised = [True] * len(encoding.ids), True
        if is_prepared:
            supervised, is_end_supervised = _labelled(row, encoding.ids, self.tokenizer.eos_token_id)
        self._check_count(encoding.ids, len(references))
        images = [self._image(reference) for reference in references]
        parts = list(_parts(text, encoding, _by_start(encoding, supervised), self.token_id, images))
        if isinstance(parts[-1], Image) or parts[-1].supervised != is_end_supervised:
            parts.append(Text("", supervised=is_end_supervised))  # EOS is supervised as the last part is
        example = Example(parts=tuple(parts), rendered=False)
        return replace(example, unread=unread_frames(example))

    def _check_count(self, ids: Sequence[int], images: int) -> None:
        if self.token_id != self.model_token_id and self.model_token_id in ids:
            raise BadRow(
                f"its text holds {self.model_token}, which stands for an image in every text of this model, beside "
                f"image_token {self.token}; take it out."
            )
        if (count := ids.count(self.token_id)) != images:
            raise BadImages(
                f"its text has {count} occurrence(s) of {self.token} for {images} image(s); write one placeholder per "
                "image, or leave such rows out with skip_bad_images=True."
            )

    def _image(self, reference: str | Path) -> ImageReference:
        try:
            image = refer(reference, self.reach)
            # To its end: one that is cut short is a bad row now, not a failed batch later.
            return looked_at(image) if self.looks_at_images else image
        except ValueError as error:
            raise BadImages(str(error)) from error


def _id_of(token: str, tokenizer: TokenizerWrapper) -> int:
    if token not in tokenizer.get_added_vocab() and token not in tokenizer.all_special_tokens:
        raise ValueError(
            f"image_token {token!r} is not a registered special token of this tokenizer; a text would be cut into "
            "ordinary tokens there. Choose one that is, or leave it out for the model's own."
        )
    number = tokenizer.convert_tokens_to_ids(token)
    if number is None or number == tokenizer.unk_token_id:
        raise ValueError(
            f"image_token {token!r} did not resolve to an id of its own in this tokenizer; choose another."
        )
    return number


def _is_prepared(row: Row) -> bool:
    return all(row.get(name) is not None for name in PREPARED)


def _text(row: Row, name: str) -> str:
    value = row.get(name)
    if isinstance(value, bytes):
        raise BadRow(f"its column '{name}' is bytes, not a str; bytes from Parquet are text once they are decoded.")
    if not isinstance(value, str):
        raise BadRow(f"its column '{name}' is a {type(value).__name__}, not a str.")
    if not value:
        raise BadRow(f"its column '{name}' is empty.")
    check_whole(value)
    return value


def _references(row: Row, name: str) -> list[str | Path]:
    value = row.get(name)
    if value is None:
        return []
    if not isinstance(value, list | tuple):
        raise BadRow(f"its column '{name}' is a {type(value).__name__}; it must be a list of paths, or None.")
    for reference in value:
        if not isinstance(reference, str | Path):
            raise BadRow(f"its column '{name}' holds a {type(reference).__name__}; give each image as a path.")
    return list(value)


def _labelled(row: Row, expected: Sequence[int], eos: int | None) -> tuple[list[bool], bool]:
    """(whether each token of `expected` is supervised, whether the EOS behind them is), as a prepared row has it."""
    columns = {name: integers(row[name], name) for name in PREPARED}
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise BadRow(f"its columns differ in length: {', '.join(f'{name} {n}' for name, n in lengths.items())}.")
    is_token = columns["attention_mask"] != 0  # by the mask: the padding may be the EOS token as well
    ids, labels = columns["input_ids"][is_token].tolist(), columns["labels"][is_token]
    supervised = (labels != NOT_SUPERVISED).tolist()
    if any(trained and label != number for trained, label, number in zip(supervised, labels, ids, strict=True)):
        raise BadRow("its 'labels' hold another id than 'input_ids'; each must be the id there, or -100.")
    if not any(supervised):
        raise BadRow("every one of its labels is -100, so there is nothing to learn; drop it.")
    has_end = len(ids) == len(expected) + 1 and ids[-1] == eos
    lacks_end = len(ids) == len(expected) - 1 and expected[-1] == eos
    if (ids[:-1] if has_end else ids) != list(expected[:-1] if lacks_end else expected):
        raise BadRow(
            f"its 'input_ids' are not what this tokenizer makes of '{PREPARED_TEXT}', so it was prepared with another "
            "tokenizer; prepare it again, or give its text and images alone."
        )
    return [*supervised, *([True] if lacks_end else [])][: len(expected)], supervised[-1] if has_end else True


def _by_start(encoding: Encoding, supervised: Sequence[bool]) -> dict[int, bool]:
    """Whether the text from each offset on is supervised. Tokens of one character are so only together."""
    starts: dict[int, bool] = {}
    for (start, end), is_supervised in zip(encoding.offsets, supervised, strict=True):
        if end > start:  # else it stands for no text: a BOS
            starts[start] = starts.get(start, True) and is_supervised
    return starts


def _parts(
    text: str, encoding: Encoding, supervised: dict[int, bool], token_id: int, images: Sequence[ImageReference]
) -> Iterator[Text | Image]:
    """`text` cut where an image stands and where supervision changes."""
    rest, cursor, is_supervised = iter(images), 0, True
    for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
        changes = end > start and supervised[start] != is_supervised
        if token != token_id and not changes:
            continue
        if cursor < start:
            yield Text(text[cursor:start], is_supervised)
        cursor = start
        if token == token_id:
            yield Image(next(rest))
            cursor = end
        else:
            is_supervised = supervised[start]
    if cursor < len(text):
        yield Text(text[cursor:], is_supervised)
