"""Whether a vision-language model, called as it is here, would be trained on what its rows say.

Five things are tried on the model itself, with small images of noise: that no token sees a later one, that a row in a
batch is the row alone, that the image is seen, that no image is remembered, and that the adapters are reached. A
model that fails one is refused; what is wrong with it would not show in its loss.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from PIL import Image as Pil

from ...data.encoded import Encoded
from ...data.examples import Example, Image, Text
from ...data.images import refer
from ...machine import runtime
from ...machine.gpu_errors import gpu_fault
from ..tensors import flat, number

if TYPE_CHECKING:
    from .vision import VisionFamily

SIZES = ((96, 64), (64, 96))  # of the images, in pixels
SAME = 1e-3  # how far apart, relative, states may be that are computed in the same shapes from the same
SEEN = 1e-4  # by how much, relative, the states behind an image must change with it

Check = Callable[["VisionFamily", nn.Module], str | None]


class NotTrainable(ValueError):
    """A model that was tried and found to train on something else than its rows."""


def check_family(family: "VisionFamily", module: nn.Module) -> None:
    """Raise NotTrainable with the first check that fails, and how."""
    was_training = module.training
    module.eval()
    try:
        for name, check in CHECKS.items():
            try:
                wrong = check(family, module)
            except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
                if gpu_fault(error) is not None:  # it says nothing of the model
                    raise
                wrong = f"it cannot be called so ({type(error).__name__}: {error})"
            if wrong is not None:
                raise NotTrainable(
                    f"This model cannot be tuned on images here. The check of {name} failed: {wrong}. "
                    f"{family.instead_of_images}"
                )
    finally:
        module.train(was_training)


def causality(family: "VisionFamily", module: nn.Module) -> str | None:
    """No state changes with a later token."""
    row = _row(family, 0, "the quick brown fox jumps over the lazy dog")
    tokens = row.tokens.copy()
    tokens[-1] = row.tokens[-2] if row.tokens[-1] != row.tokens[-2] else row.tokens[-3]
    plain, changed = (_states(family, module, [some])[0] for some in (row, replace(row, tokens=tokens)))
    return _too_far("a token changes the states before it", plain[:-1], changed[:-1])


def batches(family: "VisionFamily", module: nn.Module) -> str | None:
    """A row padded in a batch with others, with and without images, has the states it has alone."""
    rows = [_row(family, 0, "the lazy dog"), _row(family, None, "user"), _row(family, 1, "a tune for the learner")]
    together = _states(family, module, rows)
    for row, states in zip(rows, together, strict=True):
        alone = _states(family, module, [row])[0]
        # In other shapes sums are taken in another order; bfloat16 may stray by its root of the epsilon, 9%.
        tolerance = max(SAME, math.sqrt(runtime.product_rounding(together.dtype)))
        wrong = _too_far("in a batch the states of a row change", alone, states[: len(row.tokens)], tolerance)
        if wrong is not None:
            return wrong
    return None


def images(family: "VisionFamily", module: nn.Module) -> str | None:
    """The states behind an image change with it."""
    row = _row(family, 0, "the quick brown fox")
    negative = Pil.fromarray(255 - np.array(row.images[0].source))
    plain, other = (_states(family, module, [some])[0] for some in (row, replace(row, images=(refer(negative),))))
    behind = slice(row.images_end, None)
    change = _distance(plain[behind], other[behind])
    return None if change > SEEN else f"another image changes the states behind it by {change:.1e}"


def memory(family: "VisionFamily", module: nn.Module) -> str | None:
    """A text has the states it had before images were seen."""
    text = _row(family, None, "the quick brown fox jumps over the lazy dog")
    before = _states(family, module, [text])[0]
    _states(family, module, [_row(family, 0, "the quick brown fox jumps over")])
    after = _states(family, module, [text])[0]
    return _too_far("an image seen before changes the states of a text", before, after)


def gradients(family: "VisionFamily", module: nn.Module) -> str | None:
    """Every adapter gets a gradient, and no gradient is infinite or NaN."""
    if not flat(module.trainable_parameters()):
        return None
    rows = [_row(family, 0, "the lazy dog"), _row(family, 1, "a tune")]

    def energy(module: nn.Module) -> mx.array:
        batch = family.collate(rows, max(len(row.tokens) for row in rows))
        return family.head(module, family.hidden(module, batch)).astype(mx.float32).square().mean()

    _, found = nn.value_and_grad(module, energy)(module)
    sizes = {name: number(mx.abs(array.astype(mx.float32)).max()) for name, array in flat(found).items()}
    broken = [name for name, size in sizes.items() if not math.isfinite(size)]
    if broken:
        return f"the gradient of {broken[0]} is not finite, and of {len(broken) - 1} more"
    # A new adapter's A gets none yet, for its B is zero.
    missed = [name for name, size in sizes.items() if name.endswith("lora_b") and size == 0.0]
    if missed:
        return f"no gradient reaches {missed[0]} and {len(missed) - 1} more; leave them out of target_modules"
    return None


CHECKS: dict[str, Check] = {
    "causality": causality,
    "rows in a batch": batches,
    "images": images,
    "memory": memory,
    "gradients": gradients,
}


def _row(family: "VisionFamily", image: int | None, text: str) -> Encoded:
    """A row of a text, behind the image of that number where there is one."""
    parts = (Text(text),) if image is None else (Image(refer(_noise(image))), Text(text))
    [row] = family.encode([Example(parts=parts, rendered=True)])
    return replace(row, loss_mask=np.ones_like(row.loss_mask))


def _noise(image: int) -> Pil.Image:
    width, height = SIZES[image]
    pixels = np.random.default_rng(image).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Pil.fromarray(pixels)


def _states(family: "VisionFamily", module: nn.Module, rows: Sequence[Encoded]) -> mx.array:
    """(B, T, D) of a batch one token wider: `hidden` leaves the last one out."""
    return family.hidden(module, family.collate(rows, max(len(row.tokens) for row in rows) + 1))


def _too_far(what: str, one: mx.array, other: mx.array, tolerance: float = SAME) -> str | None:
    change = _distance(one, other)
    return None if change <= tolerance else f"{what} by {change:.1%}"


def _distance(one: mx.array, other: mx.array) -> float:
    """How far states (T, D) are apart, relative to the first."""
    one, other = one.astype(mx.float32), other.astype(mx.float32)
    return number(mx.linalg.norm(one - other) / mx.linalg.norm(one))
