"""The kit made to take MLX's CPU build for Metal, in this process: for `pytest --as-gpu`, and what its tests start."""

import shutil
from collections.abc import Callable
from typing import Any

from tunebook.machine import runtime  # before anything imports MLX: it loads the fast BLAS

import mlx.core as mx  # isort: skip

from tunebook.train.passes import kept_choice, self_test

CHILDS_DTYPE = "TUNEBOOK_TESTS_DTYPE"  # in the environment of a process that a test starts: bfloat16, or anything else

Put = Callable[[Any, str, Any], None]  # (holder, name, value): `setattr`, or one that is undone
_plain_cross_entropy = mx.fast.cross_entropy


def take_for_metal(put: Put) -> None:
    """Answer "metal" where the kit asks what computes, and sum losses as Metal's kernel does.

    The forms of a pass are proven before a run and none is timed: what a busy CPU would choose is chance.
    """
    put(runtime, "backend", lambda: "metal")
    put(mx.fast, "cross_entropy", _cross_entropy)
    if shutil.which("g++") is None:  # which the CPU build compiles with, and Metal does not
        mx.disable_compile()
    put(self_test, "SECONDS", 0.0)
    put(kept_choice, "FOLDER", "forms of tests")


def hold_in_bfloat16(put: Put) -> None:
    """Hold weights in bfloat16, as most are on the disk."""
    put(runtime, "default_dtype", lambda _checkpoint: mx.bfloat16)


def hold_as_on_the_disk(put: Put) -> None:
    """Hold weights in their own type: tiny models of tests are in float32."""
    put(runtime, "default_dtype", lambda checkpoint: checkpoint)


def _cross_entropy(logits: mx.array, targets: mx.array, **options: Any) -> mx.array:
    """In float32 from logits of any type, as kernels of GPUs do; the CPU build (0.32) sums in the logits' own type."""
    return _plain_cross_entropy(logits.astype(mx.float32), targets, **options)
