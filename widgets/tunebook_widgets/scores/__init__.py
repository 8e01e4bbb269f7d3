"""Rows of an exam to look at: what a model answered, or two of them, what each metric says, and where it was surprised.

Marks go in at `score_view.ScoreView`. What is shown of a row is a record of plain values (`score_book.py`), drawn as a
static page and, where there is a kernel, as a panel; with a model there is the loss of each token (`token_losses.py`).
"""

from pathlib import Path

# The palette is that of the tokens, and panels have theirs; what only rows of an exam have is beside this file.
_FOLDER = Path(__file__).parent
STYLES = (
    _FOLDER.parent / "tokens" / "tokens.css",
    _FOLDER.parent / "panels" / "panels.css",
    _FOLDER / "scores.css",
)
