"""Images by reference: a path, bytes or a PIL image goes in, a `Picture` that is cheap to keep comes out.

A picture is opened when a batch needs its pixels and closed again, so a set of rows holds neither decoded files nor
open ones. Nothing is fetched from a network.
"""

import hashlib
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

TURNED = (5, 6, 7, 8)  # EXIF orientations in which width and height change places


@dataclass(frozen=True)
class Picture:
    """One image of a row."""

    source: Path | bytes | Image.Image
    digest: bytes  # 16 bytes, the same for the same picture; of a file: its path, its size and when it was written

    @property
    def name(self) -> str:
        """What a message may call it: a file's own name, without its folders."""
        return f"image {self.source.name!r}" if isinstance(self.source, Path) else "an image in memory"


def refer(value: Any) -> Picture:
    """The picture a row speaks of: a path, bytes, a PIL image, or the dict of `bytes` and `path` that `datasets` has.

    Raises ValueError for anything else, for an address in the network, and for a file that is not there.
    """
    if isinstance(value, Mapping):
        given = [value[key] for key in ("bytes", "path") if value.get(key) is not None]
        if not given:
            raise ValueError("an image is a dict with neither 'bytes' nor 'path' in it.")
        value = given[0]
    if isinstance(value, str) and "://" in value:
        raise ValueError(f"an image is an address ({value[:40]}); download it and give the file's path.")
    if isinstance(value, str | Path):
        path = Path(value)
        if not path.is_file():
            raise ValueError(f"its image {path.name!r} is not there, or is no file.")
        return Picture(path, _digest(*_state(path)))
    if isinstance(value, bytes):
        return Picture(value, _digest(value))
    if isinstance(value, Image.Image):
        return Picture(value, _digest(value.tobytes(), value.size, value.mode))
    raise ValueError(f"an image is a {type(value).__name__}; give a path, bytes or a PIL image.")


def size_of(picture: Picture) -> tuple[int, int]:
    """(width, height) in pixels that `opened` will find; of a file only its head is read."""
    with _opened(picture) as image:
        is_turned = image.getexif().get(ExifTags.Base.Orientation) in TURNED
        return (image.height, image.width) if is_turned else (image.width, image.height)


def opened(picture: Picture) -> Image.Image:
    """The picture in memory, upright, in RGB. Raises ValueError for a file that was changed since it was referred to.

    A viewer turns a photograph as its EXIF data say, so the model sees it turned as well.
    """
    if isinstance(picture.source, Path) and _digest(*_state(picture.source)) != picture.digest:
        raise ValueError(f"{picture.name} was changed since its row was read; make the Trainer again.")
    with _opened(picture) as image:
        upright = ImageOps.exif_transpose(image)
        return upright.convert("RGB")


@contextmanager
def _opened(picture: Picture) -> Iterator[Image.Image]:
    if isinstance(picture.source, Image.Image):
        yield picture.source
        return
    source = io.BytesIO(picture.source) if isinstance(picture.source, bytes) else picture.source
    try:
        with Image.open(source) as image:
            yield image
    except (UnidentifiedImageError, OSError) as error:
        # Without the folders: a message may be shown to others. An OSError names the whole path.
        raise ValueError(f"{picture.name} cannot be opened ({type(error).__name__}).") from None


def _state(path: Path) -> tuple[str, int, int]:
    if not path.is_file():
        return str(path), 0, 0
    stat = path.stat()
    return str(path), stat.st_size, stat.st_mtime_ns


def _digest(*values: Any) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for value in values:
        digest.update(value if isinstance(value, bytes) else repr(value).encode())
    return digest.digest()
