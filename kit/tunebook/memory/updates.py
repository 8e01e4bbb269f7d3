"""What the optimizer takes in passing, beyond the gradients it begins with and what it holds from step to step.

Few parameters are kept as they were until the update is seen to be finite; an update of many is computed once
beforehand to see that (`train/step.py`). Either way most is taken beside the largest parameter.
"""

from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn

from ..config import TrainingConfig
from ..models.tensors import flat
from ..train.optim import Moment, Optimizer, make_optimizer, update, would_be_finite
from ..train.step import FREELY_KEPT_BYTES

UPDATED_AT_ONCE = 10  # buffers MLX (0.32) is in the middle of updating; it evaluates at most 20 arrays side by side
SHAPE = (512, 1024)  # of a parameter that has a buffer of its own, and takes a hundredth of a second
TRIES = 3


def update_bytes(config: TrainingConfig, module: nn.Module, optimizer: Optimizer, gradients: int) -> int:
    """Bytes at the peak of an update of all that is trained of `module`, beyond the `gradients` it is made of."""
    trained = flat(module.trainable_parameters())
    parts = sorted(optimizer.parts.values(), key=lambda part: -part.buffer.size)
    sizes = [part.buffer.size for part in parts]
    half = any(value.itemsize < 4 for value in trained.values())
    # A new value and its float32 form, of the buffers that are being updated; Lion's moments wait until the end.
    updating = (8 if half else 4) * sum(sizes[:UPDATED_AT_ONCE]) + (4 * sum(sizes) if config.optim == "lion" else 0)
    held, dtype = _held(trained, optimizer), trained[parts[0].buffer.names[0]].dtype
    if held <= FREELY_KEPT_BYTES:  # new ones come beside the old, and gradients go as they do
        return max(updating, round(held + sizes[0] * _beside_one(config, dtype, keeps=True)) - gradients)
    return max(updating, round(sizes[0] * _beside_one(config, dtype, keeps=False)))


def _beside_one(config: TrainingConfig, dtype: mx.Dtype, *, keeps: bool) -> float:
    """Bytes per element of a parameter, measured on one of `dtype`: in an update where what was is kept, beyond that;
    or where it is not, while the update is looked at."""
    config = replace(config, embedding_learning_rate=None, lora_plus_ratio=None)
    rates = {"rate": 1e-6, "weight_decay": config.weight_decay}
    module = nn.Linear(*SHAPE, bias=False)
    module.set_dtype(dtype)
    optimizer = make_optimizer(config, module)
    gradients = optimizer.gathered({"weight": mx.ones_like(module.weight)})
    mx.eval(module.parameters(), optimizer.state, gradients)
    held, peaks = _held(flat(module.parameters()), optimizer), []
    for _ in range(TRIES):
        mx.synchronize()
        mx.clear_cache()
        mx.reset_peak_memory()
        already = mx.get_active_memory()
        before = Moment(module, optimizer)
        if keeps:
            update(module, gradients, optimizer, **rates)
            mx.eval(module.parameters(), optimizer.held.arrays)
            peaks.append(mx.get_peak_memory() - already - held)
            before.put_back()
        else:
            del before
            would_be_finite(module, gradients, optimizer, **rates)
            peaks.append(mx.get_peak_memory() - already)
    return max(peaks) / module.weight.size


def _held(trained: dict[str, mx.array], optimizer: Optimizer) -> int:
    """Bytes of the parameters and of all that is remembered of them."""
    return sum(value.nbytes for value in [*trained.values(), *flat(optimizer.state).values()])
