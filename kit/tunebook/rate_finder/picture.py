"""The losses of a trial over the rates, as a picture."""

import math
from collections.abc import Sequence

from ..machine.pictures import INK, Picture, blank, inked

LINE, MARK = {False: "#0072b2", True: "#56b4e9"}, {False: "#b3401a", True: "#ff8f66"}
WIDTH, HEIGHT = 7.0, 3.4  # inches


def picture(
    rates: Sequence[float], losses: Sequence[float], chosen: float | None, measured: str, *, dark: bool
) -> Picture:
    """A curve on a logarithmic axis of `rates`, of the losses after each; the first of `losses`, before all, is a line.

    A dot is the rate that was `chosen`; `measured` says whose loss it is.
    """
    figure = blank(WIDTH, HEIGHT, dark=dark)
    axes, ink = figure.subplots(), INK[dark]
    points = [pair for pair in zip(rates, losses[1:], strict=True) if math.isfinite(pair[1])]
    inked(axes, dark=dark, sides=("left", "bottom"))
    axes.set_xscale("log")
    axes.axhline(losses[0], color=ink, linewidth=1, linestyle="--", alpha=0.6)
    axes.plot(*zip(*points, strict=True), color=LINE[dark], linewidth=2)
    if chosen is not None:
        loss = losses[list(rates).index(chosen) + 1]
        axes.plot([chosen], [loss], "o", color=MARK[dark], markersize=9)
        axes.annotate(
            f"{chosen:.1e}", (chosen, loss), (8, 8), textcoords="offset points", color=MARK[dark], weight="bold"
        )
    axes.set_xlabel("learning rate of the step", color=ink)
    axes.set_ylabel("loss after it, nats per token", color=ink)
    axes.set_title(f"Loss of {measured} as the rate rises", loc="left", color=ink, fontsize="medium")
    return figure
