"""Where a model's trunk ends and its output head begins, so that logits are made for a few positions only.

mlx-lm's models do not promise that the two can be called apart. Two ways to send hidden states through the head are
tried, and the one that is used was proven on a probe.
"""

from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn

from ..layer_calls import replaced_calls

Head = Callable[[nn.Module, mx.array], mx.array]  # (module, hidden (..., D)) -> logits (..., V)


def find_head(module: nn.Module) -> Head | None:
    """How hidden states become the model's logits; None when neither way gives what the whole model does."""
    language = language_model(module)
    if "model" not in language or "embed_tokens" not in language["model"]:
        return None
    tokens = mx.arange(1, 9)[None]  # (1, 8)
    whole, states = module(tokens), language["model"](tokens)
    for head in (projection, rest_of_the_model):
        logits = head(module, states)
        if logits.shape == whole.shape and mx.allclose(logits, whole, rtol=1e-3, atol=1e-3):
            return head
    return None


def language_model(module: nn.Module) -> nn.Module:
    """What holds the trunk as `model` and the head: the module, or the one inside a model that has other parts too."""
    return module.get("language_model", module)


def head_layer(module: nn.Module) -> nn.Module:
    """The layer with the output projection's weights: the head where there is one, else the embedding."""
    language = language_model(module)
    return language["lm_head"] if "lm_head" in language else language["model"]["embed_tokens"]


def projection(module: nn.Module, hidden: mx.array) -> mx.array:
    """(..., V) logits of hidden states (..., D), by the model's own output layer or, without one, its embedding."""
    language = language_model(module)
    return language["lm_head"](hidden) if "lm_head" in language else language["model"]["embed_tokens"].as_linear(hidden)


def rest_of_the_model(module: nn.Module, hidden: mx.array) -> mx.array:
    """What the whole model does behind its trunk: its scale or cap on logits too (Gemma 2, Cohere, Granite)."""
    states = hidden.reshape(1, -1, hidden.shape[-1])
    with replaced_calls([language_model(module)["model"]], lambda _plain: lambda *_args, **_options: states):
        logits = module(mx.zeros((1, 1), mx.int32))  # (1, N, V); the trunk does not look at the tokens
    return logits.reshape(*hidden.shape[:-1], -1)
