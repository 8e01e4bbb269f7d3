"""The images of encoded rows in a folder: references and digests written row after row, read back when asked for.

No pixel is kept, and no image is opened. Where no row has an image, nothing is written.
"""

from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any, final

import numpy as np

from ..data.encoded import Encoded
from ..data.images import ImageReference, InMemory
from ..machine.sealed import SealedFolder

REFERENCES, DIGESTS = "references.utf8", "digests.bin"
DIGEST_BYTES = 16
Recalled = Callable[[str, bytes], ImageReference]  # a reference and a digest -> the image
INDEX = ("images_ends", "image_starts", "reference_starts")


@final
class ImageWriter:
    """Writes the images of rows to a folder until the block ends."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._references, self._digests = (folder / REFERENCES).open("wb"), (folder / DIGESTS).open("wb")
        self._images_ends, self._image_starts, self._reference_starts = array("q"), array("q", [0]), array("q", [0])

    def __enter__(self):
        return self

    def __exit__(self, *_: object):
        self._references.close()
        self._digests.close()
        if len(self._reference_starts) == 1:
            (self._folder / REFERENCES).unlink()
            (self._folder / DIGESTS).unlink()

    def write(self, row: Encoded) -> None:
        """Write the images of the next row. Raises InMemory for one that is no file."""
        for image in row.images:
            if image.reference is None:
                raise InMemory(f"row {row.number}: {image.name} is no file, so it cannot be referred to later.")
            reference = image.reference.encode("utf-8", "surrogateescape")  # as Python has names of files
            self._references.write(reference)
            self._digests.write(image.digest)
            self._reference_starts.append(self._reference_starts[-1] + len(reference))
        self._images_ends.append(row.images_end)
        self._image_starts.append(len(self._reference_starts) - 1)

    @property
    def index(self) -> dict[str, Any]:
        """What is to be kept beside the files, to `StoredImages`; nothing where no row has an image."""
        if len(self._reference_starts) == 1:
            return {}
        values = (self._images_ends, self._image_starts, self._reference_starts)
        return {name: np.array(value) for name, value in zip(INDEX, values, strict=True)}


@final
class StoredImages:
    """The images of rows, found again by `recalled`."""

    def __init__(self, sealed: SealedFolder, index: dict[str, np.ndarray], recalled: Recalled):
        self._recalled = recalled
        self._images_ends, self._image_starts, self._reference_starts = (index[name] for name in INDEX)
        self._references, self._digests = sealed.open(REFERENCES), sealed.open(DIGESTS)

    def of(self, row: int) -> tuple[ImageReference, ...]:
        """The images of the row at this index."""
        return tuple(self._image(image) for image in range(*self._image_starts[row : row + 2].tolist()))

    def end(self, row: int) -> int:
        """`Encoded.images_end` of the row at this index."""
        return int(self._images_ends[row])

    def _image(self, image: int) -> ImageReference:
        first, last = self._reference_starts[image : image + 2].tolist()
        reference = self._references.read(first, last).decode("utf-8", "surrogateescape")
        digest = self._digests.read(image * DIGEST_BYTES, (image + 1) * DIGEST_BYTES)
        return self._recalled(reference, digest)
