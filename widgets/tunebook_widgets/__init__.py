"""What people see in the notebook: a run while it goes on and after, and rows as the model reads them.

The dashboard reads `tunebook.events` and `tunebook.runs` and nothing else of the kit, so a recorded run can be drawn on
a machine that has no MLX; views that need a model are imported when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tunebook.machine.without_torch import torch_unseen

from .dashboard.compare import compare
from .dashboard.dashboard import Dashboard, replay

if TYPE_CHECKING:
    from .panels.chat import Chat as Chat
    from .panels.export_panel import ExportPanel as ExportPanel
    from .panels.fit import FitCheck as FitCheck
    from .scores.score_view import ScoreView as ScoreView
    from .tokens.token_view import TokenView as TokenView

__all__ = ["Chat", "Dashboard", "ExportPanel", "FitCheck", "ScoreView", "TokenView", "compare", "replay"]

_NEED_A_MODEL = {
    "Chat": ".panels.chat",
    "ExportPanel": ".panels.export_panel",
    "FitCheck": ".panels.fit",
    "ScoreView": ".scores.score_view",
    "TokenView": ".tokens.token_view",
}


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    if name not in _NEED_A_MODEL:
        raise AttributeError(f"module 'tunebook_widgets' has no attribute {name!r}; it offers {', '.join(__all__)}.")
    with torch_unseen():
        module = import_module(_NEED_A_MODEL[name], __name__)
    return vars(module)[name]
