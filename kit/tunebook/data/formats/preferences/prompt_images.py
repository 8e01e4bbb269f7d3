"""The images of a row of preferences: those of its prompt, which all of its answers are written behind.

They are referred to before the sides are read, so that two sides can be compared, and taken out of the prompt once it
is known. An answer holds none.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...answers import Answers
from ...images import ImageReference
from ...sources import Row
from ..columns import BadRow, listed
from ..row_images import KINDS, Placing, column_of, reference_in, references, referred
from .sides import Compared, Side

PROMPT, SIDES = "prompt", ("prompt", "chosen", "rejected", "completion")


def image_references(row: Row) -> Iterator[Any]:
    """All that a row names as an image; some of it may not be used."""
    return references(row, SIDES)


def check_no_images(row: Row) -> None:
    """Raise BadRow for a row with images, where the model reads text alone."""
    if column_of(row):
        raise BadRow(
            "it has an image, and this model reads text alone; load a model that reads images, or drop the column."
        )


def with_references(row: Row, answers: Sequence[str], placing: Placing) -> Row:
    """`row` with the images in its turns as references, and as turns where it has strings and no place for its images.

    Raises BadRow for an image that cannot be referred to.
    """
    names = [name for name in (PROMPT, *answers) if row.get(name) is not None]
    are_strings = len(names) == 1 + len(answers) and all(isinstance(row[name], str) for name in names)
    if are_strings and column_of(row) and not placing.places_in(row[PROMPT]):
        return placing.as_turns(row, answers)
    try:
        return {**row, **{name: _referring(listed(row[name]), placing) for name in names}}
    except ValueError as error:
        raise BadRow(str(error)) from error


def taken_out(row: Row, compared: Compared, placing: Placing) -> tuple[Side, list[ImageReference]]:
    """(the prompt with bare places, the images to be seen there). Raises BadRow for an image in an answer."""
    for name, side in compared.answers.items():
        if placing.places_in(side):
            raise BadRow(
                f"its {name!r} holds {placing.placeholder}, and images are seen in the prompt alone; take it out, or "
                "put it into 'prompt'."
            )
    taken, images = placing.out_of({PROMPT: compared.prompt}, column_of(row), (PROMPT,))
    return taken[PROMPT], images


def put_back(answers: Answers, images: Sequence[ImageReference], placing: Placing) -> Answers:
    """`answers` with the images where their places are, in each text. Raises BadRow unless there is one for each."""
    wholes = tuple(placing.put_back(whole, images) for whole in answers.wholes)
    return replace(answers, prompt=placing.put_back(answers.prompt, images), wholes=wholes)


def _referring(value: Any, placing: Placing) -> Any:
    if isinstance(value, list):
        return [_referring(inner, placing) for inner in value]
    if not isinstance(value, Mapping):
        return value
    if value.get("type") not in KINDS:
        return {
            key: _referring(inner, placing) if key in ("content", "value") else inner for key, inner in value.items()
        }
    reference = reference_in(value)
    return {"type": "image"} if reference is None else {"type": "image", "image": referred(reference, placing.reach)}
