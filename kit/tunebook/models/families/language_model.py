"""The language model inside an mlx-vlm model: text and image features in, states out, and the head they go through.

mlx-vlm's own call of the whole model hands the padding mask to the attention, where it takes the place of the causal
one (0.7.10; Gemma 3, SmolVLM, Idefics 3 then see the answer they are to predict). Here the embeddings are made first,
and the language model is called with them and no mask, or with one that is causal.
"""

from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn

from ...data.encoded import Batch
from ..layer_calls import Call, Wrap, replaced_calls
from .head import projection
from .image_mask import image_mask
from .quirks import Quirks

# Of what `get_input_embeddings` gives, not for the language model: a mask that is not causal, and what goes by itself.
_NOT_PASSED_ON = ("inputs_embeds", "attention_mask_4d")
OURS = ("tokens", "loss_mask", "attention_mask", "pixel_values")  # keys of a batch; the others are the processor's


def mend_config(module: nn.Module) -> dict[str, int]:
    """Set right, in place, two numbers of Gemma 3's config that shape its embeddings (mlx_vlm/models/gemma3, 0.7.10).

    Released checkpoints leave `hidden_size` out, and 2048 is taken for it, whatever the text's width is. With images in
    the batch the padding token's embedding is replaced by zeros; where that token ends a turn too, the end is lost.
    Returned is what a config.json must say for mlx-vlm to read the model right.
    """
    config = cast("Any", module).config
    config.hidden_size = config.text_config.hidden_size
    config.pad_token_id = -1  # no token; padding stands on the right, where its embedding is seen by nothing
    return {"hidden_size": config.hidden_size}


def features(module: nn.Module, batch: Batch) -> dict[str, Any]:
    """What the language model is to be called with for a batch: embeddings, positions, and what else a family has."""
    extras = {key: value for key, value in batch.items() if key not in OURS}
    embed = cast("Any", module).get_input_embeddings  # every mlx-vlm model has it; nn.Module declares nothing
    made = embed(batch["tokens"], batch.get("pixel_values"), mask=batch["attention_mask"], **extras).to_dict()
    passed = {key: value for key, value in made.items() if value is not None and key not in _NOT_PASSED_ON}
    return {"inputs_embeds": made["inputs_embeds"], **passed}


def called(
    module: nn.Module, tokens: mx.array, given: dict[str, Any], image_id: int, quirks: Quirks, cache: Any = None
) -> mx.array:
    """(B, T, V) logits of (B, T) tokens whose features are `given`."""
    language = module["language_model"]
    given = {**given, "inputs_embeds": mx.array(given["inputs_embeds"])}  # a copy: Gemma 3 scales it in place
    if quirks.widens_to_its_norm:
        with replaced_calls([cast("Any", module).layers[0]], _in_type(given["inputs_embeds"].dtype)):
            return language(tokens, mask=None, cache=cache, **given).logits
    if not (quirks.sees_images_whole and (tokens == image_id).any()):
        return language(tokens, mask=None, cache=cache, **given).logits
    is_image = tokens == image_id
    sliding = [layer for layer in cast("Any", module).layers if layer.self_attn.is_sliding]
    with replaced_calls(sliding, _with_mask(image_mask(is_image, language["model"].window_size))):
        return language(tokens, mask=image_mask(is_image), cache=cache, **given).logits


def states(
    module: nn.Module, tokens: mx.array, given: dict[str, Any], image_id: int, quirks: Quirks, cache: Any = None
) -> mx.array:
    """(B, T, D): what the head is given, found without computing a logit."""
    language = module["language_model"]
    if "lm_head" in language:
        with replaced_calls([language["lm_head"]], _passing_on):
            return called(module, tokens, given, image_id, quirks, cache)
    heard: list[mx.array] = []

    def overheard(plain: Call) -> Call:
        def call(layer: nn.Module, *args: Any, **kwargs: Any) -> mx.array:
            heard.append(plain(layer, *args, **kwargs))
            return heard[-1]

        return call

    with replaced_calls([language["model"]], overheard):
        called(module, tokens, given, image_id, quirks, cache)  # its logits are never asked for, so never computed
    return heard[-1]


def logits(module: nn.Module, tokens: mx.array) -> mx.array:
    """(B, T, V) of (B, T) tokens of text alone."""
    given = features(module, {"tokens": tokens, "attention_mask": mx.ones_like(tokens)})
    return called(module, tokens, given, -1, Quirks())


def has_head(module: nn.Module) -> bool:
    """Whether `head.projection` of `states` gives what the whole language model does."""
    language = module["language_model"]
    if "lm_head" not in language and not ("model" in language and "embed_tokens" in language["model"]):
        return False
    tokens = mx.arange(1, 9)[None]  # (1, 8)
    given = features(module, {"tokens": tokens, "attention_mask": mx.ones_like(tokens)})
    whole = logits(module, tokens)
    apart = projection(module, states(module, tokens, given, -1, Quirks()))
    return apart.shape == whole.shape and bool(mx.allclose(apart, whole, rtol=1e-3, atol=1e-3))


def _passing_on(_: Call) -> Call:
    return lambda _layer, states: states


def _in_type(dtype: mx.Dtype) -> Wrap:
    return lambda plain: lambda layer, x, *args, **kwargs: plain(layer, x.astype(dtype), *args, **kwargs)


def _with_mask(mask: mx.array) -> Wrap:
    return lambda plain: lambda layer, x, _mask, cache: plain(layer, x, mask, cache)
