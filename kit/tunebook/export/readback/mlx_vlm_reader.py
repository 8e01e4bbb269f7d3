"""A fresh process that opens a model folder with stock mlx-vlm and says what loss it gives some rows with images.

`python -m tunebook.export.readback.mlx_vlm_reader QUESTION.json`: the twin of `mlx_lm_reader`. The weights are found,
named and put in place by mlx-vlm alone; the language model is called as `models/families/language_model.py` does, for
mlx-vlm's own call of some families lets a token see the ones after it.
"""

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...machine import runtime  # first: it loads the fast BLAS that MLX then finds
from ...machine.without_torch import torch_unseen
from .mlx_lm_reader import Answer, is_for_mlx_lm


@dataclass(frozen=True, kw_only=True)
class VisionQuestion:
    """What the process is asked; it travels as a file of JSON."""

    model: str  # a model folder
    adapter: str | None = None  # a folder of adapters to put on it
    bits: int | None = None  # quantize its language model first, as `load_in_4bit` does
    trust_remote_code: bool = False  # whether Python in the model's folder may run
    batches: str  # an .npz with the arrays of one batch for each row, `NAME_0`, `NAME_1`, ...

    def save(self, path: Path) -> None:
        """Write it for the process to read."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")


def main() -> None:
    """Read the question, answer it, print the answer as JSON."""
    import mlx.core as mx
    import mlx.nn as nn

    from ...models.families.language_model import called, features
    from ...models.families.placeholders import image_id_of
    from ...models.families.quirks import quirks_of
    from ...models.tensors import number

    question = VisionQuestion(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    config = json.loads((Path(question.model) / "config.json").read_text())
    quirks, image_id = quirks_of(config["model_type"]), image_id_of(config)
    module = open_model(question)
    nats, supervised, read, began = 0.0, 0, 0, time.perf_counter()
    for arrays in _batches(question.batches):
        batch = {name: mx.array(array) for name, array in arrays.items()}
        tokens, mask = batch["tokens"], batch["loss_mask"][0, 1:]
        # The families that look at the image's token are in the table, and their configs name it.
        known = -1 if image_id is None else image_id
        logits = called(module, tokens, features(module, batch), known, quirks)[0, :-1].astype(mx.float32)
        nats += number((nn.losses.cross_entropy(logits, tokens[0, 1:]) * mask).sum())
        supervised += int(number(mask.sum()))
        read += tokens.size
    seconds = time.perf_counter() - began
    print(json.dumps(asdict(Answer(loss=nats / supervised, tokens_sec=read / seconds, ids=[], rendered=None))))


def open_model(question: VisionQuestion) -> Any:
    """The module, by mlx-vlm; what `batches` say is not looked at."""
    import mlx.core as mx
    from mlx_lm.utils import quantize_model
    from mlx_vlm.trainer.peft.utils import load_adapters as stock_load_adapters
    from mlx_vlm.utils import load_model

    from ...model_files.checkpoint_config import translated
    from ...model_files.trusted import openable, read_settings
    from ...models.adapters import load_adapters
    from ...models.families.quirks import is_of_language, quirks_of
    from ...models.vision_names import open_vision_model

    trusts = question.trust_remote_code
    folder = Path(question.model)
    config = None if question.adapter is None else translated(read_settings(folder / "config.json"), "mlx-vlm")
    shown = openable(folder, trust_remote_code=trusts, config=config)
    if question.adapter is None:
        module = load_model(shown, trust_remote_code=trusts)
    else:
        module = open_vision_model(shown, trust_remote_code=trusts)
    if runtime.backend() == "cpu":
        module.set_dtype(mx.float32)
    if question.bits is not None:
        module, _ = quantize_model(module, {}, group_size=64, bits=question.bits, quant_predicate=is_of_language)
    if question.adapter is not None and is_for_mlx_lm(Path(question.adapter)):
        module = stock_load_adapters(module, question.adapter)
    elif question.adapter is not None:
        names = quirks_of(read_settings(folder / "config.json")["model_type"]).transformers_names
        load_adapters(module, question.adapter, names)
    return module.eval()


def _batches(path: str) -> list[dict[str, np.ndarray]]:
    made: dict[int, dict[str, np.ndarray]] = {}
    with np.load(path) as file:
        for key in file.files:
            name, _, index = key.rpartition("_")
            made.setdefault(int(index), {})[name] = file[key]
    return [made[index] for index in sorted(made)]


if __name__ == "__main__":
    with torch_unseen():
        main()
