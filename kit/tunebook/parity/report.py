"""What a bisection found, as a sentence, a table, a page that needs nothing else, and a file of numbers."""

import html
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .curve_svg import curves_as_svg
from .finding import Finding

HEADINGS = ("stage", "what was compared", "largest difference", "tolerance", "verdict", "where")

_LEFT = 'style="text-align: left"'  # JupyterLab sets the cells of a table to the right
_STYLE = """body { font: 15px/1.5 system-ui, sans-serif; max-width: 75em; margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; } td, th { padding: .3em .8em; text-align: left; vertical-align: top; }
tr { border-bottom: 1px solid #8884; } .beyond { color: #b3261e; font-weight: 600; }"""


@dataclass(frozen=True, kw_only=True)
class Report:
    """The findings, in the order of the chain."""

    model: str
    procedure: str  # the name of what was compared with the references
    objective: str | None = None  # over answers, by its name; None: the next token
    findings: tuple[Finding, ...]
    seconds: dict[str, float]  # each stage took
    versions: dict[str, str]  # of the libraries it was compared with

    @property
    def first(self) -> Finding | None:
        """The first finding beyond its tolerance; None when there is none."""
        return next((finding for finding in self.findings if finding.verdict == "beyond"), None)

    @property
    def sentence(self) -> str:
        """Where the two sides part."""
        if self.first is not None:
            return f"{self.procedure} parts from its references at the stage {self.first}"
        measured = [finding for finding in self.findings if finding.verdict == "within"]
        skipped = len(self.findings) - len(measured)
        left_out = f"; {skipped} could not be made here" if skipped else ""
        return f"{self.procedure} and its references agree in all {len(measured)} comparisons made{left_out}."

    @property
    def curves(self) -> dict[str, tuple[list[float], list[float]]]:
        """(our losses, theirs) of each stage that compared whole runs."""
        return {
            finding.stage: (finding.numbers["here"], finding.numbers["there"])
            for finding in self.findings
            if {"here", "there"} <= finding.numbers.keys()
        }

    def rows(self) -> list[tuple[str, ...]]:
        """One tuple of strings per finding, under HEADINGS."""
        return [
            (
                finding.stage,
                finding.what,
                "" if finding.measured is None else f"{finding.measured:.2e} {finding.unit}".strip(),
                f"{finding.tolerance:g}",
                finding.verdict,
                finding.evidence,
            )
            for finding in self.findings
        ]

    def __str__(self):
        rows = [HEADINGS, *self.rows()]
        widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([*lines, "", self.sentence])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head = "".join(f"<th {_LEFT}>{name}</th>" for name in HEADINGS)
        body = "".join(
            f'<tr class="{"beyond" if row[4] == "beyond" else "other"}">'
            + "".join(f"<td {_LEFT}>{html.escape(cell)}</td>" for cell in row)
            + "</tr>"
            for row in self.rows()
        )
        return (
            f"<p><b>{html.escape(self.sentence)}</b></p>"
            f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        )

    def to_html(self, path: Path | str) -> Path:
        """Write a page with the sentence, the table, the curves and what it was made with."""
        by = f" by {self.objective}" if self.objective else ""
        title = html.escape(f"Parity of {self.procedure}{by} on {self.model}")
        plots = "".join(
            f"<h2>{html.escape(stage)}</h2>{curves_as_svg(*pair, label=stage)}" for stage, pair in self.curves.items()
        )
        made_with = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        took = f"It took {sum(self.seconds.values()):.0f} seconds."
        Path(path).write_text(
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
            f"<h1>{title}</h1>{self._repr_html_()}{plots}"
            f"<p>Compared with {html.escape(made_with)}. {took}</p></html>\n",
            encoding="utf-8",
        )
        return Path(path)

    def to_json(self, path: Path | str) -> Path:
        """Write everything as plain values; a number that is not finite is written as a string."""
        document = {
            "model": self.model,
            "procedure": self.procedure,
            "objective": self.objective,
            "sentence": self.sentence,
            "first_beyond": self.first.stage if self.first else None,
            "findings": [{**asdict(finding), "verdict": finding.verdict} for finding in self.findings],
            "seconds": self.seconds,
            "versions": self.versions,
        }
        Path(path).write_text(json.dumps(finite(document), indent=2, allow_nan=False) + "\n", encoding="utf-8")
        return Path(path)


def finite(value: Any) -> Any:
    """`value`, plain as JSON has it, with every number that is not finite as a string."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
