"""The images of a row: taken out before it is read as text, and put into the example where their placeholders are.

A row names its images as parts of its messages or in a column `images` (or `image`); the first win, and the column
serves the placeholders that bring none. Placeholders are counted as tokens, never as strings, and there must be one for
each image: some processors would leave an image out, or a placeholder, without a word.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from mlx_lm.tokenizer_utils import TokenizerWrapper

from ..examples import Example, Image, Text, Tokens
from ..images import ImageReference, looked_at, refer
from ..reach import ANYWHERE, Reach
from ..sources import Row
from ..tokenizer_state import uncut
from .columns import BadRow, check_whole, is_missing, listed
from .recognition import FORMATS, Format
from .templates import ChatTemplate

MARKER = "<image>"  # what data sets write for an image, whatever the model's own placeholder is
TURNS = tuple(name for kind in FORMATS.values() for name in kind.turns)  # columns that may hold turns
# Tokens whose states are made of pixels, in released models; the placeholder is one of them or stands for many.
OF_PIXELS = (
    "<image>",
    "<|image|>",
    "<|image_pad|>",
    "<image_soft_token>",
    "[IMG]",
    "<IMG_CONTEXT>",
    "<video>",
    "<|video|>",
    "<|video_pad|>",
)
KINDS = ("image", "image_url", "input_image")  # what a part that is an image calls itself

Part = Mapping[str, Any]


@dataclass
class _Found:
    """What was met while going through a row: for each place of an image its reference, None where it has none."""

    places: list[Any] = field(default_factory=list)
    reads_markers: bool = False  # `MARKER` is a place; else it is a text like any other


@dataclass(frozen=True)
class Placing:
    """How images are told in the rows for one model."""

    tokenizer: TokenizerWrapper
    placeholder: str  # a token of its own
    template: ChatTemplate | None
    reach: Reach = ANYWHERE  # which files the rows may name

    def take(self, row: Row, format: Format) -> tuple[Row, list[ImageReference]]:
        """(the row as text alone, its images in the order of their placeholders). Raises BadRow."""
        column, read = column_of(row), {*format.turns, *format.texts}
        if column and isinstance(row.get("prompt"), str) and isinstance(row.get("completion"), str):
            row = self.as_turns(row, ("completion",))
        taken, images = self.out_of({name: row[name] for name in row if name in read}, column, format.turns)
        return {**row, **taken}, images

    def as_turns(self, row: Row, answers: Sequence[str]) -> Row:
        """A row of strings as one of turns, where the model has a template for them."""
        if self.template is None:
            return row
        said = {name: [_turn("assistant", row[name])] for name in answers}
        return {**row, "prompt": [_turn("user", row["prompt"])], **said}

    def out_of(
        self, columns: Mapping[str, Any], column: Sequence[Any], turns: Sequence[str]
    ) -> tuple[dict[str, Any], list[ImageReference]]:
        """(`columns` as text alone, the images in the order of their placeholders). Raises BadRow.

        Images come in parts of the `turns`, or in a `column` of their own for the places that bring none.
        """
        found = _Found(reads_markers=bool(column) and self.placeholder != MARKER)
        taken = {name: self._without(listed(value), found) for name, value in columns.items()}
        if column and not found.places:
            taken = self._before_first_question(taken, turns, column, found)
        bare = sum(place is None for place in found.places)  # an array is equal to None place by place
        if bare or (column and not found.places):
            if bare != len(column):
                raise BadRow(
                    f"it has {len(column)} images and {bare} places for them; put one {{'type': 'image'}} part, or one "
                    f"{self.placeholder}, where each is to be seen."
                )
            rest = iter(column)
            found.places = [next(rest) if place is None else place for place in found.places]
        try:
            # To its end: one that is cut short is a bad row now, not a failed batch later.
            return taken, [looked_at(referred(place, self.reach)) for place in found.places]
        except ValueError as error:
            raise BadRow(str(error)) from error

    def places_in(self, value: Any) -> int:
        """How many images are to be seen in a text or a list of turns."""
        found = _Found()
        self._without(value, found)
        return len(found.places)

    def put_back(self, example: Example, images: Sequence[ImageReference]) -> Example:
        """`example` with its placeholders replaced by `images`. Raises BadRow unless there is one for each."""
        if isinstance(example.parts[0], Tokens):
            if images or not {self._token, *self._of_pixels}.isdisjoint(example.parts[0].ids):
                raise BadRow("it came as token ids and speaks of images; give it as messages and images.")
            return example
        is_all_trained = all(part.supervised for part in example.parts)
        parts: list[Text | Image] = []
        rest = iter(images)
        count = 0
        for part in example.parts:
            assert isinstance(part, Text)
            self._refuse_typed(part.text)
            for text in self._split(part.text):
                if text is not None:
                    parts.append(Text(text, part.supervised))
                    continue
                if part.supervised and not is_all_trained:
                    raise BadRow(f"an answer holds {self.placeholder}, and no model writes images; take it out.")
                count += 1
                if (image := next(rest, None)) is not None:
                    parts.append(Image(image))
        if count != len(images):
            raise BadRow(f"the text the model reads has {count} times {self.placeholder} for its {len(images)} images.")
        return Example(parts=tuple(parts), rendered=example.rendered)

    @cached_property
    def _token(self) -> int:
        return self.tokenizer.convert_tokens_to_ids(self.placeholder)

    @cached_property
    def _of_pixels(self) -> dict[int, str]:
        """Those the tokenizer has, without the placeholder."""
        added = self.tokenizer.get_added_vocab()
        return {added[name]: name for name in OF_PIXELS if name in added and name != self.placeholder}

    def _refuse_typed(self, text: str) -> None:
        """Raise BadRow where `text` has a token that the pixels of another image would move to."""
        if not any(name in text for name in self._of_pixels.values()):
            return
        for token in uncut(self.tokenizer).encode(text, add_special_tokens=False).ids:
            if token in self._of_pixels:
                raise BadRow(
                    f"its text holds {self._of_pixels[token]}, which the model's processor alone writes, for the "
                    f"pixels of an image; take it out, or write {self.placeholder} and give the image."
                )

    def _split(self, text: str) -> Iterator[str | None]:
        """`text` in pieces, None for each placeholder; its characters may also stand in the name of a longer token."""
        if self.placeholder not in text:
            yield text
            return
        encoding = uncut(self.tokenizer).encode(text, add_special_tokens=False)
        cursor = 0
        for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            if token == self._token:
                yield from (piece for piece in (text[cursor:start],) if piece)
                yield None
                cursor = end
        yield from (piece for piece in (text[cursor:],) if piece)

    def _without(self, value: Any, found: _Found) -> Any:
        """A column's value with bare parts in place of its images; what they refer to is added to `found`."""
        if isinstance(value, str):
            check_whole(value)
            found.places += [None for piece in self._split(value) if piece is None]
            return value
        if not isinstance(value, list | tuple):
            return value
        return [self._without_in_turn(turn, found) for turn in value]

    def _without_in_turn(self, turn: Any, found: _Found) -> Any:
        if not isinstance(turn, Mapping):
            return turn
        name = "value" if turn.get("content") is None else "content"
        content = turn.get(name)
        if isinstance(content, str) and found.reads_markers and MARKER in content:
            content = _at_markers(content)
        if isinstance(content, str):
            self._without(content, found)
        if not isinstance(content, list | tuple):
            return turn
        return {**turn, name: self._shaped([self._bare(part, found) for part in content])}

    def _bare(self, part: Any, found: _Found) -> Any:
        if not isinstance(part, Mapping):
            return part
        if part.get("type") not in KINDS:
            if isinstance(part.get("text"), str):
                self._without(part["text"], found)
            return part
        found.places.append(reference_in(part))
        return {"type": "image"}

    def _shaped(self, parts: list[Any]) -> Any:
        """Parts as the chat template takes them: one that would leave an image out gets its placeholder in a text."""
        if self._template_shows_images or not any(_is_image(part) for part in parts):
            return parts
        return "".join(self.placeholder if _is_image(part) else part.get("text", "") for part in parts)

    def _before_first_question(
        self, taken: dict[str, Any], columns: Sequence[str], column: Sequence[Any], found: _Found
    ) -> dict[str, Any]:
        """The columns with the images before the first turn of a user, as TRL puts those a row gives no place."""
        for name in columns:
            turns = taken.get(name)
            for number, turn in enumerate(turns if isinstance(turns, list) else ()):
                key = "value" if isinstance(turn, Mapping) and turn.get("content") is None else "content"
                if not isinstance(turn, Mapping) or turn.get("role", turn.get("from")) not in ("user", "human"):
                    continue
                content = turn.get(key)
                text = [{"type": "text", "text": content}] if isinstance(content, str) else content
                if not isinstance(text, list | tuple):
                    raise BadRow(f"the content of turn {number} is a {type(content).__name__}, not a string.")
                found.places += [None] * len(column)
                parts = self._shaped([*({"type": "image"} for _ in column), *text])
                return {**taken, name: [*taken[name][:number], {**turn, key: parts}, *taken[name][number + 1 :]]}
        return taken

    @cached_property
    def _template_shows_images(self) -> bool:
        if self.template is None:
            return False
        parts = [{"type": "image"}, {"type": "text", "text": "a text"}]
        shown = self.template.renders([_turn("user", parts)])
        return shown is not None and any(piece is None for piece in self._split(shown))


def references(row: Row, columns: Sequence[str] = TURNS) -> Iterator[Any]:
    """All that a row names as an image, in a column or in the turns of others; some of it may not be used."""
    yield from column_of(row)
    for name in columns:
        turns = listed(row.get(name))
        for turn in turns if isinstance(turns, list) else ():
            content = (turn.get("content") or turn.get("value")) if isinstance(turn, Mapping) else None
            for part in content if isinstance(content, list) else ():
                if isinstance(part, Mapping) and part.get("type") in KINDS:
                    reference = reference_in(part)
                    yield from () if reference is None else (reference,)


def _turn(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def _is_image(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type") == "image"


def column_of(row: Row) -> list[Any]:
    """The references of the column `images` or `image`."""
    value = row.get("images") if row.get("images") is not None else row.get("image")
    if isinstance(value, np.ndarray) and value.dtype == object:  # pandas has lists so
        value = value.tolist()
    if is_missing(value):
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def reference_in(part: Part) -> Any:
    """What a part that is an image refers to; None when it only marks the place."""
    for name in ("image", "image_url", "url", "path", "bytes"):
        value = part.get(name)
        if isinstance(value, Mapping) and "url" in value:
            return value["url"]
        if value is not None:
            return value
    return None


def referred(value: Any, reach: Reach) -> ImageReference:
    """What a row names as an image, referred to unless it is already. Raises as `refer` does."""
    return value if isinstance(value, ImageReference) else refer(value, reach)


def _at_markers(text: str) -> list[Part]:
    """A text as parts, an image for each `MARKER` in it."""
    parts: list[Part] = []
    for number, piece in enumerate(text.split(MARKER)):
        parts += [{"type": "image"}] if number else []
        parts += [{"type": "text", "text": piece}] if piece else []
    return parts
