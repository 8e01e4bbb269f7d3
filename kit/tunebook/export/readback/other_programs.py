"""An export, opened by another program: stock mlx-lm or mlx-vlm, transformers and PEFT, or llama.cpp, each in a process
of its own.

What comes back is what that program found: the loss it gives some rows, and the ids it makes of their text. Nothing is
judged here.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ...data.encoded import Encoded
from ...data.examples import Example
from ...data.formats import render_prompt
from ...gguf import read_gguf
from ...machine.working import working_folder
from ...models.families.base import Library
from ...models.loaded import Loaded
from . import llama_cpp
from .bos import without_bos, without_opening_spaces
from .mlx_lm_reader import Answer, Question, is_for_mlx_lm
from .mlx_vlm_reader import VisionQuestion

Reader = Literal["mlx-lm", "mlx-vlm", "transformers", "llama.cpp", "tunebook"]


@dataclass(frozen=True, kw_only=True)
class There:
    """What the other program found."""

    program: str  # its name and version
    loss: float  # nats per supervised token
    alike: list[bool]  # per text: whether it is the same ids there as here; last, where there is one, a chat prompt
    tokens_sec: float | None = None  # read in one pass, the first; None: it was asked token by token
    note: str | None = None  # what the comparison could not keep the same


def readers_of(path: Path, library: Library = "mlx-lm") -> tuple[Reader, ...]:
    """Who opens the export at `path` of a model of `library`, the one it is meant for first.

    Raises FileNotFoundError for what is no export.
    """
    if path.suffix == ".gguf" and path.is_file():
        return "llama.cpp", "tunebook"
    if library == "mlx-vlm" and any((path / name).is_file() for name in ("adapter_config.json", "config.json")):
        is_for_others = (path / "config.json").is_file() or is_for_mlx_lm(path)
        return ("mlx-vlm",) if is_for_others else ("tunebook",)
    if (path / "adapter_config.json").is_file():
        if "peft_type" in json.loads((path / "adapter_config.json").read_text()):
            return "transformers", "tunebook"
        return ("mlx-lm",) if is_for_mlx_lm(path) else ("tunebook",)
    if (path / "config.json").is_file():
        return ("mlx-lm",) if "quantization" in config_of(path) else ("mlx-lm", "transformers")
    raise FileNotFoundError(f"{path} is no export: neither a .gguf file, nor a folder of adapters or of a model.")


def is_installed(reader: Reader) -> bool:
    """Whether a program can be asked; mlx-lm and our own reader always can."""
    match reader:
        case "llama.cpp":
            return llama_cpp.is_installed()
        case "transformers":
            return all(find_spec(name) for name in ("torch", "transformers", "peft"))
        case _:
            return True


def config_of(folder: Path) -> dict[str, Any]:
    """The config.json of a model folder."""
    return json.loads((folder / "config.json").read_text())


def read_elsewhere(path: Path, reader: Reader, loaded: Loaded, rows: Sequence[Encoded], texts: list[Example]) -> There:
    """Ask `reader` about `rows`, and have it tokenize `texts`. Raises RuntimeError when it cannot open the export."""
    if loaded.family.library == "mlx-vlm":
        return _read_images(path, reader, loaded, rows)
    if path.suffix != ".gguf":
        return _read_folder(path, reader, loaded, rows, texts)
    if reader == "tunebook":
        with working_folder("read-back") as scratch:
            folder = read_gguf(path, scratch / "model")
            return _read_folder(folder, reader, loaded, rows, texts, program=f"our reader and {_mlx_lm()}")
    log_probs = [llama_cpp.target_log_probs(path, row.tokens.tolist(), _targets(row)) for row in rows]
    bare = [without_bos(example.text, loaded.tokenizer) for example in texts]
    given = [without_opening_spaces(text, loaded.tokenizer) for text in bare]
    ids = llama_cpp.tokenize_all(path, given) if given else []
    return There(
        program=f"llama.cpp (xllamacpp {version('xllamacpp')})",
        loss=-float(np.mean(np.concatenate(log_probs))),
        alike=[found == loaded.tokenizer.encode(text) for found, text in zip(ids, bare, strict=True)],
    )


def _read_folder(
    path: Path, reader: Reader, loaded: Loaded, rows: Sequence[Encoded], texts: list[Example], program: str = ""
) -> There:
    """A model's folder, or one of adapters, in a fresh process."""
    is_adapter = (path / "adapter_config.json").exists()
    bits = _bits_of_loading(loaded) if is_adapter else None
    # Adapters bring no chat template; that of the base model may not be the one in use.
    renders = loaded.tokenizer.has_chat_template and not is_adapter
    question = Question(
        model=str(loaded.folder if is_adapter else path),
        adapter=str(path) if is_adapter else None,
        bits=bits,
        trust_remote_code=loaded.trust_remote_code,
        rows=[{"tokens": row.tokens.tolist(), "mask": row.loss_mask.astype(int).tolist()} for row in rows],
        texts=[(example.text, not example.rendered) for example in texts],
        messages=[{"role": "user", "content": "Who was Ada?"}] if renders else None,
    )
    answer = _ask(
        "tunebook.parity.references.torch_reader"
        if reader == "transformers"
        else "tunebook.export.readback.mlx_lm_reader",
        question,
    )
    here = [loaded.tokenizer.encode(text, add_special_tokens=opens) for text, opens in question.texts]
    alike = [one == other for one, other in zip(answer.ids, here, strict=True)]
    if question.messages is not None:
        alike.append(answer.rendered == render_prompt(question.messages, loaded.tokenizer).text)
    note = None
    if bits is not None and reader == "transformers":
        note = f"Here the base model is held in {bits} bits; transformers put the adapters on it as it was before."
    return There(
        program=program or _program(reader, is_adapter),
        loss=answer.loss,
        alike=alike,
        tokens_sec=answer.tokens_sec,
        note=note,
    )


def _read_images(path: Path, reader: Reader, loaded: Loaded, rows: Sequence[Encoded]) -> There:
    """A folder of a model that reads images, shown the very pixels that are seen here."""
    is_adapter = (path / "adapter_config.json").exists()
    with working_folder("read-back") as scratch:
        file = scratch / "batches.npz"
        batches = enumerate(loaded.family.collate([row], len(row.tokens)) for row in rows)
        arrays = {f"{name}_{index}": np.array(array) for index, batch in batches for name, array in batch.items()}
        np.savez(file, allow_pickle=False, **arrays)
        question = VisionQuestion(
            model=str(loaded.folder if is_adapter else path),
            adapter=str(path) if is_adapter else None,
            bits=_bits_of_loading(loaded) if is_adapter else None,
            trust_remote_code=loaded.trust_remote_code,
            batches=str(file),
        )
        answer = _ask("tunebook.export.readback.mlx_vlm_reader", question)
    program = f"mlx-vlm {version('mlx-vlm')}"
    return There(
        program=program if reader == "mlx-vlm" else f"tunebook on {program}",
        loss=answer.loss,
        alike=[],
        tokens_sec=answer.tokens_sec,
    )


def _bits_of_loading(loaded: Loaded) -> int | None:
    """The bits a model was quantized to when it was loaded; None for one that is as its folder has it."""
    return None if "quantization" in config_of(loaded.folder) else loaded.config.get("quantization", {}).get("bits")


def _program(reader: Reader, is_adapter: bool) -> str:
    if reader == "transformers":
        peft = f"PEFT {version('peft')} and " if is_adapter else ""
        return f"{peft}transformers {version('transformers')}"
    return _mlx_lm() if reader == "mlx-lm" else f"tunebook on {_mlx_lm()}"


def _mlx_lm() -> str:
    return f"mlx-lm {version('mlx-lm')}"


def _targets(row: Encoded) -> list[int]:
    """Positions of the supervised tokens; the first token is predicted from nothing."""
    return [position for position in np.flatnonzero(row.loss_mask).tolist() if position > 0]


def _ask(reader: str, question: Question | VisionQuestion) -> Answer:
    """Raises RuntimeError with the child's own words when it cannot open the export."""
    with working_folder("read-back") as scratch:
        file = scratch / "question.json"
        question.save(file)
        # -P: Python files in the folder one happens to stand in, a model's perhaps, are not to be imported.
        command = [sys.executable, "-P", "-m", reader, str(file)]
        child = subprocess.run(command, capture_output=True, text=True, check=False)
    if child.returncode:
        raise RuntimeError(
            f"{reader} could not open {question.adapter or question.model}:\n{child.stderr.strip()[-2000:]}"
        )
    return Answer(**json.loads(child.stdout.splitlines()[-1]))
