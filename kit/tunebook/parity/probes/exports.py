"""Every kind of export, saved, opened again by the program it is for, and asked for the loss of the same rows."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import mlx.core as mx
import numpy as np

from ...evaluation import score_now
from ...export import reader
from ...export.gguf import save_gguf
from ...export.lora import save_lora
from ...export.merged import save_merged
from ...gguf import UnsupportedArchitecture, llama_cpp
from .. import reader as torch_reader
from .. import torch_side
from ..case import Case
from ..finding import Finding

TOLERANCE = 1e-3  # nats per token; everything is written in float32


def exports(case: Case) -> list[Finding]:
    """The adapters act: their B matrices are not zero, so one that is lost shows."""
    case.put(case.filled)
    loaded = case.adapted
    here = score_now(loaded.module, loaded.family, case.sample, batch_size=1, max_seq_length=case.max_seq_length).loss
    findings = []
    with tempfile.TemporaryDirectory() as scratch:
        for what, measure in _kinds(case, Path(scratch)):
            try:
                with torch_side.quiet():
                    there = measure()
            except (UnsupportedArchitecture, NotHere) as reason:
                findings.append(_finding(what, None, str(reason)))
            else:
                evidence = f"{there:.5f} there, {here:.5f} in the live model."
                findings.append(_finding(what, abs(here - there), evidence))
    case.put(case.start)
    return findings


class NotHere(Exception):
    """A program that is not installed."""


def _finding(what: str, measured: float | None, evidence: str) -> Finding:
    return Finding(stage="exports", what=what, measured=measured, tolerance=TOLERANCE, unit="nats", evidence=evidence)


def _kinds(case: Case, folder: Path) -> Iterator[tuple[str, Callable[[], float]]]:
    """(what it is and who reads it, its loss there)."""
    loaded, base = case.adapted, str(case.bare.folder)
    rows = [(row.tokens, row.loss_mask) for row in case.sample]

    def adapters_in_mlx_lm() -> float:
        return reader.measure(base, str(save_lora(loaded, folder / "mlx", "mlx")), rows)[0]

    def adapters_in_peft() -> float:
        return torch_reader.measure(base, str(save_lora(loaded, folder / "peft", "peft")), rows)[0]

    def merged_in_mlx_lm() -> float:
        return reader.measure(str(save_merged(loaded, folder / "merged", mx.float32)), None, rows)[0]

    def merged_in_transformers() -> float:
        return torch_reader.measure(str(folder / "merged"), None, rows)[0]

    def gguf_in_llama_cpp() -> float:
        if not llama_cpp.is_installed():
            raise NotHere("llama.cpp is not installed here: pip install 'tunebook[verify]'.")
        [written] = save_gguf(loaded, folder, ["f32"])
        found = [
            llama_cpp.target_log_probs(
                written.path, tokens.tolist(), [at for at in np.flatnonzero(mask).tolist() if at]
            )
            for tokens, mask in rows
        ]
        return -float(np.concatenate(found).mean())

    yield "adapters, read by mlx-lm", adapters_in_mlx_lm
    yield "adapters in PEFT's format, read by PEFT", adapters_in_peft
    yield "merged weights, read by mlx-lm", merged_in_mlx_lm
    yield "merged weights, read by transformers", merged_in_transformers
    yield "GGUF in f32, read by llama.cpp", gguf_in_llama_cpp
