"""A look at a model that leaves no trace: neither in the model nor in what a run draws afterwards."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeVar

import mlx.nn as nn

from ..models.base_model import without_adapters
from ..models.tensors import random_state_kept

T = TypeVar("T")
_END = object()


@contextmanager
def undisturbed(module: nn.Module, *, adapters: bool = True) -> Iterator[None]:
    """Within the block `module` is without dropout, and without its adapters where these are off.

    Its mode and MLX's random state are as they were afterwards. Raises ValueError as `without_adapters`.
    """
    was_training = module.training
    with ExitStack() as stack:
        stack.enter_context(random_state_kept())
        if not adapters:
            stack.enter_context(without_adapters(module))
        module.eval()
        try:
            yield
        finally:
            module.train(was_training)


def in_turns(module: nn.Module, work: Iterator[T], *, adapters: bool = True) -> Iterator[T]:
    """What `work` gives, each made within such a block: in between the model is another's to use."""
    while True:
        with undisturbed(module, adapters=adapters):
            item = next(work, _END)
        if item is _END:
            return
        yield item  # type: ignore[misc]
