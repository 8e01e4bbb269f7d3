"""The loss of the same rows in float32, float16 and bfloat16: what half precision costs here, and in torch."""

import mlx.core as mx
import torch

from ...models.tensors import flat
from ...train.evaluation import score_now
from ..case import Case
from ..finding import Finding
from ..references import torch_model

# ours, torch's, and the nats per token the two may differ by; SmolLM2-135M's losses in bfloat16 differ by 0.03
TYPES = {
    "float32": (mx.float32, torch.float32, 1e-3),
    "float16": (mx.float16, torch.float16, 1e-2),
    "bfloat16": (mx.bfloat16, torch.bfloat16, 0.1),
}


def dtypes(case: Case) -> list[Finding]:
    """The difference of the losses in each type. The weights come back as they were."""
    findings = []
    exact = _here(case, mx.float32)
    for name, (ours, theirs, tolerance) in TYPES.items():
        here = _here(case, ours)
        with case.theirs.disable_adapter(), torch_model.in_dtype(case.theirs, theirs), torch.no_grad():
            there = torch_model.loss_of(case.theirs, case.sample).item()
        findings.append(
            Finding(
                stage="dtypes",
                what=f"loss in {name}, here and in transformers",
                measured=abs(here - there),
                tolerance=tolerance,
                unit="nats",
                evidence=f"{here:.5f} here, {there:.5f} there; float32 is {exact:.5f}.",
            )
        )
    return findings


def _here(case: Case, dtype: mx.Dtype) -> float:
    module, kept = case.bare.module, flat(case.bare.module.parameters())
    module.set_dtype(dtype)
    try:
        score = score_now(module, case.bare.family, case.sample, batch_size=1, max_seq_length=case.max_seq_length)
    finally:
        module.load_weights(list(kept.items()))
    return score.loss
