"""The curves of a run as one PNG: the loss large, the other quantities small below it.

A `Progress` comes in, the bytes of a picture go out. pyplot and its global state are never touched.
"""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, MaxNLocator
from PIL import Image

from tunebook.events import RunStarted

from .metric_charts import EXAM, MetricChart, rows_of_charts
from .progress import Progress

# The live view's colours, as they are read on white and on black: the picture has no ground of its own, so that it
# suits a light and a dark theme. The first three are of Okabe and Ito's colour-blind-safe palette
# (jfly.uni-koeln.de/color).
BLUE, VERMILION, GREEN = "#0072b2", "#d55e00", "#009e73"
PLUM, SLATE, OCHRE = "#9c4f8c", "#6b7c8c", "#8a6100"
INK, MUTED, GRID = "#6f7881", "#7f8891", "#80808040"
# Of the curves of a chart with several: colour and dash.
_STYLES = ((GREEN, "-"), (PLUM, (0, (4, 2))), (OCHRE, (0, (1, 1.5))), (SLATE, (0, (6, 2, 1, 2))))
BAND, HATCH = "#d0605020", "#e0a79f"  # where a step was not finite

WIDTH_INCHES = 7.6
_HEIGHT_INCHES, _ROW_INCHES = 5.6, 1.3  # of the charts of every run, and of each row of an objective's
_BEYOND = 1e100  # no loss, rate or speed; near the largest float the distance of two ticks overflows
PIXELS_PER_INCH = 100  # as shown; drawn at twice that


def height_inches(run: Progress) -> float:
    """How high the picture of `run` is: higher by what its objective reports beside the loss."""
    return _HEIGHT_INCHES + _ROW_INCHES * len(rows_of_charts(run.charts))


def picture(run: Progress) -> bytes:
    """A PNG of WIDTH_INCHES by `height_inches` at twice PIXELS_PER_INCH."""
    figure, rows = new_figure(height_inches(run)), rows_of_charts(run.charts)
    grid = figure.add_gridspec(3 + len(rows), 2, height_ratios=(2.3, *(1.15 for _ in rows), 1, 1))
    loss = figure.add_subplot(grid[0, :])
    small = []
    for row, charts in enumerate(rows, start=1):
        for column, chart in enumerate(charts):
            place = grid[row, column] if len(charts) == 2 else grid[row, :]
            small.append(figure.add_subplot(place, sharex=loss))
            _draw_metrics(small[-1], run, chart)
    last = range(len(rows) + 1, len(rows) + 3)
    small += (own := [figure.add_subplot(grid[row, column], sharex=loss) for row in last for column in (0, 1)])
    _draw_loss(loss, run)
    for axes, draw in zip(own, (_draw_grad_norm, _draw_rate, _draw_speed, _draw_memory), strict=True):
        draw(axes, run)
    for axes in (loss, *small):
        quiet(axes)
        axes.patch.set_visible(False)
        _draw_bands(axes, run)
        _say_if_empty(axes, run)
    for axes in own[2:]:
        axes.set_xlabel("step", color=MUTED, fontsize=7, loc="right", labelpad=0)
    for axes in small:
        axes.tick_params(labelsize=7)
        axes.yaxis.set_major_locator(MaxNLocator(4))
    loss.xaxis.set_major_locator(MaxNLocator(integer=True))
    return png(figure)


def new_figure(height: float) -> Figure:
    """An empty figure of WIDTH_INCHES by `height` inches."""
    figure = Figure(
        figsize=(WIDTH_INCHES, height),
        dpi=2 * PIXELS_PER_INCH,
        facecolor="none",
        layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.06),  # inches
    )
    FigureCanvasAgg(figure)
    return figure


def png(figure: Figure) -> bytes:
    """A PNG of 256 colours: a third of the bytes of one of all, which a notebook carries in its file for good."""
    drawn, kept = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png")
    with Image.open(drawn) as image:
        image.quantize(256, method=Image.Quantize.FASTOCTREE).save(kept, format="PNG", optimize=True)
    return kept.getvalue()


def quiet(axes: Axes) -> None:
    """Take away from a plot what is not data."""
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(GRID)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=MUTED, labelsize=8, length=0)


def _say_if_empty(axes: Axes, run: Progress) -> None:
    """In place of the axes of a chart without a value, which would go from 0 to 1 and mean nothing."""
    if any(np.isfinite(np.asarray(line.get_ydata(), dtype=float)).any() for line in axes.lines):
        return
    axes.yaxis.set_visible(False)
    if not run.steps:
        axes.xaxis.set_visible(False)
    words = "no finite value" if run.steps else "no step was done"
    axes.text(0.5, 0.5, words, transform=axes.transAxes, ha="center", va="center", color=MUTED, fontsize=8)


def title(axes: Axes, text: str, *, small: bool = True) -> None:
    axes.set_title(text, loc="left", fontsize=8 if small else 9.5, color=INK)


def smoothed(values: np.ndarray) -> np.ndarray:
    """At each step the mean of the last few: a twentieth of those taken by then, 3 at least and 100 at most.

    So it follows a loss that falls fast, and never lies outside what it is the mean of. A value that is not finite is
    left out, and is NaN in the result.  # (steps,) -> (steps,)
    """
    is_finite = np.isfinite(values)
    sums = np.concatenate([[0.0], np.where(is_finite, values, 0.0).astype(np.float64).cumsum()])
    counts = np.concatenate([[0], is_finite.cumsum()])
    taken = np.arange(1, len(values) + 1)
    first = taken - np.minimum(np.clip(-(-taken // 20), 3, 100), taken)
    means = (sums[taken] - sums[first]) / np.maximum(counts[taken] - counts[first], 1)
    return np.where(is_finite, means, np.nan)


def finite(values: np.ndarray) -> np.ndarray:
    """`values`, NaN where they are not finite or so large that no axis can be laid out for them."""
    return np.where(np.abs(values) < _BEYOND, values, np.nan)


def _draw_loss(axes: Axes, run: Progress) -> None:
    step, values = run.column("step"), finite(run.column("loss"))
    axes.plot(step, values, color=BLUE, alpha=0.55, linewidth=1, marker=_marker(run), label="each step")
    axes.plot(step, smoothed(values), color=BLUE, linewidth=1.8, label="smoothed")
    if run.evals:
        held_out = {"color": VERMILION, "markersize": 5, "markeredgewidth": 1.4}
        draw_scores(axes, [(e.step, e.loss) for e in run.evals], linewidth=1, label="held-out", **held_out)
        if run.best_eval is not None and abs(run.best_eval.loss) < _BEYOND:
            best = run.best_eval.step, run.best_eval.loss
            axes.plot(*best, linestyle="none", marker="D", label="best", **held_out)
    if run.checkpoints:
        axes.plot(
            [saved.step for saved in run.checkpoints],
            [0.012] * len(run.checkpoints),
            transform=axes.get_xaxis_transform(),  # x in steps, y as a share of the height
            linestyle="none",
            marker="^",
            markersize=4,
            color=MUTED,
            label="checkpoint",
        )
    unit = run.started.loss_unit if run.started else RunStarted.loss_unit
    title(axes, f"Loss  ({unit})", small=False)
    place = {"loc": "lower right", "bbox_to_anchor": (1, 1), "borderaxespad": 0.2, "frameon": False}
    axes.legend(fontsize=8, labelcolor=MUTED, ncols=5, **place)


def _draw_metrics(axes: Axes, run: Progress, chart: MetricChart) -> None:
    """What an objective reports: each curve thin as it came and bold smoothed, its held-out values as diamonds."""
    alone = len(chart.curves) == 1
    styles = [(BLUE, "-")] if alone else [_STYLES[place % len(_STYLES)] for place in range(len(chart.curves))]
    drawn = []
    for metric, label, (color, dash) in zip(chart.curves, chart.labels, styles, strict=True):
        step, values = run.curve(metric)
        smooth = smoothed(finite(values))
        axes.plot(step, finite(values), color=color, alpha=0.4, linewidth=0.7, marker=_marker(run))
        axes.plot(step, smooth, color=color, linestyle=dash, linewidth=1.5, label=None if alone else label)
        drawn.append((step, smooth))
    if chart.margin is not None:
        (step, upper), (other, lower) = drawn[:2]
        both, first, second = np.intersect1d(step, other, return_indices=True)
        axes.fill_between(both, upper[first], lower[second], color=GREEN, alpha=0.16, linewidth=0, label="margin")
    label: str | None = chart.points
    for metric, (color, _) in zip(chart.curves, styles, strict=True):
        if scores := run.held_out(metric):
            style = {"color": VERMILION if alone else color, "markersize": 3.5}
            draw_scores(axes, scores, linewidth=0.9, label=label, **style)
            label = None
            if metric == f"{EXAM}{run.yardstick.metric}" and run.best_scores:
                axes.plot(*run.best_scores[-1][1:], linestyle="none", marker="D", label="best", **style)
    if chart.limits is not None:
        air = 0.05 * (chart.limits[1] - chart.limits[0])
        axes.set_ylim(chart.limits[0] - air, chart.limits[1] + air)
    title(axes, f"{chart.title}  ({chart.unit})" if chart.unit else chart.title)
    if axes.get_legend_handles_labels()[1]:
        _small_legend(axes)


def draw_scores(axes: Axes, scores: Sequence[tuple[int, float]], **style: Any) -> None:
    """What was measured on held-out rows, as (step, value): diamonds joined by a dashed line."""
    where, height = np.array(scores, dtype=float).T
    marks = {"marker": "D", "markerfacecolor": "none", "markevery": -(-len(where) // 40)}  # more would be a bar
    axes.plot(where, finite(height), linestyle=(0, (4, 3)), **marks, **style)


def _draw_grad_norm(axes: Axes, run: Progress) -> None:
    values = finite(run.column("grad_norm"))
    axes.plot(run.column("step"), values, color=GREEN, linewidth=1, marker=_marker(run))
    text = "Gradient norm"
    if run.clip_norm is not None:
        text += f"  (clipped above {run.clip_norm:g})"
        if np.any(4 * values > run.clip_norm):  # a line far above the curve would flatten it
            axes.axhline(run.clip_norm, color=MUTED, linewidth=1, linestyle=(0, (1, 2)))
    title(axes, text)


def _draw_rate(axes: Axes, run: Progress) -> None:
    axes.plot(run.column("step"), finite(run.column("lr")), color=PLUM, linewidth=1.2, marker=_marker(run))
    for change in run.rates:
        axes.axvline(change.step + 0.5, color=MUTED, linewidth=1, linestyle=(0, (2, 3)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:.2e}".replace("e-0", "e−") if rate else "0"))
    title(axes, "Learning rate")


def _draw_speed(axes: Axes, run: Progress) -> None:
    step, every = run.column("step"), finite(run.column("all_tokens_sec"))
    axes.plot(step, finite(run.column("tokens_sec")), color=SLATE, linewidth=1, marker=_marker(run), label="trained")
    title(axes, "Tokens per second")
    if np.isfinite(every).any():
        axes.plot(
            step, every, color=SLATE, linewidth=1, linestyle=(0, (1, 1.5)), marker=_marker(run), label="with padding"
        )
        _small_legend(axes)


def _draw_memory(axes: Axes, run: Progress) -> None:
    step = run.column("step")
    lines = {"active_gb": ("in use", "-"), "cache_gb": ("for reuse", ":"), "peak_gb": ("peak", (0, (6, 4)))}
    for name, (label, dash) in lines.items():
        values = finite(run.column(name))
        if np.isfinite(values).any():
            axes.plot(step, values, color=OCHRE, linewidth=1.2, linestyle=dash, marker=_marker(run), label=label)
    limit = run.started.memory_limit_gb if run.started else None
    if limit is not None and run.steps and limit < 4 * np.nanmax(run.column("peak_gb"), initial=0):
        axes.axhline(limit, color=MUTED, linewidth=1, linestyle=(0, (1, 2)))
    title(axes, "Memory  (GB)" if limit is None else f"Memory  (GB of {limit:.1f})")
    if run.steps:
        _small_legend(axes)


def _small_legend(axes: Axes) -> None:
    """The names of a small chart's curves, in one line beside its title."""
    place = {"loc": "lower right", "bbox_to_anchor": (1, 1), "borderaxespad": 0.2, "frameon": False}
    tight = len(axes.get_legend_handles_labels()[1]) > 3
    room = (
        {"columnspacing": 0.7, "handlelength": 1.3, "handletextpad": 0.5}
        if tight
        else {"columnspacing": 1, "handlelength": 1.6}
    )
    axes.legend(fontsize=7, labelcolor=MUTED, ncols=9, **room, **place)


def _draw_bands(axes: Axes, run: Progress) -> None:
    """Hatch the steps that were not finite: a gap alone reads as a step that never was."""
    norms = np.isfinite(run.column("grad_norm"))
    good = np.isfinite(run.column("loss")) & (norms | ~norms.any())  # a trainer may report no norm at all
    for start, end in _stretches(run.column("step")[~good]):
        axes.axvspan(start - 0.5, end + 0.5, facecolor=BAND, edgecolor=HATCH, hatch="////", linewidth=0, zorder=0)


def _stretches(steps: np.ndarray) -> list[tuple[float, float]]:
    """First and last of each stretch of consecutive steps."""
    if not len(steps):
        return []
    breaks = np.flatnonzero(np.diff(steps) > 1)
    return list(zip(steps[[0, *(breaks + 1)]], steps[[*breaks, -1]], strict=True))


def _marker(run: Progress) -> str | None:
    """A line through fewer than three steps is hard to see, or not there at all."""
    return "o" if run.steps < 3 else None
