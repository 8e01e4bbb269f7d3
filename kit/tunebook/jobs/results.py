"""What came of a job: the weights its run left in the model, and how it ended; written by its process, read by others.

Written whole or not at all, and of one run: a job that goes on has its result replaced when it ends again.
"""

from dataclasses import asdict
from pathlib import Path

import mlx.core as mx

from ..machine.private import new_private_folder
from ..machine.sealed import Damaged, digest_of_file, sealed_json, unsealed
from ..models.tensors import save_tensors
from .layout import ENDED, RESULT, Ended

WEIGHTS = "weights.safetensors"


def write_result(folder: Path, ended: Ended, weights: dict[str, mx.array]) -> None:
    """Put a result in the place of the one before."""
    with new_private_folder(folder / RESULT) as partial:
        save_tensors(partial / WEIGHTS, weights)
        document = {**asdict(ended), "sha256": digest_of_file(partial / WEIGHTS)}
        (partial / ENDED).write_text(sealed_json(document))


def read_weights(folder: Path) -> dict[str, mx.array]:
    """The weights of a result. Raises Damaged where they are not those that were written."""
    document, _ = unsealed(folder / RESULT / ENDED)
    if digest_of_file(folder / RESULT / WEIGHTS) != document.get("sha256"):
        raise Damaged(f"{WEIGHTS} changed since it was written")
    arrays = mx.load(str(folder / RESULT / WEIGHTS))
    assert isinstance(arrays, dict)
    mx.eval(arrays)
    return arrays
