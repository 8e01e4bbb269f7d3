"""Images from the network, for who asks for them: an address goes in, a file in the cache folder comes out.

Each address is fetched once, within a limit of size and of time, and kept only when what came is an image. What an
image shows is not looked at here.
"""

import hashlib
import time
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib import request
from urllib.error import HTTPError
from urllib.parse import urlsplit

from PIL import Image, UnidentifiedImageError

from . import runtime
from .private import make_private_folder, new_private_file
from .sealed import Damaged, digest_of_file, is_own, read_bytes

FOLDER = "images"
MOST_BYTES = 50_000_000
SECONDS = 30  # for one image, all in all
CHUNK = 1 << 16  # bytes read at once


def is_address(reference: str) -> bool:
    """Whether this is an address of some kind rather than a path."""
    return "://" in reference


def base_name(reference: str) -> str:
    """The last piece of a path or an address: what a message may show of it."""
    path = urlsplit(reference).path if is_address(reference) else reference
    return PurePosixPath(path).name[:80]


def place_of(address: str) -> Path:
    """The file that `address` is kept in once it was fetched."""
    return runtime.cache_folder() / FOLDER / hashlib.sha256(address.encode()).hexdigest()[:32]


def fetched(address: str) -> Path:
    """The file of an http or https address, fetched unless it is there as it was fetched. Its owner alone can read it.

    Raises ValueError, naming the file and not its host, for any other address and for what is too large, too slow, not
    there or no image.
    """
    place, name = place_of(address), base_name(address)
    if _is_whole(place):
        return place
    if urlsplit(address).scheme.lower() not in ("http", "https"):
        raise ValueError(f"its image {name!r} is an address of neither http nor https; download it and give its path.")
    try:
        make_private_folder(place.parent)
        with new_private_file(place) as partial, _opener().open(address, timeout=SECONDS) as answer:
            with partial.open("wb") as file:
                _copy(answer, file, name)
            with Image.open(partial):
                digest = digest_of_file(partial)
        with new_private_file(_digest_file(place)) as partial:
            partial.write_text(digest)
        return place
    except UnidentifiedImageError:
        raise ValueError(f"what its image {name!r} has at its address is no image.") from None
    except HTTPError as error:
        with error:  # it is the answer, and holds its connection
            raise ValueError(f"its image {name!r} could not be fetched (HTTP status {error.code}).") from None
    except (OSError, HTTPException) as error:  # no host, no answer
        raise ValueError(f"its image {name!r} could not be fetched ({type(error).__name__}).") from None


def _digest_file(place: Path) -> Path:
    return place.with_suffix(".sha256")


def _is_whole(place: Path) -> bool:
    """Whether `place` is there, and what was fetched; version 0.1 kept no digest to tell by."""
    try:
        if not place.is_file() or not is_own(place):
            return False
        digest = _digest_file(place)
        return not digest.exists() or read_bytes(digest, most=64).decode("ascii", "replace") == digest_of_file(place)
    except Damaged:
        return False


def _copy(answer: BinaryIO, file: BinaryIO, name: str) -> None:
    deadline, size = time.monotonic() + SECONDS, 0
    while chunk := answer.read(CHUNK):
        size += len(chunk)
        if size > MOST_BYTES:
            raise ValueError(f"its image {name!r} is larger than {MOST_BYTES / 1e6:.0f} MB; download it and scale it.")
        if time.monotonic() > deadline:
            raise ValueError(f"its image {name!r} took more than {SECONDS} seconds; download it and give its path.")
        file.write(chunk)


def _opener() -> request.OpenerDirector:
    """Opens http and https alone: urllib's own would follow a redirection to ftp as well."""
    opener = request.OpenerDirector()
    for handler in (
        request.ProxyHandler,
        request.UnknownHandler,
        request.HTTPHandler,
        request.HTTPSHandler,
        request.HTTPDefaultErrorHandler,
        request.HTTPRedirectHandler,
        request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    return opener
