"""Two loss curves as an SVG drawing: ours over theirs, and below them how far apart they are at each step."""

import html
import math
from collections.abc import Sequence

WIDTH, HEIGHT, GAP, MARGIN = 640, 180, 40, 60  # pixels


def curves_as_svg(ours: Sequence[float], theirs: Sequence[float], *, label: str) -> str:
    """A drawing that needs nothing else; steps whose loss is not finite are left out."""
    low = min((value for value in (*ours, *theirs) if math.isfinite(value)), default=0.0)
    high = max((value for value in (*ours, *theirs) if math.isfinite(value)), default=1.0)
    apart = [math.log10(max(abs(a - b) / abs(b), 1e-9)) for a, b in zip(ours, theirs, strict=True) if b]
    parts = [
        _line(theirs, low, high, 0, 'stroke="#888" stroke-width="4" opacity=".6"'),
        _line(ours, low, high, 0, 'stroke="#1a6fb0" stroke-width="1.5"'),
        _line(apart, -9.0, 0.0, HEIGHT + GAP, 'stroke="#b3261e" stroke-width="1.5"'),
        _text(0, 12, f"{high:.3f}"),
        _text(0, HEIGHT, f"{low:.3f}"),
        _text(MARGIN, HEIGHT + 24, "loss: ours (thin) over theirs (thick); below, their relative difference"),
        _text(0, HEIGHT + GAP + 12, "1"),
        _text(0, 2 * HEIGHT + GAP, "1e-9"),
    ]
    size = f'viewBox="0 0 {WIDTH + MARGIN} {2 * HEIGHT + GAP + 8}" width="{WIDTH + MARGIN}"'
    name = html.escape(f"Loss curves of {label}", quote=True)
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{name}">{"".join(parts)}</svg>'


def _line(values: Sequence[float], low: float, high: float, top: float, style: str) -> str:
    span, last = (high - low) or 1.0, max(1, len(values) - 1)
    points = " ".join(
        f"{MARGIN + WIDTH * step / last:.1f},{top + HEIGHT * (1 - (value - low) / span):.1f}"
        for step, value in enumerate(values)
        if math.isfinite(value)
    )
    return f'<polyline points="{points}" fill="none" {style}/>'


def _text(x: float, y: float, words: str) -> str:
    return f'<text x="{x}" y="{y}" font-size="12" fill="currentColor">{html.escape(words)}</text>'
