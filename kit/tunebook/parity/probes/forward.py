"""Forward pass: logits at equal dtype, and what the loss of each token is."""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ...models.layer_calls import Call, replaced_calls
from ...models.layers import layers_of
from ...models.tensors import number
from ...objectives.next_token import supervised_positions
from ..case import Case
from ..finding import Finding
from ..references import torch_model

LOGITS, NATS = 1e-3, 1e-3  # float32 on both sides; SmolLM2's logits differ by about 1e-4
LAYER = 1e-3  # of the largest state behind a layer


def logits(case: Case) -> list[Finding]:
    """The largest difference of two logits of one token, and the layer from which on the states differ."""
    worst, at = 0.0, ""
    for row, (ours, theirs) in zip(case.sample, case.logits, strict=True):
        if ours.shape != theirs.shape:
            worst, at = np.inf, f"The shapes are {ours.shape} here and {theirs.shape} there."
            break
        differences = np.abs(ours - theirs)
        position, entry = np.unravel_index(differences.argmax(), differences.shape)
        if not differences[position, entry] <= worst:
            worst = float(differences[position, entry])
            at = f"Largest behind {case.token(row, int(position))}, for the id {entry}."
    if not worst <= LOGITS:
        at += f" {_first_layer(case)}"
    return [
        Finding(
            stage="logits",
            what="logits in float32, here and in transformers",
            measured=worst,
            tolerance=LOGITS,
            unit="",
            evidence=at,
        )
    ]


def token_losses(case: Case) -> list[Finding]:
    """The loss of each supervised token by itself, and whether they add up to the loss that is trained on."""
    worst, at, decomposed = 0.0, "", []
    for row, (ours, theirs) in zip(case.sample, case.logits, strict=True):
        places = np.flatnonzero(row.loss_mask[1:])
        here, there = (_nats(values, row.tokens[1:])[places] for values in (ours, theirs))
        differences = np.abs(here - there)
        if not differences.max() <= worst:
            worst = float(differences.max())
            at = f"Largest at {case.token(row, int(places[differences.argmax()]) + 1)}."
        batch = case.bare.family.collate([row], case.procedure.width(len(row.tokens), case.max_seq_length))
        loss = case.procedure.loss(case.bare.family)
        trained_on = number(loss(case.bare.module, batch, supervised_positions(batch)))
        off = abs(trained_on - here.sum()) / len(places)
        if not off <= worst:
            worst = float(off)
            at = f"The tokens of row {row.number} add up to {here.sum():.5f} and the loss is {trained_on:.5f}."
        decomposed.append({"row": row.number, "here": here.tolist(), "there": there.tolist()})
    return [
        Finding(
            stage="token losses",
            what="nats of each supervised token",
            measured=worst,
            tolerance=NATS,
            unit="nats",
            evidence=at,
            numbers={"rows": decomposed},
        )
    ]


def _nats(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(T,) of logits (T, V), in float64."""
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=-1, keepdims=True)
    return np.log(np.exp(wide).sum(axis=-1)) - wide[np.arange(len(targets)), targets]


def _first_layer(case: Case) -> str:
    row = case.sample[0]
    with case.theirs.disable_adapter():
        theirs = torch_model.layer_states(case.theirs, row.tokens)
    ours = _layer_states(case.bare.module, row.tokens)
    for layer, (here, there) in enumerate(zip(ours, theirs, strict=False)):
        if not np.abs(here - there).max() <= LAYER * np.abs(there).max():
            return f"The first layer whose output differs is {layer} of {len(theirs)}."
    return "All layers agree, so the final norm or the output head differs."


def _layer_states(module: nn.Module, tokens: np.ndarray) -> list[np.ndarray]:
    """(T, D) of tokens (T,), behind each decoder layer."""
    recorded: list[mx.array] = []

    def recording(plain: Call) -> Call:
        def call(layer: nn.Module, *args: Any, **options: Any) -> Any:
            output = plain(layer, *args, **options)
            recorded.append(output[0] if isinstance(output, tuple) else output)
            return output

        return call

    with replaced_calls(layers_of(module), recording):
        module(mx.array(tokens[None]))
    return [np.array(state.reshape(-1, state.shape[-1]).astype(mx.float32)) for state in recorded]
