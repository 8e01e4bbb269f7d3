"""What the weights a run does not train are: every byte of them in, one short digest out.

They are digested as they are in memory, where a run computes with them: other weights of the same shapes, another
dtype, fewer bits or another group size each give another digest, and the same weights the same one wherever their
folder lies. A core takes 1 to 2 GB a second and all of them work at once: about a second for 16 GB on a Mac of eight.
"""

import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import mlx.core as mx
import numpy as np

from ..machine.runtime import cores

PIECE_BYTES = 64_000_000  # digested by one core; a large tensor is shared out
AT_ONCE = 8  # pieces for each core that wait; where a GPU has memory of its own, they are copies


def digest_of(arrays: Mapping[str, mx.array]) -> str:
    """Twelve hexadecimal digits for names, types, shapes and content."""
    whole = hashlib.sha256()
    pieces = _pieces(arrays)
    with ThreadPoolExecutor(cores()) as pool:  # hashlib lets the others work while it does
        while some := list(islice(pieces, AT_ONCE * cores())):
            for digest in pool.map(lambda piece: hashlib.sha256(piece).digest(), some):
                whole.update(digest)
    return whole.hexdigest()[:12]


def _pieces(arrays: Mapping[str, mx.array]) -> Iterator[bytes | np.ndarray]:
    """What each array is called and is like, and then its bytes, which are not copied where memory is shared."""
    for name, array in sorted(arrays.items()):
        yield f"{name} {array.dtype} {array.shape}".encode()
        content = np.asarray(array.reshape(-1).view(mx.uint8))
        for start in range(0, len(content), PIECE_BYTES):
            yield content[start : start + PIECE_BYTES]
