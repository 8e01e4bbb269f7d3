"""`compare`: recorded runs side by side, as one picture of their losses and a table of the settings that differ.

Run folders or logs come in, outputs that need no kernel go out: they are in the saved notebook as they were shown.
"""

import html
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.font_manager import findfont, get_font
from matplotlib.ticker import MaxNLocator

from tunebook.events import RunStarted
from tunebook.machine.inert import one_line

from .freeze import Bundle, picture_bundle
from .labels import labels, plain
from .metric_charts import MOST_CHARTS, metric_charts
from .picture import INK, MUTED, draw_scores, finite, new_figure, png, quiet, smoothed, title
from .progress import Progress
from .recorded import Recorded, log_of, recorded_run
from .wording import duration, loss

# Of Okabe and Ito's colour-blind-safe palette; a dash of its own besides tells each run from its neighbours.
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
_DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))
_HEIGHT_INCHES, _ROW_INCHES = 4.6, 1.2  # of the picture, and of each metric of an objective in it
_LEFT = 'style="text-align: left"'
_NAMED = "named in the legend"
_NAME_CHARACTERS = 60  # of a run, in the picture; the table has it whole
_OF_THE_PLACE = {"output_dir"}  # settings that differ and explain nothing


def compare(runs: list[Recorded], *, names: list[str] | None = None) -> "Comparison":
    """Lay `runs`, named as in `Dashboard`, over one another; `names` are what they are called, else
    their folder, and where two folders bear one name the settings that tell them apart.

        >>> both = compare(["runs/run-001", "runs/run-002"], names=["first", "second"])

    Raises ValueError for fewer than two runs or another number of names, FileNotFoundError where there is no log.
    """
    if len(runs) < 2:
        raise ValueError(f"There {'is one run' if runs else 'are no runs'} to compare; pass at least two.")
    if names is not None and len(names) != len(runs):
        raise ValueError(f"There are {len(names)} names for {len(runs)} runs; give each one.")
    read = [recorded_run(run) for run in runs]
    if names is None:
        names = labels([_folder(run) for run in runs], [_facts(run, of_the_place=True) for run in read])
    return Comparison(tuple(map(one_line, names)), tuple(read))


@dataclass(frozen=True, eq=False)
class Comparison:
    """Runs and what they are called. As the last expression of a cell it shows itself."""

    names: tuple[str, ...]
    runs: tuple[Progress, ...]

    @property
    def rows(self) -> list[tuple[str, list[str]]]:
        """(what, its value in each run): how each run went, then every setting that is not the same in all."""
        went = {
            "Steps": [f"{run.last.step if run.last else 0:,} of {run.total_steps:,}" for run in self.runs],
            "Last loss, smoothed": [_last_smoothed(run) for run in self.runs],
            "Best held-out loss": [_best(run) for run in self.runs],
            **{f"Last {metric}": [_last_metric(run, metric) for run in self.runs] for metric in _metrics(self)},
            "Time": [duration(run.ended.elapsed) if run.ended else "–" for run in self.runs],
        }
        facts = [_facts(run) for run in self.runs]
        settings = {one_line(name): [plain(each.get(name)) for each in facts] for each in facts for name in each}
        differ = {name: values for name, values in settings.items() if len(set(values)) > 1}
        return [*went.items(), *differ.items()]

    def _repr_mimebundle_(self, **_: Any) -> Bundle:
        """The table; the picture is an output of its own, because a front end shows one type of each."""
        heads = "".join(f"<th {_LEFT}>{html.escape(name)}</th>" for name in ("", *self.names))
        lines = "".join(
            f"<tr><th {_LEFT}>{html.escape(what)}</th>"
            + "".join(f"<td {_LEFT}>{html.escape(value)}</td>" for value in values)
            + "</tr>"
            for what, values in self.rows
        )
        return {
            "text/html": f"<table><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table>",
            "text/plain": repr(self),
        }

    def _ipython_display_(self) -> None:
        height = _HEIGHT_INCHES + _ROW_INCHES * len(_leading(self))
        picture, metadata = picture_bundle(_picture(self), height, f"Losses of {', '.join(self.names)}")
        display(picture, raw=True, metadata=metadata)
        display(self._repr_mimebundle_(), raw=True)

    def __repr__(self) -> str:
        table = [("", list(self.names)), *self.rows]
        widths = [max(len(column) for column in columns) for columns in zip(*([w, *v] for w, v in table), strict=True)]
        lines = ([what, *values] for what, values in table)
        return "\n".join("  ".join(f"{c:<{w}}" for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def _picture(comparison: Comparison) -> bytes:
    leading = _leading(comparison)
    figure = new_figure(_HEIGHT_INCHES + _ROW_INCHES * len(leading))
    heights = (2.2, *(0.85 for _ in leading), 1)
    upper, *between, lower = figure.subplots(2 + len(leading), 1, sharex=True, height_ratios=heights)
    for place, run in enumerate(comparison.runs):
        color = _COLORS[place % len(_COLORS)]
        dash = _DASHES[place % len(_DASHES)]
        _draw(upper, lower, run, color, dash)
        for axes, metric in zip(between, leading, strict=True):
            _draw_metric(axes, run, metric, color, dash)
    for axes, metric in zip(between, leading, strict=True):
        title(axes, f"{metric}, smoothed, and held-out")
    title(upper, f"Loss, smoothed, and held-out  ({_unit(comparison)})", small=False)
    title(lower, "Gradient norm, smoothed")
    lines = [line for line in upper.lines if line.get_gid() == _NAMED]
    legend = upper.legend(lines, [_short(name) for name in comparison.names], fontsize=8, labelcolor=INK, frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)  # a dollar in a name is a dollar
    for axes in (upper, *between, lower):
        quiet(axes)
        axes.patch.set_visible(False)
    lower.xaxis.set_major_locator(MaxNLocator(integer=True))
    lower.set_xlabel("step", color=MUTED, fontsize=8, loc="right", labelpad=0)
    return png(figure)


def _draw(upper: Axes, lower: Axes, run: Progress, color: str, dash: Any) -> None:
    step, losses, norms = run.column("step"), finite(run.column("loss")), finite(run.column("grad_norm"))
    style = {"color": color, "linestyle": dash}
    upper.plot(step, losses, color=color, alpha=0.18, linewidth=0.8)
    upper.plot(step, smoothed(losses), linewidth=1.8, gid=_NAMED, **style)
    _draw_scores(upper, [(event.step, event.loss) for event in run.evals], color)
    lower.plot(step, smoothed(norms), linewidth=1.3, **style)


def _draw_metric(axes: Axes, run: Progress, metric: str, color: str, dash: Any) -> None:
    if metric in run.metrics:
        step, values = run.curve(metric)
        axes.plot(step, smoothed(finite(values)), color=color, linestyle=dash, linewidth=1.3)
        _draw_scores(axes, run.held_out(metric), color)


def _draw_scores(axes: Axes, scores: list[tuple[int, float]], color: str) -> None:
    """Diamonds alone: lines between them would cross those of other runs."""
    if scores:
        draw_scores(axes, scores, color=color, linewidth=0, markersize=4.5)


def _metrics(comparison: Comparison) -> list[str]:
    """What the objectives of any of the runs report."""
    return list(dict.fromkeys(metric for run in comparison.runs for metric in run.metrics))


def _leading(comparison: Comparison) -> list[str]:
    """Of these, one of each chart, which is drawn; the table has all."""
    return [chart.leading for chart in metric_charts(_metrics(comparison))[:MOST_CHARTS]]


def _last_metric(run: Progress, metric: str) -> str:
    """The last smoothed value, and the last on the held-out rows."""
    if metric not in run.metrics:
        return "–"
    values, scores = smoothed(run.curve(metric)[1]), run.held_out(metric)
    last = [f"{values[-1]:.3g}"] if len(values) else []
    return ", ".join([*last, *([f"held-out {scores[-1][1]:.3g}"] if scores else [])])


def _unit(comparison: Comparison) -> str:
    """What the losses are in."""
    units = dict.fromkeys(run.started.loss_unit for run in comparison.runs if run.started is not None)
    return " and ".join(units) or RunStarted.loss_unit


def _short(name: str) -> str:
    """A name as the picture's font can write it, not too long for it."""
    known = "".join(char if ord(char) in _glyphs() else "□" for char in name)
    return known if len(known) <= _NAME_CHARACTERS else f"{known[: _NAME_CHARACTERS - 1]}…"


@cache
def _glyphs() -> frozenset[int]:
    """The characters of matplotlib's own font; of others it draws a box, and warns."""
    return frozenset(get_font(findfont("DejaVu Sans")).get_charmap())


def _facts(run: Progress, *, of_the_place: bool = False) -> dict[str, Any]:
    """What was decided before the run began: its model, its rows, its settings; where it is kept only when asked."""
    if run.started is None:
        return {}
    facts = {
        "model": run.started.model,
        "trainable parameters": run.started.trainable_parameters,
        "training rows": run.started.train_rows,
        "held-out rows": run.started.eval_rows,
        **run.started.config,
        **run.started.objective,
    }
    return {name: value for name, value in facts.items() if of_the_place or name not in _OF_THE_PLACE}


def _last_smoothed(run: Progress) -> str:
    smooth = smoothed(run.column("loss"))
    seen = smooth[np.isfinite(smooth)]
    return loss(seen[-1]) if len(seen) else "–"


def _best(run: Progress) -> str:
    return f"{loss(run.best_eval.loss)} at step {run.best_eval.step:,}" if run.best_eval else "–"


def _folder(run: Recorded) -> Path:
    """The run folder its log lies in."""
    path = log_of(run).resolve()
    return path.parent if path.suffix == ".jsonl" else path
