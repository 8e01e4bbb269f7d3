"""Every kind of export, saved, opened again by the program it is for, and asked for the loss of the same rows."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import mlx.core as mx
import numpy as np

from ...data.encoded import Encoded
from ...export.gguf.files import save_gguf
from ...export.lora import save_lora
from ...export.merged import save_merged
from ...export.readback import llama_cpp, mlx_lm_reader
from ...gguf import UnsupportedArchitecture
from ...train.evaluation import score_now
from ..case import Case
from ..finding import Finding
from ..references import torch_model
from ..references import torch_reader as torch_reader

TOLERANCE = 1e-3  # nats per token; everything is written in float32
FEW_TOKENS = 4  # llama.cpp is asked about: it may have to list the whole vocabulary for each

Rows = Sequence[Encoded]
Measure = Callable[[Rows], float]  # rows -> nats per supervised token


def exports(case: Case) -> list[Finding]:
    """The adapters act: their B matrices are not zero, so one that is lost shows."""
    case.put(case.filled)
    findings = []
    with tempfile.TemporaryDirectory() as scratch:
        for what, rows, measure in _kinds(case, Path(scratch)):
            try:
                with torch_model.quiet():
                    there = measure(rows)
            except (UnsupportedArchitecture, NotHere) as reason:
                findings.append(_finding(what, None, str(reason)))
            else:
                here = _here(case, rows)
                evidence = f"{there:.5f} there, {here:.5f} in the live model."
                findings.append(_finding(what, abs(here - there), evidence))
    case.put(case.start)
    return findings


class NotHere(Exception):
    """A program that is not installed."""


def _finding(what: str, measured: float | None, evidence: str) -> Finding:
    return Finding(stage="exports", what=what, measured=measured, tolerance=TOLERANCE, unit="nats", evidence=evidence)


def _here(case: Case, rows: Rows) -> float:
    loaded = case.adapted
    return score_now(loaded.module, loaded.family, rows, batch_size=1, max_seq_length=case.max_seq_length).loss


def _kinds(case: Case, folder: Path) -> Iterator[tuple[str, Rows, Measure]]:
    """(what it is and who reads it, the rows it is asked about, how); later ones use files of earlier ones."""
    loaded, base, rows = case.adapted, case.bare.folder, case.sample

    def adapters_in_mlx_lm(rows: Rows) -> float:
        return _loss_in(mlx_lm_reader, rows, base, save_lora(loaded, folder / "mlx", "mlx"))

    def adapters_in_peft(rows: Rows) -> float:
        return _loss_in(torch_reader, rows, base, save_lora(loaded, folder / "peft", "peft"))

    def merged_in_mlx_lm(rows: Rows) -> float:
        return _loss_in(mlx_lm_reader, rows, save_merged(loaded, folder / "merged", mx.float32))

    def merged_in_transformers(rows: Rows) -> float:
        return _loss_in(torch_reader, rows, folder / "merged")

    def gguf_in_llama_cpp(rows: Rows) -> float:
        if not llama_cpp.is_installed():
            raise NotHere("llama.cpp is not installed here: pip install xllamacpp.")
        [written] = save_gguf(loaded, folder, ["f32"], folder / "on-the-way")
        places = [(np.flatnonzero(row.loss_mask[1:]) + 1).tolist() for row in rows]
        found = [
            llama_cpp.target_log_probs(written.path, row.tokens.tolist(), some)
            for row, some in zip(rows, places, strict=True)
        ]
        return -float(np.concatenate(found).mean())

    yield "adapters, read by mlx-lm", rows, adapters_in_mlx_lm
    yield "adapters in PEFT's format, read by PEFT", rows, adapters_in_peft
    yield "merged weights, read by mlx-lm", rows, merged_in_mlx_lm
    yield "merged weights, read by transformers", rows, merged_in_transformers
    yield "GGUF in f32, read by llama.cpp", [_few_tokens(rows[0])], gguf_in_llama_cpp


def _loss_in(program: ModuleType, rows: Rows, model: Path, adapter: Path | None = None) -> float:
    """Nats per supervised token in what a `reader` module opens, in this process."""
    question = mlx_lm_reader.Question(
        model=str(model), adapter=None if adapter is None else str(adapter), rows=[], texts=[]
    )
    module, _ = program.open_model(question)
    found = [program.log_probs(module, row.tokens)[row.loss_mask[1:]] for row in rows]
    return -float(np.concatenate(found).mean())


def _few_tokens(row: Encoded) -> Encoded:
    """A row of whose supervised tokens only the first few still are."""
    places = np.flatnonzero(row.loss_mask[1:])[:FEW_TOKENS] + 1
    return replace(row, loss_mask=np.isin(np.arange(len(row.tokens)), places))
