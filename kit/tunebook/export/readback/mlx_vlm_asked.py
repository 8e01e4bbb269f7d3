"""A fresh process that opens a model folder with stock mlx-vlm and replies to what `asking.py` asks of it.

`python -m tunebook.export.readback.mlx_vlm_asked`: the twin of `mlx_lm_asked.py`. Answers are written by mlx-vlm's own
`stream_generate`, and likelihoods read by the very calls that it begins an answer with, so that both are those of a
program that uses it.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...machine.without_torch import torch_unseen
from .mlx_lm_asked import reply_to_all, summed
from .mlx_vlm_reader import VisionQuestion, open_model


def open_asked(path: str, adapter: str | None) -> tuple[Any, Any]:
    """(model, processor), as mlx-vlm's `load` puts them together."""
    from mlx_vlm.utils import load_processor

    model = open_model(VisionQuestion(model=path, adapter=adapter, batches=""))
    ends = vars(model.config).get("eos_token_id")
    return model, load_processor(Path(path), True, eos_token_ids=ends, trust_remote_code=False)


def replies(model: Any, processor: Any, asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A reply to every text, prompt and row, in this order."""
    arrays = _arrays(asked["arrays"])
    for text, _ in asked["texts"]:
        yield {"ids": _ids(model, processor, text, arrays)}
    for ids in asked["prompts"]:
        yield _written(model, processor, _given(ids, arrays), asked["max_tokens"], asked["stop"])
    for row in asked["rows"]:
        tokens, positions = np.array(row["tokens"], np.int32), np.array(row["positions"])
        yield summed(_logits(model, _given(row["tokens"], arrays))[0, :-1], tokens, positions)


def _ids(model: Any, processor: Any, text: str, images: dict[str, np.ndarray]) -> list[int]:
    """What mlx-vlm makes of a prompt and its images (mlx_vlm/generate/dispatch.py, 0.7.10)."""
    from mlx_vlm.utils import prepare_inputs, should_add_special_tokens
    from PIL import Image

    shown = [Image.fromarray(images[name]) for name in sorted(images, key=int)]
    opens = should_add_special_tokens(model.config.model_type, processor)
    made = prepare_inputs(processor, images=shown or None, prompts=text, add_special_tokens=opens)
    return np.array(made["input_ids"]).reshape(-1).tolist()


def _written(model: Any, processor: Any, given: dict[str, Any], most: int, stop: list[str]) -> dict[str, Any]:
    from mlx_vlm.generate import stream_generate

    tokens, text = [], ""
    # Left to itself it draws as the folder's generation_config.json says.
    for said in stream_generate(model, processor, "", max_tokens=most, temperature=0.0, **given):
        if said.finish_reason is not None:  # the last token once more, or the one that ends it
            return {"tokens": tokens, "ended": said.finish_reason == "stop"}
        tokens.append(said.token)
        text += said.text
        if any(one in text for one in stop):
            return {"tokens": tokens, "ended": True}
    return {"tokens": tokens, "ended": False}


def _logits(model: Any, given: dict[str, Any]) -> Any:
    """(1, T, V), by the calls of its `generate_step` (mlx_vlm/generate/ar.py, 0.7.10)."""
    from mlx_vlm.models.cache import make_prompt_cache

    tokens, pixels, mask, beside = given["input_ids"], given["pixel_values"], given["mask"], _beside(given)
    made = model.get_input_embeddings(tokens, pixels, mask=mask, **beside).to_dict()
    beside |= {name: value for name, value in made.items() if value is not None}
    return model.language_model(tokens, cache=make_prompt_cache(model.language_model), **beside).logits


def _given(ids: list[int], arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """What its `prepare_inputs` gives for a prompt of these ids whose images are `arrays`."""
    import mlx.core as mx

    tokens = mx.array(np.array(ids, np.int32)[None])  # (1, T)
    made = {name: mx.array(array) for name, array in arrays.items()}
    return {"pixel_values": None, **made, "input_ids": tokens, "mask": mx.ones_like(tokens)}


def _beside(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name not in ("input_ids", "pixel_values", "mask")}


def _arrays(path: str | None) -> dict[str, np.ndarray]:
    if path is None:
        return {}
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


if __name__ == "__main__":
    with torch_unseen():
        reply_to_all(open_asked, replies)
