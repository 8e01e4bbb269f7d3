"""Two ways of training, run side by side over seeds: is one better, or is it the seed?

Each seed gives a pair of runs that share their rows, their order and their random state. What counts is the loss on
held-out rows, every token predicted from the true ones before it; what a model writes by itself is told as a remark.
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..config import LoraConfig, TrainingConfig
from ..data.formats import to_examples
from ..data.sources import Row
from ..machine.progress_bars import progress
from ..models.generation import opening, write
from ..train.evaluation import score_now
from .chain import LORA, TRAINING
from .exact import permutation_p, sign_p
from .procedure import KIT, Procedure, losses

WRITTEN = 16  # tokens of the greedy text that is compared
SURE = 0.05


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One way of training; the seeds in it are replaced."""

    name: str
    procedure: Procedure = KIT
    lora: LoraConfig = LORA
    training: TrainingConfig = TRAINING


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Of one run."""

    loss: float  # nats per supervised token of the held-out rows, at the end
    curve: tuple[float, ...]  # the loss of each step
    text: str  # the greedy continuation of the first held-out row


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Both outcomes for every seed."""

    names: tuple[str, str]
    seeds: tuple[int, ...]
    outcomes: tuple[tuple[Outcome, Outcome], ...]

    @property
    def differences(self) -> list[float]:
        """Second minus first, of the held-out losses; below 0 the second is better."""
        return [second.loss - first.loss for first, second in self.outcomes]

    @property
    def p(self) -> float:
        """How likely so large a mean difference is by chance: an exact permutation test, two-sided."""
        return permutation_p(self.differences)

    @property
    def sentence(self) -> str:
        """Whether one of the two is better."""
        first, second = self.names
        pairs, mean = len(self.seeds), float(np.mean(self.differences))
        span = f"{min(self.differences):+.4f} to {max(self.differences):+.4f}"
        facts = f"{mean:+.4f} nats on average over {pairs} seeds ({span}; p = {self.p:.3g}, by signs {self.signs:.3g})"
        if 2 / 2**pairs > SURE:
            return f"{second} differs from {first} by {facts}; {pairs} pairs are too few to tell that from chance."
        if self.p > SURE:
            return f"{second} and {first} cannot be told apart: they differ by {facts}."
        return f"{second} is {'better' if mean < 0 else 'worse'} than {first}: its held-out loss differs by {facts}."

    @property
    def signs(self) -> float:
        """The same by the signs of the differences alone."""
        return sign_p(self.differences)

    @property
    def remark(self) -> str:
        """What the texts look like, which decides nothing."""
        different = sum(first.text != second.text for first, second in self.outcomes)
        return f"The greedy texts of {different} of {len(self.seeds)} pairs differ, which does not say which is better."

    def rows(self) -> list[tuple[str, ...]]:
        """Seed, both losses and their difference."""
        return [
            (str(seed), f"{first.loss:.4f}", f"{second.loss:.4f}", f"{second.loss - first.loss:+.4f}")
            for seed, (first, second) in zip(self.seeds, self.outcomes, strict=True)
        ]

    def __str__(self):
        rows = [("seed", *self.names, "difference"), *self.rows()]
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        return "\n".join([*lines, "", self.sentence, self.remark])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{html.escape(name)}</th>" for name in ("seed", *self.names, "difference"))
        body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in self.rows())
        said = f"<p><b>{html.escape(self.sentence)}</b></p><p>{html.escape(self.remark)}</p>"
        return f"{said}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def sweep(
    model: str | Path,
    rows: Sequence[Row],
    first: Setting,
    second: Setting,
    *,
    held_out: Sequence[Row],
    seeds: Sequence[int] = range(8),
    steps: int = 20,
    max_seq_length: int = 128,
) -> Sweep:
    """Run both settings once for each seed, which draws the adapters and the order of the rows.

    Raises ValueError when a seed comes twice, or there are more than an exact test takes.
    """
    seeds = tuple(seeds)
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds holds {list(seeds)}; a seed that comes twice is one pair counted twice.")
    permutation_p([0.0] * len(seeds))  # refuses what cannot be counted before anything is trained

    def run(setting: Setting, seed: int) -> Outcome:
        return _outcome(model, rows, held_out, _seeded(setting, seed, steps), max_seq_length)

    outcomes = tuple((run(first, seed), run(second, seed)) for seed in progress(seeds, "Pairs of runs"))
    return Sweep(names=(first.name, second.name), seeds=seeds, outcomes=outcomes)


def _seeded(setting: Setting, seed: int, steps: int) -> Setting:
    return replace(
        setting,
        lora=replace(setting.lora, random_state=seed),
        training=replace(setting.training, seed=seed, max_steps=steps, num_train_epochs=None),
    )


def _outcome(
    model: str | Path, rows: Sequence[Row], held_out: Sequence[Row], setting: Setting, max_seq_length: int
) -> Outcome:
    procedure = setting.procedure
    loaded = procedure.load(model, max_seq_length)
    procedure.adapt(loaded, setting.lora)
    encoded = procedure.encode(rows, loaded, max_seq_length)
    curve = tuple(losses(procedure, loaded, encoded, setting.training, max_seq_length))
    unseen = KIT.encode(held_out, loaded, max_seq_length)  # both are measured with the same tokens
    score = score_now(loaded.module, loaded.family, unseen, batch_size=1, max_seq_length=max_seq_length)
    [example] = to_examples(held_out[:1], loaded.tokenizer)
    text = "".join(write(loaded, opening(example).example, max_tokens=WRITTEN))
    return Outcome(loss=score.loss, curve=curve, text=text)
