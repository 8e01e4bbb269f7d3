"""Tunebook: fine-tune a language model in a notebook with MLX.

    from tunebook import FastModel, Trainer, TrainingConfig

This is the contents page. Light names are here at once; names that need MLX are imported when first used, after the
fast BLAS has been found for it, and without torch.

Each folder beside this file is a wing, and its `__init__.py` says what comes in, what goes out, and where to add: a
format of rows in `data/`, a kind of model in `models/`, a loss in `objectives/`, a way out in `export/`. What listens
to a run (`runs/`) needs no edit here.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .config import LoraConfig, TrainingConfig
from .machine.blas import load_fast_blas
from .machine.without_torch import torch_unseen

if TYPE_CHECKING:
    from . import jobs as jobs
    from . import memory as memory
    from . import samples as samples
    from . import scores as scores
    from .check_up import doctor as doctor
    from .data.pretraining import MultimodalPretrain as MultimodalPretrain
    from .data.sources import hold_out as hold_out
    from .data.sources import read_rows as read_rows
    from .export.readback.verify import verify_export as verify_export
    from .export.report import ExportTable as ExportTable
    from .fast_model import FastModel as FastModel
    from .responses import train_on_responses_only as train_on_responses_only
    from .runs.attached import attach as attach
    from .runs.folder import load as load_run
    from .runs.result import TrainResult as TrainResult
    from .trainer import Trainer as Trainer

load_fast_blas()

_ON_FIRST_USE = {
    "FastModel": "fast_model",
    "MultimodalPretrain": "data.pretraining",
    "Trainer": "trainer",
    "TrainResult": "runs.result",
    "ExportTable": "export.report",
    "attach": "runs.attached",
    "doctor": "check_up",
    "hold_out": "data.sources",
    "jobs": "jobs",
    "load_run": "runs",
    "memory": "memory",
    "read_rows": "data.sources",
    "samples": "samples",
    "scores": "scores",
    "train_on_responses_only": "responses",
    "verify_export": "export.readback.verify",
}

__all__ = [
    "ExportTable",
    "FastModel",
    "LoraConfig",
    "MultimodalPretrain",
    "TrainResult",
    "Trainer",
    "TrainingConfig",
    "attach",
    "doctor",
    "hold_out",
    "jobs",
    "load_run",
    "memory",
    "read_rows",
    "samples",
    "scores",
    "train_on_responses_only",
    "verify_export",
]


def __dir__() -> list[str]:
    return __all__  # what there is to write after `tunebook.`, and not what this file needs


def __getattr__(name: str) -> Any:
    if name not in _ON_FIRST_USE:
        raise AttributeError(f"module 'tunebook' has no attribute {name!r}; it offers {', '.join(__all__)}.")
    with torch_unseen():
        module = import_module(f".{_ON_FIRST_USE[name]}", __name__)
    if name in ("jobs", "memory", "samples", "scores"):
        return module
    return module.load if name == "load_run" else getattr(module, name)
