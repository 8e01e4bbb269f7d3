"""Images by reference: a path, bytes or a PIL image goes in, an `ImageReference` that is cheap to keep comes out.

An image is opened when a batch needs its pixels and closed again, so a set of rows holds neither decoded files nor
open ones. Nothing is fetched from a network unless `refer` is told that it may be, and where rows were loaded from
elsewhere no file is opened outside of the folders their `Reach` names.
"""

import base64
import binascii
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

from PIL import Image

from .decoders import BadImage, check_whole, decoded, opened_image, upright_size
from .reach import Reach
from .remote_images import base_name, fetched, is_address, place_of

IN_THE_ADDRESS = "data:"  # how an address begins that is the image itself (RFC 2397)


class InMemory(ValueError):
    """An image that is no file, so that nothing but its pixels tells it from another."""


@dataclass(frozen=True)
class ImageReference:
    """One image of a row: where it is and what tells it from others. Its pixels are `opened` when they are needed."""

    source: Path | bytes | Image.Image
    digest: bytes  # 16 bytes, the same for the same image; of a file: its reference, its size, when it was written
    reference: str | None = None  # of a file: its path or address as the row has it; None: it is in memory
    size: tuple[int, int] | None = field(default=None, compare=False)  # (width, height); None: not looked at yet
    has_more: bool = field(
        default=False, compare=False
    )  # frames or pages that are not read; known once it is looked at

    @property
    def name(self) -> str:
        """What a message may call it: a file's own name, without its folders."""
        return "an image in memory" if self.reference is None else f"image {base_name(self.reference)!r}"


def refer(
    value: Any, reach: Reach | None = None, *, folder: str | Path | None = None, remote: bool = False
) -> ImageReference:
    """The image a row speaks of: a path, bytes, a PIL image, or the dict of `bytes` and `path` that `datasets` has.

    `reach` says where a file may be; without it that is below `folder`, or anywhere. A data: address is its bytes; an
    http(s) address is fetched once where that is allowed.
    Raises ValueError for anything else, for an address in the network, and for a file that is not there.
    """
    reach = reach or Reach(folder=folder, remote=remote)
    value = _value(value)
    if isinstance(value, str) and value[: len(IN_THE_ADDRESS)].lower() == IN_THE_ADDRESS:
        value = _content(value)
    if isinstance(value, str | Path):
        reference = str(value)
        if is_address(reference) and not reach.remote:
            raise ValueError(f"its image {base_name(reference)!r} is an address; download it and give the file's path.")
        path = fetched(reference, reach.allows) if is_address(reference) else reach.path_of(reference)
        if not os.path.isfile(path):  # unlike Path.is_file, it takes a name of any length
            raise ValueError(f"its image {base_name(reference)!r} is not there, or is no file.")
        return ImageReference(path, _digest(*_state(reference, path)), reference)
    if isinstance(value, bytes | bytearray | memoryview):
        return ImageReference(bytes(value), _digest(bytes(value)))
    if isinstance(value, Image.Image):
        try:
            with opened_image(value) as image:  # it may have been opened and not loaded
                return ImageReference(image, _digest(image.tobytes(), image.size, image.mode))
        except BadImage as error:
            raise ValueError(f"an image in memory cannot be opened: it {error}.") from None
    raise ValueError(f"an image is a {type(value).__name__}; give a path, bytes or a PIL image.")


def recall(reference: str, digest: bytes, reach: Reach) -> ImageReference:
    """A file's image as it was referred to before; the file itself is not looked at."""
    path = place_of(reference) if is_address(reference) else reach.path_of(reference)
    return ImageReference(path, digest, reference)


def state_of(value: Any, reach: Reach) -> str:
    """What tells one state of an image file from another, without opening it; of one `refer` refuses, why.

    Raises InMemory for an image that is no file.
    """
    try:
        image = refer(value, reach)
    except ValueError as error:
        return str(error)
    if image.reference is None:
        raise InMemory("this image is no file.")
    return image.digest.hex()


def looked_at(image: ImageReference) -> ImageReference:
    """`image` with its size, and whether all of it is read.

    Raises ValueError for one that cannot be decoded to its end, and says why.
    """
    try:
        whole = check_whole(image.source)
        return replace(image, size=whole.size, has_more=whole.has_more)
    except BadImage as error:
        raise _unopened(image, error) from None


def size_of(image: ImageReference) -> tuple[int, int]:
    """(width, height) in pixels that `opened` will find. Raises ValueError for a file that cannot be opened."""
    try:
        return image.size or upright_size(image.source)
    except BadImage as error:
        raise _unopened(image, error) from None


def opened(image: ImageReference) -> Image.Image:
    """The image in memory, upright, in RGB. Raises ValueError for one that cannot be opened, or was changed since."""
    source, reference = image.source, image.reference
    if isinstance(source, Path) and _digest(*_state(reference or str(source), source)) != image.digest:
        raise ValueError(f"{image.name} was changed since its row was read; make the Trainer again.")
    try:
        return decoded(source)
    except BadImage as error:
        raise _unopened(image, error) from None


def _unopened(image: ImageReference, error: BadImage) -> ValueError:
    # Without the folders: a message may be shown to others.
    return ValueError(f"{image.name} cannot be opened: it {error}.")


def _value(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    given = [value[key] for key in ("bytes", "path") if value.get(key) is not None]
    if not given:
        raise ValueError("an image is a dict with neither 'bytes' nor 'path' in it.")
    return given[0]


def _content(address: str) -> bytes:
    """The bytes of a data: address (RFC 2397)."""
    head, comma, content = address.partition(",")
    try:
        if comma and head.lower().endswith(";base64"):
            return base64.b64decode(b"".join(unquote_to_bytes(content).split()), validate=True)
    except binascii.Error:
        comma = ""
    if not comma:
        raise ValueError("its image is a data: address that is not whole; write data:image/png;base64,... to its end.")
    return unquote_to_bytes(content)


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
