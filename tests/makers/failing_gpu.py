"""Evaluations of MLX that fail as a GPU's do, on a machine without one.

A command buffer fails after its arrays were handed out: they count as evaluated, and are read as whatever was in their
memory (mlx/transforms.cpp, eval_impl). Here the arrays are computed first, and then each that Python still holds, of
all that this very evaluation computed, gets other contents, whoever holds it.
"""

import gc
import hashlib
import io
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

import tunebook

WATCHDOG = (
    "[METAL] Command buffer execution failed: Impacting Interactivity "
    "(0000000e:kIOGPUCommandBufferCallbackErrorImpactingInteractivity)."
)
OUT_OF_MEMORY = (
    "[METAL] Command buffer execution failed: Insufficient Memory "
    "(00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)."
)
BROKEN = "[METAL] Command buffer execution failed: Internal Error (0000000e:kIOGPUCommandBufferCallbackErrorInternal)."

KIT = Path(tunebook.__file__).parent
TO_NUMPY = np.array  # as it is where nothing is watched
VIEWS = (  # primitives that show another array's memory (mlx/backend/common/common.cpp)
    *("AsStrided", "Broadcast", "BroadcastAxes", "Copy", "CustomTransforms", "Depends", "ExpandDims", "Flatten"),
    *("Reshape", "Slice", "Split", "Squeeze", "StopGradient", "Transpose", "Unflatten"),
)
Leaves = Literal["nothing computed", "everything computed", "NaN", "numbers"]  # what a failed evaluation leaves behind
Place = str  # the file of the kit and the function in it that evaluates, "train/step.py finish"


@dataclass
class Failing:
    """Which evaluation is to fail, how often in a row, and how."""

    place: Place
    nth: int = 0  # of those in this place
    times: int = 1
    said: str = BROKEN
    leaves: Leaves = "NaN"


@dataclass
class Evaluations:
    """What was evaluated, in order; and what failed of it."""

    failing: Failing | None = None
    places: list[Place] = field(default_factory=list)
    failed: int = 0

    def do(self, arrays: Sequence[mx.array], frame: FrameType, evaluate: Callable[[], Any]) -> Any:
        """Evaluate, or fail; what is evaluated already is only read, and not counted."""
        if not any(pending(array) for array in arrays):
            return evaluate()
        place = _place(frame)
        before = self.places.count(place)
        self.places.append(place)
        plan = self.failing
        if plan is None or place != plan.place or not plan.nth <= before < plan.nth + plan.times:
            return evaluate()
        self.failed += 1
        if plan.leaves == "everything computed":
            evaluate()
        elif plan.leaves != "nothing computed":
            _spoil(evaluate, float("nan") if plan.leaves == "NaN" else 3.0)
        raise RuntimeError(plan.said)


@contextmanager
def evaluations(failing: Failing | None = None) -> Iterator[Evaluations]:
    """Count what is evaluated until the block ends, and have it fail where it is to."""
    seen = Evaluations(failing)
    own = {(holder, name): getattr(holder, name) for holder, name in _EVALUATING}

    def watched(call: Callable[..., Any]) -> Callable[..., Any]:
        def evaluating(*args: Any, **options: Any) -> Any:
            arrays = [array for _, array in tree_flatten(list(args)) if isinstance(array, mx.array)]
            return seen.do(arrays, sys._getframe(1), lambda: call(*args, **options))

        return evaluating

    for (holder, name), call in own.items():
        setattr(holder, name, watched(call))
    try:
        yield seen
    finally:
        for (holder, name), call in own.items():
            setattr(holder, name, call)


_EVALUATING = (
    *((mx, "eval"), (mx, "async_eval"), (mx, "save_safetensors")),
    *((mx.array, "item"), (mx.array, "tolist"), (np, "array"), (np, "asarray"), (np, "ascontiguousarray")),
)


def digests(tree: Any) -> dict[str, str]:
    """What tells the contents of each array of a tree from others, bit for bit, by dotted name."""
    return {
        name: hashlib.sha256(
            TO_NUMPY(array.astype(mx.float32) if array.dtype == mx.bfloat16 else array).tobytes()
        ).hexdigest()
        for name, array in tree_flatten(tree)
    }


def _place(frame: FrameType | None) -> Place:
    """Which part of the kit waits for an evaluation; of the parts that others share, which of them calls."""
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(KIT) and path.name != "tensors.py":
            return f"{path.relative_to(KIT).as_posix()} {frame.f_code.co_name}"
        frame = frame.f_back
    return "elsewhere"


def pending(array: mx.array) -> int:
    """How many kernels are still to be run for it. A view is whole where what it shows is."""
    drawn = io.StringIO()
    mx.export_to_dot(drawn, array)
    return sum(name not in VIEWS for name in re.findall(r'label ="(\w+)', drawn.getvalue()))


def _spoil(evaluate: Callable[[], Any], value: float) -> None:
    """Evaluate, and give other contents to all that was computed by it and to all that waits for some of that."""
    waiting = [(array, count) for array in gc.get_objects() if type(array) is mx.array and (count := pending(array))]
    evaluate()
    for array, count in waiting:
        if pending(array) < count:
            of_its_kind = value if mx.issubdtype(array.dtype, mx.floating) else 1
            array[...] = mx.array(of_its_kind).astype(array.dtype)
