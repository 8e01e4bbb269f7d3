"""Which rows are the same row: a row -> a digest of its content, whatever library holds its values.

Arrays count as the lists of their numbers, images as their pixels, files named by a path as that path. A value nobody
can read the content of makes its row unlike every other, so that none is taken for a copy by mistake.
"""

import datetime
import hashlib
import json
import os
import pickle
import uuid
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from PIL import Image

from .rows import Row


def content_of(row: Row | list[str]) -> bytes:
    """A digest that equal rows, or lists of the states of their images, share, in every process and at every call."""
    try:
        text = json.dumps(row, sort_keys=True, default=_plain)
    except (TypeError, ValueError, RecursionError):  # keys of several types, numbers of too many digits, too deep
        text = uuid.uuid4().hex
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


@runtime_checkable
class _Listed(Protocol):
    """What arrays of NumPy, MLX and torch, columns of pandas and Arrow's arrays have."""

    def tolist(self) -> Any: ...


def _plain(value: Any) -> Any:
    """A value JSON has no word for, as one it has."""
    if isinstance(value, np.generic | np.ndarray):  # np.generic: one number
        return value.tolist()
    if isinstance(value, Image.Image):
        return _image(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return ["bytes", hashlib.blake2b(value, digest_size=16).hexdigest()]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, set | frozenset):
        return ["set", *sorted(json.dumps(one, sort_keys=True, default=_plain) for one in value)]
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, _Listed):
        return value.tolist()
    try:
        return ["object", hashlib.blake2b(pickle.dumps(value), digest_size=16).hexdigest()]
    except (pickle.PicklingError, TypeError, AttributeError):  # what pickle raises of what it cannot take
        return ["unlike any other", uuid.uuid4().hex]


def _image(image: Image.Image) -> list[Any]:
    try:
        pixels = image.tobytes()
        palette = image.palette.tobytes() if image.palette is not None else b""
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # cut short, or of no kind PIL reads
        return ["unlike any other", uuid.uuid4().hex]
    digest = hashlib.blake2b(pixels + palette, digest_size=16).hexdigest()
    return ["picture", image.mode, *image.size, digest]
