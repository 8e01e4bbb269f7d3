"""An empty figure to draw on, and axes in the colours of the page it is for."""

from io import BytesIO
from typing import final

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# On white, and on JupyterLab's dark background.
INK, PAPER = {False: "#222222", True: "#e6e6e6"}, {False: "#ffffff", True: "#111111"}
DOTS_PER_INCH = 110


@final
class Picture(Figure):
    """A figure that a notebook shows by itself, whether or not pyplot was imported, and keeps when it is saved."""

    def _repr_png_(self) -> bytes:
        written = BytesIO()
        self.savefig(written, format="png", dpi=DOTS_PER_INCH)
        return written.getvalue()


def blank(width: float, height: float, *, dark: bool) -> Picture:
    """A figure of so many inches with nothing on it."""
    figure = Picture(figsize=(width, height), layout="constrained", facecolor=PAPER[dark])
    FigureCanvasAgg(figure)
    return figure


def inked(axes: Axes, *, dark: bool, sides: tuple[str, ...]) -> None:
    """Give `axes` the colours of the page, and lines along these `sides` alone."""
    axes.set_facecolor(PAPER[dark])
    axes.tick_params(colors=INK[dark])
    for side, spine in axes.spines.items():
        spine.set_visible(side in sides)
        spine.set_color(INK[dark])
