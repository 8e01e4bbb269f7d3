"""A fresh process that opens a model folder with stock mlx-vlm and says what loss it gives some rows with images.

`python -m tunebook.export.vision_reader MODEL ROWS.npz [--adapter FOLDER]`: the twin of `tunebook.export.reader`. The
weights are found, named and put in place by mlx-vlm alone; the language model is called as `families.language` does,
for mlx-vlm's own call of some families lets a token see the ones after it.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from .. import runtime  # first: it loads the fast BLAS that MLX then finds
from .reader import answer, is_for_mlx_lm

Arrays = dict[str, np.ndarray]  # of one row's batch


def batches(file: Any) -> list[Arrays]:
    """The batches in an .npz of `NAME_0`, `NAME_1`, ...: one for each row."""
    made: dict[int, Arrays] = {}
    for key in file.files:
        name, _, index = key.rpartition("_")
        made.setdefault(int(index), {})[name] = file[key]
    return [made[index] for index in sorted(made)]


def measure(model: str, adapter: str | None, rows: list[Arrays]) -> tuple[float, int]:
    """(nats per supervised token, supervised tokens) of rows, one at a time."""
    import mlx.core as mx
    import mlx.nn as nn
    from mlx_vlm.utils import load_model

    from ..adapters import load_adapters
    from ..families.language import called, features
    from ..families.media import image_id_of
    from ..families.quirks import quirks_of
    from ..tensors import number

    config = json.loads((Path(model) / "config.json").read_text())
    quirks, image_id = quirks_of(config["model_type"]), image_id_of(config)
    image_id = -1 if image_id is None else image_id  # it is looked at by families of the table alone, and theirs say it
    module = load_model(Path(model))
    if adapter is not None and is_for_mlx_lm(Path(adapter)):
        from mlx_vlm.trainer.peft.utils import load_adapters as load_stock_adapters

        module = load_stock_adapters(module, adapter)
    elif adapter is not None:
        load_adapters(module, adapter, quirks.transformers_names)
    module.eval()
    if runtime.backend() == "cpu":
        module.set_dtype(mx.float32)
    nats, count = 0.0, 0
    for arrays in rows:
        batch = {name: mx.array(array) for name, array in arrays.items()}
        tokens, mask = batch["tokens"], batch["loss_mask"]
        logits = called(module, tokens, features(module, batch), image_id, quirks)[0, :-1].astype(mx.float32)
        each = nn.losses.cross_entropy(logits, tokens[0, 1:])  # (T-1,)
        nats += number((each * mask[0, 1:]).sum())
        count += int(number(mask[0, 1:].sum()))
    return nats / count, count


if __name__ == "__main__":
    answer(measure, batches)
