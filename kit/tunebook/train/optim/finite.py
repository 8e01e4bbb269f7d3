"""Whether a step leaves all that is trained and remembered finite, and the way back where it does not."""

from typing import final

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_map

from ...models.tensors import flat, number
from .clipping import Gradients
from .optimizer import Optimizer, update

PIECE_BYTES = 64_000_000  # of what is computed at once only to see that it is finite


@final
class Moment:
    """The trainable parameters of `module` and the state of `optimizer` as they are now, to go back to.

    Nothing is copied: an update makes new arrays. But as long as these are kept, it cannot reuse their memory.
    """

    def __init__(self, module: nn.Module, optimizer: Optimizer):
        self._module, self._optimizer = module, optimizer
        self._parameters = flat(module.trainable_parameters())
        self._state = tree_map(lambda array: array, optimizer.state)  # the dicts are changed in place, the arrays never

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in [*self._parameters.values(), *flat(self._state).values()])

    def put_back(self) -> None:
        """Have module and optimizer as they were."""
        self._module.load_weights(list(self._parameters.items()), strict=False)
        self._optimizer.state = self._state


def all_finite(module: nn.Module, optimizer: Optimizer) -> mx.array:
    """Whether no trainable parameter and nothing the optimizer remembers is NaN or infinite. Not yet evaluated."""
    return mx.stack([flag for flag, _ in _are_finite(module, optimizer)]).all()


def would_be_finite(
    module: nn.Module, gradients: Gradients, optimizer: Optimizer, *, rate: float, weight_decay: float
) -> bool:
    """Whether all would be finite after an `update`, which is computed for it and thrown away, a piece at a time."""
    before = Moment(module, optimizer)
    update(module, gradients, optimizer, rate=rate, weight_decay=weight_decay)
    flags = _are_finite(module, optimizer)[::-1]
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


def _are_finite(module: nn.Module, optimizer: Optimizer) -> list[tuple[mx.array, int]]:
    """(whether an array is finite, its bytes) of each, a parameter beside what the optimizer remembers of it."""
    state = {name.partition(".")[2]: array for name, array in flat(optimizer.state).items()}
    arrays = {**flat(module.trainable_parameters()), **state}
    return [
        (mx.isfinite(array).all(), array.nbytes)
        for _, array in sorted(arrays.items())
        if mx.issubdtype(array.dtype, mx.floating)
    ]
