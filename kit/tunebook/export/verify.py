"""Whether an export is the model it was made from: another program opens it and must find the same loss.

Teacher-forced loss on a few rows, here and there. It moves with every weight and every token id, where comparing
generated text would only show the first difference, or noise.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from ..encoding import encode_rows
from ..evaluation import score_now
from ..families.base import Encoded
from ..gguf import llama_cpp, read_gguf
from ..loader import Loaded
from ..sources import Row
from .reader import is_for_mlx_lm

# nats per supervised token an export may differ by; quantizing to 8 bits costs a little, fewer bits cost more.
TOLERANCE = {"lora": 0.02, "merged": 0.02, "f32": 0.02, "f16": 0.02, "bf16": 0.02, "q8_0": 0.05}
TOLERANCE_BELOW_8_BITS = 0.5


@dataclass(frozen=True, kw_only=True)
class Verification:
    """The loss of the same tokens in the live model and in an export of it."""

    reader: str  # the program that opened the export
    loss_here: float  # nats per supervised token
    loss_there: float
    tolerance: float
    tokens: int

    @property
    def passed(self) -> bool:
        """Whether the two losses differ by no more than the tolerance."""
        return abs(self.loss_there - self.loss_here) <= self.tolerance

    def __str__(self):
        verdict = "PASS" if self.passed else "FAIL"
        return (
            f"{verdict}: loss {self.loss_there:.4f} in {self.reader}, {self.loss_here:.4f} here "
            f"({self.tokens} tokens, tolerance {self.tolerance})"
        )


def verify_export(path: Path | str, kind: str, loaded: Loaded, rows: Sequence[Row]) -> Verification:
    """Open the export at `path` elsewhere and compare its loss on `rows` with the live model's.

    `kind` is "lora", "merged" or a GGUF type. Folders are opened by stock mlx-lm in a fresh process (by mlx-vlm for a
    model that reads images), adapters for PEFT by PEFT where it is installed; a .gguf by llama.cpp where `xllamacpp` is
    installed, else by our reader and mlx-lm.
    The result says which it was.
    """
    path = Path(path)
    encoded = encode_rows(rows, loaded, max_seq_length=loaded.max_seq_length).rows
    here = score_now(loaded.module, loaded.family, encoded, batch_size=1, max_seq_length=loaded.max_seq_length)
    if path.suffix == ".gguf":
        reader, there = _loss_of_gguf(path, encoded)
    elif loaded.family.library == "mlx-vlm":
        reader, there = _loss_of_vision(path, kind, loaded, encoded)
    elif kind == "lora":
        reader, there = _loss_of_adapters(path, loaded.folder, encoded)
    else:
        reader, there = _mlx_lm(), _loss_in_fresh_process(encoded, path)
    return Verification(
        reader=reader,
        loss_here=here.loss,
        loss_there=there,
        tolerance=TOLERANCE.get(kind, TOLERANCE_BELOW_8_BITS),
        tokens=here.tokens,
    )


def _loss_of_adapters(path: Path, base: Path, rows: Sequence[Encoded]) -> tuple[str, float]:
    """(who opened them, the loss): PEFT for its own where it is installed, else stock mlx-lm, else our reader."""
    is_peft = "peft_type" in json.loads((path / "adapter_config.json").read_text())
    if is_peft and all(find_spec(name) for name in ("torch", "transformers", "peft")):
        loss = _loss_in_fresh_process(rows, base, adapter=path, reader="tunebook.parity.reader")
        return f"PEFT {version('peft')} and transformers {version('transformers')}", loss
    reader = _mlx_lm() if is_for_mlx_lm(path) else f"tunebook on {_mlx_lm()}"
    return reader, _loss_in_fresh_process(rows, base, adapter=path)


def _loss_of_vision(path: Path, kind: str, loaded: Loaded, rows: Sequence[Encoded]) -> tuple[str, float]:
    """(who opened them, the loss): stock mlx-vlm, and for adapters it does not open our reader of adapters."""
    base, adapter = (loaded.folder, path) if kind == "lora" else (path, None)
    name = f"mlx-vlm {version('mlx-vlm')}"
    reader = name if adapter is None or is_for_mlx_lm(adapter) else f"tunebook on {name}"
    arrays = {
        f"{key}_{index}": np.array(array)
        for index, row in enumerate(rows)
        for key, array in loaded.family.collate([row], len(row.tokens)).items()
    }
    return reader, _loss_of_arrays(arrays, base, adapter, "tunebook.export.vision_reader")


def _mlx_lm() -> str:
    return f"mlx-lm {version('mlx-lm')}"


def _loss_of_gguf(path: Path, rows: Sequence[Encoded]) -> tuple[str, float]:
    if not llama_cpp.is_installed():
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "model"
            read_gguf(path, folder)
            return f"our reader and {_mlx_lm()}", _loss_in_fresh_process(rows, folder)
    log_probs = [llama_cpp.target_log_probs(path, row.tokens.tolist(), _targets(row)) for row in rows]
    return f"llama.cpp (xllamacpp {version('xllamacpp')})", -float(np.mean(np.concatenate(log_probs)))


def _targets(row: Encoded) -> list[int]:
    """Positions of the supervised tokens; the first token is predicted from nothing."""
    return [position for position in np.flatnonzero(row.loss_mask).tolist() if position > 0]


def _loss_in_fresh_process(
    rows: Sequence[Encoded], model: Path, adapter: Path | None = None, reader: str = "tunebook.export.reader"
) -> float:
    arrays = {f"tokens_{index}": row.tokens for index, row in enumerate(rows)}
    arrays |= {f"loss_mask_{index}": row.loss_mask for index, row in enumerate(rows)}
    return _loss_of_arrays(arrays, model, adapter, reader)


def _loss_of_arrays(arrays: dict[str, np.ndarray], model: Path, adapter: Path | None, reader: str) -> float:
    """Raises RuntimeError with the child's own words when it cannot open the export."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "rows.npz"
        np.savez(file, allow_pickle=False, **arrays)
        command = [sys.executable, "-m", reader, str(model), str(file)]
        if adapter is not None:
            command += ["--adapter", str(adapter)]
        child = subprocess.run(command, capture_output=True, text=True, check=False)
    if child.returncode:
        raise RuntimeError(f"{reader} could not open {adapter or model}:\n{child.stderr.strip()[-2000:]}")
    return json.loads(child.stdout.splitlines()[-1])["loss"]
