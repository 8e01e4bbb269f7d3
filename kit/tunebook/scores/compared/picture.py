"""Differences with their intervals, as a picture: right of the middle is better, and what is grey may be chance."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...machine.pictures import INK, blank, inked
from ..statistics import LEVEL
from .difference import Difference, Verdict

# Told apart by people who do not see red and green, too.
COLOURS: dict[bool, dict[Verdict, str]] = {
    False: {"better": "#0b7a5e", "worse": "#b3401a", "undecided": "#6b6b6b"},
    True: {"better": "#45c8a0", "worse": "#ff8f66", "undecided": "#a8a8a8"},
}
WIDTH, HEIGHT_OF_A_MODEL, HEIGHT_OF_A_PANEL = 7.0, 0.32, 0.75  # inches


def picture(base: str, names: Sequence[str], differences: Sequence[Mapping[str, Difference]], *, dark: bool) -> Figure:
    """A panel for each metric, a line in it for each of the models `names`; right of the middle is better."""
    metrics = list(dict.fromkeys(metric for found in differences for metric in found))
    height = len(metrics) * (HEIGHT_OF_A_PANEL + HEIGHT_OF_A_MODEL * len(names))
    figure = blank(WIDTH, max(height, 1.5), dark=dark)
    panels = figure.subplots(max(len(metrics), 1), 1, squeeze=False)[:, 0]
    for panel, metric in zip(panels, metrics, strict=False):
        _panel(panel, metric, names, [found.get(metric) for found in differences], dark)
    if metrics:
        said = f"difference to {base}, with its {LEVEL:.0%} interval; grey may be chance"
        panels[-1].set_xlabel(said, color=INK[dark])
    return figure


def _panel(axes: Axes, metric: str, names: Sequence[str], found: Sequence[Difference | None], dark: bool) -> None:
    ink = INK[dark]
    axes.axvline(0, color=ink, linewidth=1)
    for place, difference in enumerate(found):
        if difference is None:
            continue
        colour = COLOURS[dark][difference.verdict]
        axes.plot([difference.interval.low, difference.interval.high], [place, place], color=colour, linewidth=2.5)
        axes.plot([difference.change], [place], "o", color=colour, markersize=7)
    axes.set_yticks(range(len(names)), labels=list(names), color=ink)
    axes.set_ylim(len(names) - 0.4, -0.6)
    inked(axes, dark=dark, sides=("bottom",))
    less_is_better = any(one is not None and not one.higher_is_better for one in found)
    if less_is_better:
        axes.invert_xaxis()
    axes.set_title(f"{metric}{' (less is better)' if less_is_better else ''}", loc="left", color=ink, fontsize="medium")
