"""Whether an export is the model it was made from: another program opens it and must find the same loss.

Teacher-forced loss on a few rows, here and there. It moves with every weight and every token id, where comparing
generated text would only show the first difference, or noise. Beside it, the other program tokenizes the rows itself
and must find the same ids.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import gguf

from ...data.encoded import Encoded
from ...data.examples import Example, Text
from ...data.formats import reader as row_reader
from ...data.sources import Row, reach_of
from ...gguf.container import open_container
from ...models.loaded import HoldsLoaded, Loaded, loaded_in
from ...tokens.encoding import encode_rows
from ...train.evaluation import score_now
from ..table import as_html
from ..target.own_files import exported_files
from .compared_rows import comparable
from .other_programs import Reader, config_of, is_installed, read_elsewhere, readers_of

# nats per supervised token an export may differ by; quantizing to 8 bits costs a little, fewer bits cost more.
TOLERANCE = {"lora": 0.02, "merged": 0.02, "merged_8bit": 0.05, "f32": 0.02, "f16": 0.02, "bf16": 0.02, "q8_0": 0.05}
TOLERANCE_BELOW_8_BITS = 0.5

HEADINGS = ("export", "size", "read back by", "loss there", "loss here", "difference", "ids", "tokens/s", "check")


@dataclass(frozen=True, kw_only=True)
class Verification:
    """The loss of the same tokens in the live model and in an export of it."""

    path: Path
    bytes: int  # on disk
    reader: str  # the program that opened the export
    loss_here: float  # nats per supervised token
    loss_there: float
    tolerance: float
    tokens: int  # supervised
    texts: int  # tokenized there too: the rows that are text, and a chat prompt where the export has a template
    texts_alike: int  # of them, those that are the same there as here
    tokens_sec: float | None  # read there in one pass, the first; None: the program was asked token by token
    note: str | None = None  # what the comparison could not keep the same

    @property
    def difference(self) -> float:
        """Loss there minus loss here, in nats per supervised token."""
        return self.loss_there - self.loss_here

    @property
    def passed(self) -> bool:
        """Whether the two losses differ by no more than the tolerance and every text is the same tokens."""
        return abs(self.difference) <= self.tolerance and self.texts_alike == self.texts

    @property
    def cells(self) -> tuple[str, ...]:
        """A row of a table, under HEADINGS."""
        return (
            str(self.path),
            f"{self.bytes / 1e6:.1f} MB",
            self.reader,
            f"{self.loss_there:.4f}",
            f"{self.loss_here:.4f}",
            f"{self.difference:+.4f}",
            f"{self.texts_alike} of {self.texts}" if self.texts else "",
            "" if self.tokens_sec is None else f"{self.tokens_sec:.0f}",
            "PASS" if self.passed else "FAIL",
        )

    def __str__(self):
        verdict = "PASS" if self.passed else "FAIL"
        ids = "" if self.texts_alike == self.texts else f"; only {self.texts_alike} of {self.texts} texts the same ids"
        return (
            f"{verdict}: loss {self.loss_there:.4f} in {self.reader}, {self.loss_here:.4f} here "
            f"({self.tokens} tokens, tolerance {self.tolerance}){ids}"
        )

    def _repr_html_(self) -> str:
        return as_html(HEADINGS, [self.cells], [self.note] if self.note else [])


def verify_export(
    path: Path | str, model: HoldsLoaded, rows: Sequence[Row], *, reader: Reader | None = None, kind: str | None = None
) -> Verification:
    """Open the export at `path` elsewhere and compare its loss on `rows`, and their ids, with the live model's.

    `reader` None takes the program the export is meant for, if it is installed: stock mlx-lm in a fresh process for
    folders, mlx-vlm for those of a model that reads images, transformers and PEFT under torch for PEFT's adapters,
    llama.cpp (`xllamacpp`) for a .gguf; else our own reader. Of pairs the chosen answers are compared. `kind` is a key
    of TOLERANCE; None finds it out. Raises ValueError for a reader that does not open such an export, RuntimeError with
    the reader's own words when it cannot open this one.

        >>> export = model.save_pretrained("out/lora")
        >>> check = verify_export("out/lora", model, rows[:2])
    """
    path, loaded = Path(path), loaded_in(model, "verify_export")
    readers = readers_of(path, loaded.family.library)
    if reader is not None and reader not in readers:
        known = "" if reader in get_args(Reader) else f" There is no reader {reader!r}."
        raise ValueError(f"{path.name} is opened by {' or '.join(readers)}, not by {reader}.{known}")
    chosen: Reader = reader or next(name for name in readers if is_installed(name))
    rows = comparable(rows)
    encoded = encode_rows(rows, loaded, max_seq_length=loaded.max_seq_length).rows
    texts = _texts(rows, encoded, loaded)
    here = score_now(loaded.module, loaded.family, encoded, batch_size=1, max_seq_length=loaded.max_seq_length)
    there = read_elsewhere(path, chosen, loaded, encoded, texts)
    tolerance = TOLERANCE.get(kind or _kind(path), TOLERANCE_BELOW_8_BITS)
    return Verification(
        path=path,
        bytes=bytes_on_disk(path),
        reader=there.program,
        loss_here=here.loss,
        loss_there=there.loss,
        tolerance=TOLERANCE_BELOW_8_BITS if there.note else tolerance,
        tokens=here.tokens,
        texts=len(there.alike),
        texts_alike=sum(there.alike),
        tokens_sec=there.tokens_sec,
        note=there.note,
    )


def bytes_on_disk(path: Path) -> int:
    """The size of a file, or of the files that were exported to a folder together."""
    return sum(file.stat().st_size for file in (exported_files(path) if path.is_dir() else [path]))


def _kind(path: Path) -> str:
    """The key of TOLERANCE an export is held to."""
    if path.suffix == ".gguf":
        file_type = open_container(path).keys["general.file_type"]
        return gguf.LlamaFileType(file_type).name.partition("_")[2].lower()
    if (path / "adapter_config.json").exists():
        return "lora"
    quantization = config_of(path).get("quantization")
    return "merged" if quantization is None else f"merged_{quantization['bits']}bit"


def _texts(rows: Sequence[Row], encoded: Sequence[Encoded], loaded: Loaded) -> list[Example]:
    """The rows that were encoded, as text; those that came as ids have none, and with images it is the processor's."""
    read = row_reader(rows, loaded.tokenizer, placeholder=loaded.family.placeholder, reach=reach_of(rows))
    examples = [read(rows[number]) for number in dict.fromkeys(row.number for row in encoded)]
    return [example for example in examples if all(isinstance(part, Text) for part in example.parts)]
