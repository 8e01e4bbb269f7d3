"""The same weights and rows here and in other programs, stage by stage: where does a fine-tune part from others?

    from tunebook import parity
    report = parity.bisect("HuggingFaceTB/SmolLM2-135M-Instruct", rows)

This is the contents page; each name is imported when it is first used, for most need torch (the extra `parity`). Only
files of this wing may import torch, and no other wing imports this one. A stage of the chain is a file in `probes/` and
an entry in `chain.py`; a difference to find is an entry in `faults.py`. `preferences/` has the stages of objectives
over answers, `bisect(model, pairs, objective=objectives.DPO())`, whose judge is TRL. `speed/` times the same steps here
and in mlx-lm.

Doors: `speed/report`.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .chain import CHAIN as CHAIN
    from .chain import LORA as LORA
    from .chain import PREFERENCE_CHAIN as PREFERENCE_CHAIN
    from .chain import TRAINING as TRAINING
    from .chain import bisect as bisect
    from .faults import FAULTS as FAULTS
    from .finding import Finding as Finding
    from .miniatures import miniature as miniature
    from .preferences.faults import PREFERENCE_FAULTS as PREFERENCE_FAULTS
    from .procedure import KIT as KIT
    from .procedure import Procedure as Procedure
    from .report import Report as Report
    from .seeds import Setting as Setting
    from .seeds import Sweep as Sweep
    from .seeds import sweep as sweep

_ON_FIRST_USE = {
    "CHAIN": "chain",
    "FAULTS": "faults",
    "Finding": "finding",
    "KIT": "procedure",
    "LORA": "chain",
    "PREFERENCE_CHAIN": "chain",
    "PREFERENCE_FAULTS": "preferences.faults",
    "Procedure": "procedure",
    "Report": "report",
    "Setting": "seeds",
    "Sweep": "seeds",
    "TRAINING": "chain",
    "bisect": "chain",
    "miniature": "miniatures",
    "sweep": "seeds",
}

__all__ = [
    "CHAIN",
    "FAULTS",
    "KIT",
    "LORA",
    "PREFERENCE_CHAIN",
    "PREFERENCE_FAULTS",
    "TRAINING",
    "Finding",
    "Procedure",
    "Report",
    "Setting",
    "Sweep",
    "bisect",
    "miniature",
    "sweep",
]


def __getattr__(name: str) -> Any:
    if name not in _ON_FIRST_USE:
        raise AttributeError(f"module 'tunebook.parity' has no attribute {name!r}; it offers {', '.join(__all__)}.")
    try:
        return getattr(import_module(f".{_ON_FIRST_USE[name]}", __name__), name)
    except (ImportError, NameError) as error:  # NameError: in transformers' own files, where they found no torch
        if find_spec("torch") is None or not _looked_in_vain():
            raise
        raise ImportError(
            "The parity lab needs torch's models of transformers, and in this process transformers was imported where "
            "it found no torch. Restart the kernel, and `import torch` before Tunebook."
        ) from error


def _looked_in_vain() -> bool:
    """Whether transformers is there without torch (`machine/without_torch.py`)."""
    from transformers.utils.import_utils import is_torch_available

    return not is_torch_available()
