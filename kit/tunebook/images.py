"""Images by reference: a path, bytes or a PIL image goes in, a `Picture` that is cheap to keep comes out.

A picture is opened when a batch needs its pixels and closed again, so a set of rows holds neither decoded files nor
open ones. Nothing is fetched from a network unless `refer` is told that it may be.
"""

import hashlib
import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from .remote_images import base_name, fetched, is_address, place_of

TURNED = (5, 6, 7, 8)  # EXIF orientations in which width and height change places


class InMemory(ValueError):
    """An image that is no file, so that nothing but its pixels tells it from another."""


@dataclass(frozen=True)
class Picture:
    """One image of a row."""

    source: Path | bytes | Image.Image
    digest: bytes  # 16 bytes, the same for the same picture; of a file: its reference, its size, when it was written
    reference: str | None = None  # of a file: its path or address as the row has it; None: it is in memory

    @property
    def name(self) -> str:
        """What a message may call it: a file's own name, without its folders."""
        return "an image in memory" if self.reference is None else f"image {base_name(self.reference)!r}"


def refer(value: Any, *, folder: str | Path | None = None, remote: bool = False) -> Picture:
    """The picture a row speaks of: a path, bytes, a PIL image, or the dict of `bytes` and `path` that `datasets` has.

    A path is one below `folder` where that is given, and must not lead out of it. An http(s) address is fetched once
    where `remote` is True.
    Raises ValueError for anything else, for an address in the network, and for a file that is not there.
    """
    value = _value(value)
    if isinstance(value, str | Path):
        reference = str(value)
        if is_address(reference) and not remote:
            raise ValueError(f"its image {base_name(reference)!r} is an address; download it and give the file's path.")
        path = fetched(reference) if is_address(reference) else _path(reference, folder)
        if not os.path.isfile(path):  # unlike Path.is_file, it takes a name of any length
            raise ValueError(f"its image {base_name(reference)!r} is not there, or is no file.")
        return Picture(path, _digest(*_state(reference, path)), reference)
    if isinstance(value, bytes):
        return Picture(value, _digest(value))
    if isinstance(value, Image.Image):
        return Picture(value, _digest(value.tobytes(), value.size, value.mode))
    raise ValueError(f"an image is a {type(value).__name__}; give a path, bytes or a PIL image.")


def recall(reference: str, digest: bytes, *, folder: str | Path | None = None) -> Picture:
    """A file's picture as it was referred to before, found below `folder`; the file itself is not looked at."""
    return Picture(place_of(reference) if is_address(reference) else _path(reference, folder), digest, reference)


def state_of(value: Any, *, folder: str | Path | None = None, remote: bool = False) -> str:
    """What tells one state of an image file from another, without opening it; of one `refer` refuses, why.

    Raises InMemory for an image that is no file.
    """
    if not isinstance(_value(value), str | Path):
        raise InMemory("this image is no file.")
    try:
        return refer(value, folder=folder, remote=remote).digest.hex()
    except ValueError as error:
        return str(error)


def size_of(picture: Picture) -> tuple[int, int]:
    """(width, height) in pixels that `opened` will find; of a file only its head is read."""
    with _opened(picture) as image:
        is_turned = image.getexif().get(ExifTags.Base.Orientation) in TURNED
        return (image.height, image.width) if is_turned else (image.width, image.height)


def opened(picture: Picture) -> Image.Image:
    """The picture in memory, upright, in RGB. Raises ValueError for a file that was changed since it was referred to.

    A viewer turns a photograph as its EXIF data say, so the model sees it turned as well.
    """
    source, reference = picture.source, picture.reference
    if isinstance(source, Path) and _digest(*_state(reference or str(source), source)) != picture.digest:
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


def _value(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    given = [value[key] for key in ("bytes", "path") if value.get(key) is not None]
    if not given:
        raise ValueError("an image is a dict with neither 'bytes' nor 'path' in it.")
    return given[0]


def _path(reference: str, folder: str | Path | None) -> Path:
    """Where `reference` is, links followed. Raises ValueError where that is outside of `folder`."""
    if folder is None:
        return Path(reference)
    root = os.path.realpath(folder)
    path = Path(os.path.realpath(os.path.join(root, reference)))
    if not path.is_relative_to(root):
        raise ValueError(f"its image {base_name(reference)!r} lies outside of the folder of images.")
    return path


def _state(reference: str, path: Path) -> tuple[str, int, int]:
    """(reference, size in bytes, when written in ns); the time means nothing where the file was fetched."""
    if not os.path.isfile(path):
        return reference, 0, 0
    stat = path.stat()
    return reference, stat.st_size, 0 if is_address(reference) else stat.st_mtime_ns


def _digest(*values: Any) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for value in values:
        digest.update(value if isinstance(value, bytes) else repr(value).encode())
    return digest.digest()
