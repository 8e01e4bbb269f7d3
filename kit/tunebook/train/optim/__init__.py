"""Learning rates, clipping and the optimizer: gradients in, updated parameters out."""

from .buffers import Arrays
from .clipping import Gradients, clip, global_norm
from .finite import Moment, all_finite, would_be_finite
from .optimizer import Optimizer, make_optimizer, update
from .rules import Group, decays
from .schedules import DECAY_SHARE, learning_rate, said_of_the_warmup

__all__ = [
    "DECAY_SHARE",
    "Arrays",
    "Gradients",
    "Group",
    "Moment",
    "Optimizer",
    "all_finite",
    "clip",
    "decays",
    "global_norm",
    "learning_rate",
    "make_optimizer",
    "said_of_the_warmup",
    "update",
    "would_be_finite",
]
