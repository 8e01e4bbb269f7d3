"""`FitCheck`: what a run will need of memory, as a bar against what this machine has, with what to change.

A trainer, or a model and a configuration, goes in; out comes static HTML that needs no kernel, with the kit's own table
for places that show none. The numbers are `memory.estimate`'s; nothing is added to them here.
"""

from html import escape

from tunebook.config import TrainingConfig
from tunebook.memory.footprint import Estimate, readable
from tunebook.memory.forecast import HoldsLoaded, estimate
from tunebook.objectives.base import Objective
from tunebook.trainer import Trainer

from . import STYLES

_HEIGHT = 22  # units of the drawing, which is 100 wide


class FitCheck:
    """Say before a run whether it fits.

        >>> fit = FitCheck(trainer)
        >>> fit = FitCheck(model, TrainingConfig(per_device_train_batch_size=8))
        >>> from tunebook.objectives import DPO
        >>> fit = FitCheck(model, TrainingConfig(per_device_train_batch_size=8), objective=DPO())

    `source` is a trainer, or a model with the `config` and the `objective` it would be trained by, None being the next
    token. A trainer brings its rows, and so its largest batch; a model alone is taken to read rows of max_seq_length.
    `estimate` is what is shown. Raises ValueError when nothing is trainable.
    """

    def __init__(
        self,
        source: HoldsLoaded | Trainer,
        config: TrainingConfig | None = None,
        *,
        objective: Objective | None = None,
    ):
        if isinstance(source, Trainer):
            if config is not None or objective is not None:
                raise ValueError("A trainer brings its own settings; pass FitCheck(trainer) and nothing else.")
            self.estimate: Estimate = source.memory()
            self._objective = source.objective
        else:
            self.estimate = estimate(source, config, objective=objective)
            self._objective = objective

    def __repr__(self) -> str:
        return f"{_verdict(self.estimate)}\n{self.estimate}"

    def _repr_html_(self) -> str:
        now = self.estimate
        style = "".join(file.read_text(encoding="utf-8") for file in STYLES)
        checkpointing = "on" if now.gradient_checkpointing else "off"
        return (
            f'<div class="tunebook-tokens tunebook-panel"><style>{style}</style>'
            f'<p class="tunebook-heading"><b>{_verdict(now)}</b></p>'
            f"<p>The largest batch is {_rows(now, self._objective)} of {now.batch.tokens:,} tokens, "
            f"{now.batch.supervised:,} of them supervised; gradient checkpointing is {checkpointing}. "
            f"Most is needed in {now.peak} of a step.</p>"
            f"{_bar(now)}{_table(now)}{_remedies(now)}{_not_counted(now)}</div>"
        )


def _rows(now: Estimate, objective: Objective | None) -> str:
    """The rows of the largest batch; of pairs also how many, as each is two."""
    pairs = f"{now.batch.rows // 2:,} pairs, so " if objective is not None and objective.rows == "pairs" else ""
    return f"{pairs}{now.batch.rows:,} rows"


def _verdict(now: Estimate) -> str:
    says = "This run fits" if now.fits else "This run may not fit"
    return f"{says}: {readable(now.total)} of {readable(now.device)}, {now.total / now.device:.0%}"


def _bar(now: Estimate) -> str:
    """The parts side by side, and a line where the machine's memory ends. It holds no text, as the table has it."""
    across, left, drawn = max(now.total, now.device), 0.0, []
    for place, size in enumerate(now.at_peak.values()):
        width = 100 * size / across
        drawn.append(
            f'<rect class="tunebook-part-{place}" x="{left:.6g}" y="0" width="{width:.6g}" height="{_HEIGHT}"/>'
        )
        left += width
    at = 100 * now.device / across
    return (
        f'<svg class="tunebook-memory" viewBox="0 0 100 {_HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="{_verdict(now)}">{"".join(drawn)}'
        f'<line x1="{at:.6g}" x2="{at:.6g}" y1="0" y2="{_HEIGHT}"/></svg>'
    )


def _table(now: Estimate) -> str:
    rows = [
        f'<tr><th scope="row"><i class="tunebook-part-{place}"></i>{escape(name)}</th>'
        f"<td>{readable(size)}</td><td>{size / now.total:.0%}</td></tr>"
        for place, (name, size) in enumerate(now.at_peak.items())
    ]
    total = f'<tr><th scope="row">at most at once</th><td>{readable(now.total)}</td><td></td></tr>'
    there = f'<tr><th scope="row">this machine has</th><td>{readable(now.device)}</td><td></td></tr>'
    return f'<table class="tunebook-parts"><tbody>{"".join(rows)}{total}{there}</tbody></table>'


def _not_counted(now: Estimate) -> str:
    return f"<p>Not counted: {escape(now.not_counted)}.</p>" if now.not_counted else ""


def _remedies(now: Estimate) -> str:
    if not now.remedies:
        return ""
    items = "".join(
        f"<li>To save {readable(remedy.saves)}: <b>{escape(remedy.advice)}</b></li>" for remedy in now.remedies
    )
    if now.fits:
        return f"<details><summary>How it would take less</summary><ul>{items}</ul></details>"
    return f'<p>To need less, one change at a time:</p><ul class="tunebook-findings">{items}</ul>'
