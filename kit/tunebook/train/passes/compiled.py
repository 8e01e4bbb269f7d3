"""A forward and backward pass compiled by MLX: once for each of the commonest shapes of a run's batches, else anew.

Compiling fuses element-wise operations. What is compiled for a shape is kept and spares the next batch the building of
its graph, so which shapes are is settled before the first step, from the rows and their order: a resumed run compiles
the same. On the CPU build it needs a C++ compiler.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import Any, final

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ...config import TrainingConfig
from ...data.encoded import Batch, Encoded
from ...machine.gpu_errors import gpu_fault
from ...objectives.base import Objective, Summed
from ...tokens.batch_order import padded_width, steps_per_epoch, windows
from ...tokens.stored_rows import lengths_of

MOST_SHAPES = 12

Shape = tuple[int, int, int]  # rows, padded width, padded number of predictions asked for
Pass = Callable[..., tuple[Summed, Any]]  # (module, batch, positions, weights) -> ((sum, Sums), gradients)
Prepared = Callable[[nn.Module, Batch], Batch]  # a family's `prepared`


@final
class CompiledPass:
    """`plain`, a `nn.value_and_grad` of the loss, compiled for `shapes`; called and answering as it does.

    A batch of another shape is compiled by itself, and may then be looked at by the model while it runs. It is
    `prepared` before.
    """

    def __init__(self, module: nn.Module, plain: Pass, shapes: set[Shape], prepared: Prepared | None = None):
        self.shapes = shapes
        self.compiled: set[Shape] = set()  # those of them that have come
        self.by_themselves = 0  # batches of other shapes
        self._plain, self._prepared = plain, prepared
        # MLX traces what these hold, parameters and random state, as inputs and outputs of the compiled function.
        state = [module.state, mx.random.state]
        self._fast = partial(mx.compile, inputs=state, outputs=state)(partial(plain, module))

    def __call__(self, module: nn.Module, batch: Batch, positions: mx.array) -> tuple[Summed, Any]:
        shape = shape_of(batch, positions)
        size = shape[-1]
        if shape not in self.shapes:
            self.by_themselves += 1
            # With no inputs but what it holds, so that what follows from the batch is known while it is put together.
            batch = batch if self._prepared is None else self._prepared(module, batch)
            return mx.compile(partial(self._plain, module, batch, positions))()
        self.compiled.add(shape)
        weights = mx.array((np.arange(size) < positions.size).astype(np.float32))  # (N,); padding weighs nothing
        return self._fast(batch, mx.pad(positions, (0, size - positions.size)), weights)

    def account(self) -> str:
        """A sentence about what was compiled and what was not."""
        if not self.compiled:
            return f"The pass was compiled for each of {self.by_themselves} batches by itself."
        others = (
            f"; {self.by_themselves} batches had others and were compiled by themselves" if self.by_themselves else ""
        )
        return f"The pass was compiled for {len(self.compiled)} shapes of batches{others}."


def commonest_shapes(
    rows: Sequence[Encoded], config: TrainingConfig, max_seq_length: int, objective: Objective
) -> set[Shape]:
    """The shapes most batches of the first epoch have, `MOST_SHAPES` at most."""
    epoch = islice(windows(lengths_of(rows), config), steps_per_epoch(len(rows), config))
    batches = ([rows[number] for number in numbers] for window in epoch for numbers in window)
    shapes = Counter(
        (
            sum(len(row.sequences) for row in batch),
            padded_width(max(row.longest for row in batch), max_seq_length),
            padded_count(sum(objective.predictions(row) for row in batch)),
        )
        for batch in batches
    )
    return {shape for shape, _ in shapes.most_common(MOST_SHAPES)}


def shape_of(batch: Batch, positions: mx.array) -> Shape:
    """The shape a batch with predictions at these positions is compiled for."""
    rows, width = batch["tokens"].shape
    return rows, width, padded_count(positions.size)


def padded_count(count: int) -> int:
    """The next of 64, 96, 128, 192, 256, 384, ...: two sizes an octave, so that few are compiled."""
    size = 64
    while size < count:
        size = size * 3 // 2 if size & (size - 1) == 0 else size * 4 // 3
    return size


def why_not_here() -> str | None:
    """Why MLX cannot compile on this machine; None when it can. A GPU that fails says nothing of that: it is raised."""
    try:
        mx.eval(mx.compile(lambda x: mx.exp(x) + 1.0)(mx.ones(3)))
    except RuntimeError as error:  # the CPU build without a C++ compiler
        if gpu_fault(error) is not None:
            raise
        return str(error)
    return None
