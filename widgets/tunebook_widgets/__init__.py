"""What people see in the notebook: a run while it goes on and after, and rows as the model reads them.

The dashboard reads `tunebook.events` and `tunebook.runs` and nothing else of the kit, so a recorded run can be drawn on
a machine that has no MLX; views that need a model are imported when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .compare import compare
from .dashboard import Dashboard, replay

if TYPE_CHECKING:
    from tunebook_widgets.tokens import TokenView as TokenView

__all__ = ["Dashboard", "TokenView", "compare", "replay"]


def __getattr__(name: str) -> Any:
    if name != "TokenView":
        raise AttributeError(f"module 'tunebook_widgets' has no attribute {name!r}; it offers {', '.join(__all__)}.")
    return import_module(".tokens", __name__).TokenView
