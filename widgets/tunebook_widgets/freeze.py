"""What stays in the notebook when a run has ended: a PNG of the curves, a plain table and one sentence.

A `Progress` comes in, mime bundles go out. They need no kernel, script or style sheet, so GitHub, nbconvert and a
reopened, untrusted notebook show them alike; pyplot and its global state are never touched.
"""

import base64
import html
import io
import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from .progress import Progress
from .wording import duration, loss, rate, verdict

Bundle = dict[str, str]  # mime type -> data

# The live view's colours, of Okabe and Ito's colour-blind-safe palette (jfly.uni-koeln.de/color).
_BLUE, _VERMILION, _GREEN = "#0072b2", "#d55e00", "#009e73"
_INK, _MUTED, _GRID = "#2b2f33", "#6b7278", "#e4e7ea"

_WIDTH_INCHES, _HEIGHT_INCHES = 7.6, 4.0
_PIXELS_PER_INCH = 100  # as shown; drawn at twice that
_NOTICES_KEPT = 20
_LEFT = 'style="text-align: left"'  # notebooks align cells to the right, as suits a data frame


def frozen_picture(run: Progress) -> tuple[Bundle, dict[str, Any]]:
    """The curves of a run as a PNG at twice the size it is shown at, and the output metadata that says so."""
    size = {"width": round(_WIDTH_INCHES * _PIXELS_PER_INCH), "height": round(_HEIGHT_INCHES * _PIXELS_PER_INCH)}
    bundle = {
        "image/png": base64.b64encode(_png(run)).decode("ascii"),
        "text/plain": f"Curves of the run: {verdict(run)}",
    }
    return bundle, {"image/png": size, "needs_background": "light"}


def frozen_table(run: Progress) -> Bundle:
    """The verdict, the numbers and the notices of a run that has ended, as plain HTML and as plain text."""
    sentence = verdict(run)
    rows = _table_rows(run)
    hidden = max(len(run.notices) - _NOTICES_KEPT, 0)
    notices = [f"step {notice.step}: {notice.text}" for notice in run.notices[hidden:]]
    if hidden:
        notices.insert(0, f"{hidden} earlier notices are in the run's event log.")
    cells = "".join(
        f"<tr><th {_LEFT}>{html.escape(name)}</th><td {_LEFT}>{html.escape(value)}</td></tr>" for name, value in rows
    )
    items = "".join(f"<li>{html.escape(text)}</li>" for text in notices)
    plain = [f"step {step}: {prompt!r} → {text!r}" for step, prompt, text in _samples(run)]
    return {
        "text/html": f"<p><strong>{html.escape(sentence)}</strong></p><table><tbody>{cells}</tbody></table>"
        + _samples_table(run)
        + (f"<ul>{items}</ul>" if items else ""),
        "text/plain": "\n".join([sentence, *(f"  {name:<16}{value}" for name, value in rows), *plain, *notices]),
    }


def debiased_ema(values: np.ndarray, decay: float) -> np.ndarray:
    """The exponential moving average of `values`, divided by the weight seen so far (Kingma & Ba 2015, section 3).

    A value that is not finite leaves the average as it was and is NaN in the result.  # (steps,) -> (steps,)
    """
    smooth, average, weight = np.full(len(values), np.nan), 0.0, 0.0
    for index, value in enumerate(values):
        if math.isfinite(value):
            average = decay * average + (1 - decay) * value
            weight = decay * weight + (1 - decay)
            smooth[index] = average / weight
    return smooth


def _samples(run: Progress) -> list[tuple[int, str, str]]:
    """(step, prompt, text) of what the model wrote at first and at last, prompt by prompt."""
    first = {sample.prompt: sample for sample in reversed(run.samples)}
    shown = [sample for last in run.last_samples for sample in (first[last.prompt], last)]
    return list(dict.fromkeys((sample.step, sample.prompt, sample.text) for sample in shown))


def _samples_table(run: Progress) -> str:
    rows = "".join(
        f"<tr><td {_LEFT}>{step}</td><td {_LEFT}>{html.escape(prompt)}</td><td {_LEFT}>{html.escape(text)}</td></tr>"
        for step, prompt, text in _samples(run)
    )
    heads = "".join(f"<th {_LEFT}>{name}</th>" for name in ("Step", "Prompt", "What the model wrote"))
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>" if rows else ""


def _table_rows(run: Progress) -> list[tuple[str, str]]:
    end, rows = run.ended, []
    if run.started is not None:
        share = 100 * run.started.trainable_parameters / max(run.started.total_parameters, 1)
        rows.append(("Model", run.started.model))
        rows.append(("Trained", f"{run.started.trainable_parameters:,} parameters ({share:.2f} %)"))
        rows.append(("Rows", f"{run.started.train_rows:,} training, {run.started.eval_rows:,} held out"))
    if end is not None:
        rows.append(("Steps", f"{end.step:,} of {end.total_steps:,} in {duration(end.elapsed)}"))
    if run.last is not None:
        rows.append(("Loss", f"{loss(run.column('loss')[0])} → {loss(run.last.loss)}"))
    if run.best_eval is not None:
        first, last, best = run.evals[0], run.evals[-1], run.best_eval
        path = f"{loss(first.loss)} → {loss(last.loss)}, best " if len(run.evals) > 1 else ""
        rows.append(("Held-out loss", f"{path}{loss(best.loss)} at step {best.step:,}"))
    if run.last is not None:
        rows.append(("Learning rate", f"{rate(run.column('lr').max())} at most, {rate(run.last.lr)} at the end"))
        rows.append(
            ("Tokens", f"{run.last.num_tokens:,} trained, {np.median(run.column('tokens_sec')):,.0f} per second")
        )
        rows.append(("Peak memory", f"{run.last.peak_gb:.2f} GB"))
    if end is not None and end.message:
        rows.append(("Ended", end.message))
    return rows


def _png(run: Progress) -> bytes:
    figure = Figure(
        figsize=(_WIDTH_INCHES, _HEIGHT_INCHES),
        dpi=2 * _PIXELS_PER_INCH,
        facecolor="white",
        layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08),  # inches
    )
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2.4, 1))
    _draw_loss(upper, run)
    _draw_grad_norm(lower, run)
    for axes in (upper, lower):
        _quiet(axes)
        _draw_bands(axes, run)
    lower.set_xlabel("step", color=_MUTED, fontsize=8, loc="right", labelpad=0)
    lower.xaxis.set_major_locator(MaxNLocator(integer=True))
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _draw_loss(axes: Axes, run: Progress) -> None:
    step, values = run.column("step"), _finite(run.column("loss"))
    axes.plot(step, values, color=_BLUE, alpha=0.4, linewidth=1, marker=_marker(run), label="each step")
    axes.plot(step, debiased_ema(values, run.ema_decay), color=_BLUE, linewidth=1.8, label="smoothed")
    if run.evals:
        where, height = [e.step for e in run.evals], _finite(np.array([e.loss for e in run.evals]))
        axes.plot(
            where,
            height,
            color=_VERMILION,
            linewidth=1,
            linestyle=(0, (4, 3)),
            marker="D",
            markersize=5,
            markerfacecolor="white",
            markeredgewidth=1.4,
            markevery=-(-len(where) // 40),  # diamonds on top of one another are a bar
            label="held-out",
        )
    axes.set_title("Loss  (nats per trained token)", loc="left", fontsize=9.5, color=_INK)
    axes.legend(
        loc="lower right",
        bbox_to_anchor=(1, 1),
        borderaxespad=0.2,
        fontsize=8,
        frameon=False,
        labelcolor=_MUTED,
        ncols=3,
    )


def _draw_grad_norm(axes: Axes, run: Progress) -> None:
    values = _finite(run.column("grad_norm"))
    axes.plot(run.column("step"), values, color=_GREEN, linewidth=1.2, marker=_marker(run))
    title = "Gradient norm"
    if run.clip_norm is not None:
        title += f"  (clipped above {run.clip_norm:g})"
        if np.any(4 * values > run.clip_norm):  # a line far above the curve would flatten it
            axes.axhline(run.clip_norm, color=_MUTED, linewidth=1, linestyle=(0, (1, 2)))
    axes.set_title(title, loc="left", fontsize=9.5, color=_INK)


def _draw_bands(axes: Axes, run: Progress) -> None:
    """Hatch the steps that were not finite: a gap alone reads as a step that never was."""
    norms = np.isfinite(run.column("grad_norm"))
    good = np.isfinite(run.column("loss")) & (norms | ~norms.any())  # a trainer may report no norm at all
    for start, end in _stretches(run.column("step")[~good]):
        axes.axvspan(
            start - 0.5, end + 0.5, facecolor="#fbf0ee", edgecolor="#e0a79f", hatch="////", linewidth=0, zorder=0
        )


def _stretches(steps: np.ndarray) -> list[tuple[float, float]]:
    """First and last of each stretch of consecutive steps."""
    if not len(steps):
        return []
    breaks = np.flatnonzero(np.diff(steps) > 1)
    return list(zip(steps[[0, *(breaks + 1)]], steps[[*breaks, -1]], strict=True))


def _quiet(axes: Axes) -> None:
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_GRID)
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_MUTED, labelsize=8, length=0)


def _marker(run: Progress) -> str | None:
    """A line through fewer than three steps is hard to see, or not there at all."""
    return "o" if run.steps < 3 else None


def _finite(values: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values), values, np.nan)
