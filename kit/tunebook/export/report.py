"""What an export cell shows: the file, its size, whether it was read back as the same model, and how to open it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..machine.inert import one_line
from .readback.verify import HEADINGS, Verification, bytes_on_disk
from .table import as_html, as_text


@dataclass(frozen=True, kw_only=True)
class Export:
    """One file or folder that was written."""

    kind: str  # "lora", the save_method of merged weights, or a GGUF type
    path: Path
    verification: Verification | None = None  # None: it was not read back
    notes: tuple[str, ...] = ()  # what the writer could not do as asked, and what it cost
    commands: tuple[str, ...] = ()  # shell lines that open it

    @property
    def bytes(self) -> int:
        """Size on disk, all files of the export together."""
        return bytes_on_disk(self.path)

    @property
    def cells(self) -> tuple[str, ...]:
        """A row of a table, under HEADINGS."""
        if self.verification is None:
            return (str(self.path), f"{self.bytes / 1e6:.1f} MB", "not read back", *[""] * (len(HEADINGS) - 3))
        return self.verification.cells

    @property
    def said(self) -> tuple[str, ...]:
        """All notes, those of the verification too."""
        note = self.verification.note if self.verification else None
        return (*self.notes, *([note] if note else []))

    def __repr__(self):
        said = [f"{self.kind}: {self.path} ({self.bytes / 1e6:.1f} MB).", str(self.verification or "Not read back.")]
        return "\n".join(map(one_line, [" ".join([*said, *self.said]), *self.commands]))

    def _repr_html_(self) -> str:
        return as_html(HEADINGS, [self.cells], self.said, self.commands)


class ExportTable(tuple[Export, ...]):
    """Several `exports`, as the saving methods return them, as a table in a notebook and in a terminal.

    >>> ExportTable([model.save_pretrained("out/lora"), model.save_pretrained_merged("out/merged")])
    """

    HEADINGS = HEADINGS

    def __new__(cls, exports: Iterable[Export]):
        return super().__new__(cls, exports)

    def rows(self) -> Iterator[tuple[str, ...]]:
        """One tuple of strings per export, under HEADINGS."""
        yield from (export.cells for export in self)

    def __repr__(self):
        return as_text(HEADINGS, self.rows(), [*self._notes(), *self._commands()])

    def _repr_html_(self) -> str:
        return as_html(HEADINGS, self.rows(), self._notes(), self._commands())

    def _notes(self) -> list[str]:
        return list(dict.fromkeys(note for export in self for note in export.said))

    def _commands(self) -> list[str]:
        return [command for export in self for command in export.commands]
