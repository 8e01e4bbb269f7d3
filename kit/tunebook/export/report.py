"""What an export cell shows: the file, its size, and whether it was read back as the same model."""

import html
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .verify import Verification


@dataclass(frozen=True, kw_only=True)
class Export:
    """One file or folder that was written."""

    kind: str  # "lora", "merged" or a GGUF type
    path: Path
    verification: Verification | None = None  # None: it was not read back
    notes: tuple[str, ...] = ()  # what the writer could not do as asked

    @property
    def bytes(self) -> int:
        """Size on disk, all files of a folder together."""
        files = self.path.rglob("*") if self.path.is_dir() else [self.path]
        return sum(file.stat().st_size for file in files if file.is_file())

    def __repr__(self):
        said = [f"{self.kind}: {self.path} ({self.bytes / 1e6:.1f} MB).", str(self.verification or "Not read back.")]
        return " ".join([*said, *self.notes])


class ExportTable(tuple[Export, ...]):
    """Several exports as a table, in a notebook and in a terminal."""

    HEADINGS = ("export", "size", "read back by", "loss there", "loss here", "check")

    def __new__(cls, exports: Iterable[Export]):
        return super().__new__(cls, exports)

    def rows(self) -> Iterator[tuple[str, ...]]:
        """One tuple of strings per export, under HEADINGS."""
        for export in self:
            size, check = f"{export.bytes / 1e6:.1f} MB", export.verification
            if check is None:
                yield (str(export.path), size, "not read back", "", "", "")
            else:
                verdict = "PASS" if check.passed else "FAIL"
                yield (
                    str(export.path),
                    size,
                    check.reader,
                    f"{check.loss_there:.4f}",
                    f"{check.loss_here:.4f}",
                    verdict,
                )

    def __repr__(self):
        rows = [self.HEADINGS, *self.rows()]
        widths = [max(len(row[column]) for row in rows) for column in range(len(self.HEADINGS))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([*lines, *(note for export in self for note in export.notes)])

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in self.HEADINGS)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in self.rows()
        )
        notes = "".join(f"<p>{html.escape(note)}</p>" for export in self for note in export.notes)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{notes}"
