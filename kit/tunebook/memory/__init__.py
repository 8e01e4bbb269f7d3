"""What a run will need of memory, part by part, before it begins.

A model and a configuration in, an `Estimate` out, with what to change where it is more than there is.

    >>> print(memory.estimate(model, TrainingConfig(per_device_train_batch_size=2)))

Doors: `footprint`, `forecast`.
"""

from ..machine.without_torch import torch_unseen

with torch_unseen():  # whoever imports from here has not imported the kit's own names before
    from .footprint import Estimate, readable
    from .forecast import HoldsLoaded, estimate, settled

__all__ = [
    "Estimate",
    "HoldsLoaded",
    "estimate",
    "readable",
    "settled",
]
