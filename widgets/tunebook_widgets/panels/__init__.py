"""A panel for a task beside a run: talk to the model, see what fits into memory, take the model out of the notebook.

A model or a trainer goes in, a widget comes out. Each panel is a file here, with its script in `view/`.
"""

from pathlib import Path

# The palette is that of the tokens; what only panels have is beside this file.
STYLES = (Path(__file__).parents[1] / "tokens" / "tokens.css", Path(__file__).parent / "panels.css")
