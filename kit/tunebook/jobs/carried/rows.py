"""Encoded rows with all that they are made of: tokens, masks and, where they have images, the files of those."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from ...data.encoded import Encoded
from ...data.images import ImageReference
from ...tokens.stored_rows import read_rows, write_rows
from .prompts import content_of

IMAGES = "images"  # beside the rows: each image once, called by its digest


def write(folder: Path, rows: Sequence[Encoded]) -> None:
    """Write rows, not packed, into `folder`, and their images beside it. Raises ValueError for one that is gone."""
    folder.mkdir()
    write_rows(folder, _with_images(rows, folder.parent / IMAGES), dict)


def read(folder: Path) -> Sequence[Encoded]:
    """The rows that `write` was given; tokens and images are read when they are asked for. Raises Damaged."""
    images = folder.parent / IMAGES

    def recalled(reference: str, digest: bytes) -> ImageReference:
        # By content: the digest is of the file it was, with its path and its age.
        return ImageReference((images / reference).read_bytes(), digest)

    return read_rows(folder, recalled=recalled)[0]


def _with_images(rows: Sequence[Encoded], images: Path) -> Iterator[Encoded]:
    for row in rows:
        for image in row.images:
            file = images / image.digest.hex()
            if not file.exists():
                images.mkdir(exist_ok=True)
                file.write_bytes(content_of(image))
        yield replace(row, images=tuple(replace(image, reference=image.digest.hex()) for image in row.images))
