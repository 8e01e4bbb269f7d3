"""Tunebook: fine-tune a language model in a notebook with MLX.

    from tunebook import FastModel, Trainer, TrainingConfig

This is the contents page. Light names are here at once; names that need MLX are imported when first used, after the
fast BLAS has been found for it, and without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .blas import load_fast_blas
from .config import LoraConfig, TrainingConfig
from .torchless import torch_unseen

if TYPE_CHECKING:
    from . import memory as memory
    from . import samples as samples
    from .checkup import doctor as doctor
    from .export.report import ExportTable as ExportTable
    from .export.verify import verify_export as verify_export
    from .fast_model import FastModel as FastModel
    from .pretraining import MultimodalPretrain as MultimodalPretrain
    from .runs import load as load_run
    from .sources import hold_out as hold_out
    from .sources import read_rows as read_rows
    from .trainer import Trainer as Trainer
    from .trainer import TrainResult as TrainResult
    from .trainer import train_on_responses_only as train_on_responses_only

load_fast_blas()

_ON_FIRST_USE = {
    "FastModel": "fast_model",
    "MultimodalPretrain": "pretraining",
    "Trainer": "trainer",
    "TrainResult": "trainer",
    "ExportTable": "export.report",
    "doctor": "checkup",
    "hold_out": "sources",
    "load_run": "runs",
    "memory": "memory",
    "read_rows": "sources",
    "samples": "samples",
    "train_on_responses_only": "trainer",
    "verify_export": "export.verify",
}

__all__ = [
    "ExportTable",
    "FastModel",
    "LoraConfig",
    "MultimodalPretrain",
    "TrainResult",
    "Trainer",
    "TrainingConfig",
    "doctor",
    "hold_out",
    "load_run",
    "memory",
    "read_rows",
    "samples",
    "train_on_responses_only",
    "verify_export",
]


def __getattr__(name: str) -> Any:
    if name not in _ON_FIRST_USE:
        raise AttributeError(f"module 'tunebook' has no attribute {name!r}; it offers {', '.join(__all__)}.")
    with torch_unseen():
        room = import_module(f".{_ON_FIRST_USE[name]}", __name__)
    if name in ("memory", "samples"):
        return room
    return room.load if name == "load_run" else getattr(room, name)
