"""What rounding the weights costs: MLX's 8 and 4 bits, and NF4 as bitsandbytes has it, done here and in torch."""

import io
from contextlib import redirect_stdout

import mlx.core as mx
import numpy as np
import torch
from mlx_lm.utils import dequantize_model, quantize_model

from ...models.loaded import Loaded
from ...models.tensors import flat
from ...train.evaluation import score_now
from ..case import Case
from ..finding import Finding
from ..references import torch_model
from ..references.nf4 import BLOCK, LEVELS, nf4_dense

BITS = (8, 4)
GROUP = 64  # weights that share a scale
STEPS = 1.1  # MLX's own way of choosing a scale clips the far end of a group by up to a step
NF4 = 1e-3  # nats per token, between two programs that round alike


def affine(case: Case) -> list[Finding]:
    """No weight may be further off than a step of its group is wide; what that costs in loss is the model's affair."""
    exact = _loss(case, case.bare)
    weights = flat(case.bare.module.parameters())
    findings = []
    for bits in BITS:
        rounded = case.procedure.load(case.name, case.max_seq_length)
        with redirect_stdout(io.StringIO()):  # mlx-lm prints
            dequantize_model(quantize_model(rounded.module, dict(rounded.config), group_size=GROUP, bits=bits)[0])
        after = flat(rounded.module.parameters())
        steps = {name: _steps(weights[name], array, bits) for name, array in after.items() if array.ndim == 2}
        widest = max(steps, key=lambda name: steps[name])
        off, name = _worst(weights, after)
        loss = _loss(case, rounded)
        findings.append(
            Finding(
                stage="quantization",
                what=f"weights in {bits} bits and in float32",
                measured=steps[widest],
                tolerance=STEPS,
                unit="steps",
                evidence=f"Most in {widest}; {name} is off by {off:.2%} of its norm, and the loss {loss:.4f} after "
                f"{exact:.4f}.",
                numbers={"loss": loss, "exact": exact},
            )
        )
    return findings


def nf4(case: Case) -> list[Finding]:
    """The loss with NF4 weights, rounded by MLX here and by torch there."""
    _ = case.start
    weights = flat(case.bare.module.parameters())
    rounded = case.procedure.load(case.name, case.max_seq_length)
    names = set(nf4_dense(rounded.module))
    off, name = _worst(weights, flat(rounded.module.parameters()))
    here, exact = _loss(case, rounded), _loss(case, case.bare)

    def change(name: str, array: np.ndarray) -> np.ndarray | None:
        return nf4_by_torch(array) if name in names else None

    with torch_model.with_weights(case.theirs, change), case.theirs.disable_adapter(), torch.no_grad():
        there = torch_model.loss_of(case.theirs, case.sample).item()
    return [
        Finding(
            stage="quantization",
            what="loss with NF4 weights, here and in torch",
            measured=abs(here - there),
            tolerance=NF4,
            unit="nats",
            evidence=f"{here:.5f} here, {there:.5f} there, {exact:.5f} in float32; {name} is off most, by {off:.2%}.",
        )
    ]


def nf4_by_torch(weight: np.ndarray) -> np.ndarray:
    """A weight through NF4 by the definition: of every number, the level it is nearest to."""
    numbers = torch.tensor(weight.reshape(-1).astype(np.float32))
    pieces = []
    for block in numbers.split(BLOCK * 1024):
        padded = torch.nn.functional.pad(block, (0, -len(block) % BLOCK)).reshape(-1, BLOCK)
        largest = padded.abs().amax(dim=1, keepdim=True)
        scaled = torch.nan_to_num(padded / largest)
        levels = torch.tensor(LEVELS)
        nearest = (scaled[..., None] - levels).abs().argmin(dim=-1)
        pieces.append((levels[nearest] * largest).reshape(-1)[: len(block)])
    return torch.cat(pieces).reshape(weight.shape).numpy()


def _steps(exact: mx.array, rounded: mx.array, bits: int) -> float:
    """The largest error of a matrix, in steps: the range of a group over the numbers that `bits` bits tell apart."""
    groups = np.array(exact).reshape(-1, GROUP)
    step = (groups.max(axis=1) - groups.min(axis=1)) / (2**bits - 1)
    errors = np.abs(np.array(rounded).reshape(-1, GROUP) - groups).max(axis=1)
    return float((errors / np.where(step == 0, 1.0, step)).max())


def _worst(exact: dict[str, mx.array], rounded: dict[str, mx.array]) -> tuple[float, str]:
    """(the norm of the error over the norm, the name) of the tensor where that is largest."""
    off = {
        name: float(np.linalg.norm(np.array(array - exact[name])) / np.linalg.norm(np.array(exact[name])))
        for name, array in rounded.items()
        if name in exact
    }
    worst = max(off, key=lambda name: off[name])
    return off[worst], worst


def _loss(case: Case, loaded: Loaded) -> float:
    return score_now(loaded.module, loaded.family, case.sample, batch_size=1, max_seq_length=case.max_seq_length).loss
