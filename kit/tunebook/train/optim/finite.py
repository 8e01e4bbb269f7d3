"""Whether a step leaves all that is trained and remembered finite, and the way back where it does not."""

from typing import final

import mlx.core as mx
import mlx.nn as nn

from ...models.tensors import flat, number
from .buffers import Arrays
from .optimizer import Optimizer, update

PIECE_BYTES = 64_000_000  # of what is computed at once only to see that it is finite


@final
class Moment:
    """The trainable parameters of `module` and what `optimizer` holds as they are now, to go back to.

    Nothing is copied: an update makes new arrays. But as long as these are kept, it cannot reuse their memory.
    """

    def __init__(self, module: nn.Module, optimizer: Optimizer):
        self._module, self._optimizer = module, optimizer
        self._parameters, self._held = flat(module.trainable_parameters()), optimizer.held
        # A new optimizer's moments wait to be computed. In an evaluation that fails they would be lost with the update.
        mx.eval(self._parameters, self._held.arrays)

    @property
    def nbytes(self) -> int:
        held = [self._held.moments, self._held.remainders]
        return sum(array.nbytes for array in [*self._parameters.values(), *flat(held).values()])

    def put_back(self) -> None:
        """Have module and optimizer as they were."""
        self._module.load_weights(list(self._parameters.items()), strict=False)
        self._optimizer.held = self._held


def all_finite(optimizer: Optimizer) -> mx.array:
    """Whether nothing the last `update` made, of parameters or of what is remembered, is NaN or infinite.

    Not yet evaluated.
    """
    return mx.stack([flag for flag, _ in _are_finite(optimizer)]).all()


def would_be_finite(
    module: nn.Module, gradients: Arrays, optimizer: Optimizer, *, rate: float, weight_decay: float
) -> bool:
    """Whether all would be finite after an `update`, which is computed for it and thrown away, a piece at a time."""
    before = Moment(module, optimizer)
    update(module, gradients, optimizer, rate=rate, weight_decay=weight_decay)
    flags = _are_finite(optimizer)[::-1]
    before.put_back()  # so that nothing but the flags holds what is computed
    del before
    while flags:
        piece, held = [], 0
        while flags and held < PIECE_BYTES:
            flag, nbytes = flags.pop()
            piece.append(flag)
            held += nbytes
        if not number(mx.stack(piece).all()):
            return False
    return True


def _are_finite(optimizer: Optimizer) -> list[tuple[mx.array, int]]:
    """(whether an array is finite, its bytes) of each, a buffer of parameters beside what is remembered of it."""
    held = optimizer.held
    arrays = [
        array
        for key, values in held.values.items()
        for array in (values, *held.moments[key].values(), *([held.remainders[key]] if key in held.remainders else []))
    ]
    return [(optimizer.is_finite(array), array.nbytes) for array in arrays]
