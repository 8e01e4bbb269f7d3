"""The whole chain of comparisons, in the order in which one part can spoil the next.

A model and rows go in, a `Report` comes out. Nothing stops at a difference: every stage is fed what both sides have in
common, so that a part that differs shows in its own stage and, where a whole run is compared, in the runs after it.
"""

import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

from ..config import LoraConfig, TrainingConfig
from ..data.sources import Row
from ..machine.progress_bars import progress
from ..models.adapters import parameter_counts
from ..models.loaded import Loaded
from ..objectives.answers import OverAnswers
from .case import Case
from .finding import Finding
from .preferences import curve as preference_curve
from .preferences import gradients as preference_gradients
from .preferences import log_probs, reading
from .preferences import loss as preference_loss
from .probes import (
    backward,
    batching,
    curves,
    dtypes,
    encoding,
    exports,
    forward,
    generation,
    initialisation,
    optimizer_step,
    quantization,
    reduction,
)
from .procedure import KIT, Procedure
from .references import torch_model
from .report import Report

Probe = Callable[[Case], list[Finding]]

CHAIN: dict[str, tuple[Probe, ...]] = {
    "tokens": (encoding.tokens,),
    "supervision": (encoding.supervision,),
    "batches": (batching.width, batching.order),
    "logits": (forward.logits,),
    "reduction": (reduction.reduction,),
    "token losses": (forward.token_losses,),
    "adapters": (initialisation.layers, initialisation.draws),
    "gradients": (backward.gradients,),
    "rates": (optimizer_step.rates,),
    "optimizer": (optimizer_step.optimizer_step,),
    "reference": (curves.reference,),
    "curve": (curves.curve,),
    "mlx-lm": (curves.mlx_lm,),
    "dtypes": (dtypes.dtypes,),
    "generation": (generation.generation,),
    "exports": (exports.exports,),
    "quantization": (quantization.affine, quantization.nf4),
}

# Of an objective over answers. What does not depend on it is asked as above.
PREFERENCE_CHAIN: dict[str, tuple[Probe, ...]] = {
    "tokens": (reading.tokens,),
    "supervision": (reading.supervision,),
    "batches": (batching.width, batching.order),
    "logits": CHAIN["logits"],
    "adapters": CHAIN["adapters"],
    "log-probs": (log_probs.log_probs,),
    "reference": (log_probs.reference,),
    "loss": (preference_loss.loss,),
    "gradients": (preference_gradients.gradients,),
    "rates": CHAIN["rates"],
    "optimizer": CHAIN["optimizer"],
    "curve": (preference_curve.curve,),
}

COMPARED = ("mlx", "mlx-lm", "torch", "transformers", "peft", "trl")
LORA = LoraConfig(r=8, lora_alpha=16)
TRAINING = TrainingConfig(
    per_device_train_batch_size=2,
    gradient_accumulation_steps=2,
    max_steps=20,
    learning_rate=1e-3,
    lr_scheduler_type="cosine",
    warmup_steps=3,
    weight_decay=0.01,
)


class HoldsModel(Protocol):
    """What is asked of a model that is loaded already: where it came from. `FastModel` is one."""

    loaded: Loaded


def bisect(
    model: str | Path | HoldsModel,
    rows: Sequence[Row],
    *,
    procedure: Procedure = KIT,
    lora: LoraConfig = LORA,
    training: TrainingConfig = TRAINING,
    max_seq_length: int = 128,
    stages: Sequence[str] | None = None,
    objective: OverAnswers | None = None,
) -> Report:
    """Compare `procedure` with transformers, PEFT, torch, stock mlx-lm and llama.cpp; `stages` None: with all of CHAIN.

    With an `objective`, such as `objectives.DPO()`, the rows are preferences, the stages those of PREFERENCE_CHAIN, and
    the judge is TRL. Of a loaded model only the place it was loaded from is used; it is left alone. Raises ValueError
    for settings the lab has no reference for, and for a stage that is not in the chain.
    """
    chain = chain_of(objective)
    wanted = list(chain) if stages is None else list(stages)
    if unknown := [stage for stage in wanted if stage not in chain]:
        raise ValueError(f"stages names {', '.join(unknown)}; choose from {', '.join(chain)}.")
    name = model if isinstance(model, str | Path) else model.loaded.folder
    case = Case(
        name=name,
        rows=rows,
        procedure=procedure,
        lora=lora,
        training=training,
        max_seq_length=max_seq_length,
        objective=objective,
    )
    findings: list[Finding] = []
    seconds: dict[str, float] = {}
    with torch_model.threads_for(parameter_counts(case.bare.module)[1]):
        for stage in progress([stage for stage in chain if stage in wanted], "Comparing"):
            began = time.perf_counter()
            for probe in chain[stage]:
                findings += probe(case)
            seconds[stage] = time.perf_counter() - began
    return Report(
        model=str(name),
        procedure=procedure.name,
        objective=None if objective is None else type(objective).__name__,
        findings=tuple(findings),
        seconds=seconds,
        versions={package: version(package) for package in COMPARED},
    )


def chain_of(objective: object | None) -> dict[str, tuple[Probe, ...]]:
    """The stages for an objective over answers, or its name; None: the next token."""
    return CHAIN if objective is None else PREFERENCE_CHAIN
