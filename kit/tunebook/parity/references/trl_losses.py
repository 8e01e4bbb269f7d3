"""TRL's own losses of answers, by its trainers' own code: rows of tokens in, a loss under torch out.

A trainer of TRL (1.16) is made without its `__init__`, which would set a run up, and given the few attributes that its
loss reads. What it asks of a model may as well be answered with numbers that stand ready. Needs the extra `parity`.
"""

import warnings
from collections import defaultdict
from collections.abc import Sequence
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from ...data.encoded import Encoded, sequences_of
from ...objectives import CPO, DPO, KTO, ORPO
from ...objectives.answers import OverAnswers
from .torch_model import quiet

Tensors = dict[str, torch.Tensor]
Sequences = Sequence[tuple[np.ndarray, np.ndarray]]  # (ids, whether a token is one of the answer), each (T,)

# What TRL's head tells of each token; its losses and what they log read no others.
OUTPUTS = ("log_probs", "entropy", "mean_logits", "is_top1", "log_sum_sq_probs")


def with_head(module: Any) -> Any:
    """`module`, a model of transformers with adapters of PEFT's, with the head that TRL's losses ask; in place."""
    from trl.trainer.utils import add_fused_lm_head

    add_fused_lm_head(module.get_base_model(), outputs=OUTPUTS)
    return module


def loss_of(
    objective: OverAnswers, module: Any, rows: Sequence[Encoded], known: Tensors | None = None
) -> tuple[torch.Tensor, dict[str, float]]:
    """(TRL's mean loss of `rows` as one batch, what it logs). The reference is `module` with its adapters off.

    Or it is what `known` says of it, by TRL's names: "ref_chosen_logps" and "ref_rejected_logps", or "ref_logps" and
    "ref_KL_logps".
    """
    trainer, inputs = trainer_for(objective, module, known is not None), batch_of(objective, rows)
    if isinstance(objective, ORPO | CPO):
        return trainer.get_batch_loss_metrics(module, inputs)
    with quiet():
        loss = trainer._compute_loss(module, inputs | (known or {}), False)
    return loss, logged(trainer)


def reference_logps(objective: OverAnswers, module: Any, rows: Sequence[Encoded], *, as_it_is: bool) -> np.ndarray:
    """(B,) what TRL's reference says of each sequence; `as_it_is`, `module` itself, and else with its adapters off."""
    trainer = trainer_for(objective, module, False)
    trainer.ref_model = module if as_it_is else None
    with quiet():
        found = trainer.compute_ref_log_probs(module, batch_of(objective, rows))
    of_rows = found[:1] if isinstance(objective, KTO) else found
    return torch.cat(list(of_rows)).numpy()


def trainer_for(objective: OverAnswers, module: Any, has_reference: bool) -> Any:
    """TRL's trainer of an objective, with its settings; `has_reference` where batches bring what one says."""
    settings = objective.identity()
    del settings["objective"], settings["disable_dropout"]
    common: dict[str, Any] = {"precompute_ref_logps": has_reference}
    if isinstance(module, torch.nn.Module):
        common["model"] = module
    arguments = SimpleNamespace(gradient_checkpointing_kwargs=None)
    if isinstance(objective, DPO):
        from trl.trainer.dpo_trainer import DPOTrainer

        arguments.discopop_tau = settings.pop("discopop_tau")
        return trainer_of(DPOTrainer, args=arguments, loss_types=settings.pop("loss_type"), **common, **settings)
    if isinstance(objective, KTO):
        from trl.trainer.kto_trainer import KTOTrainer

        return trainer_of(KTOTrainer, args=arguments, calculate_KL=objective.needs_kl, **common, **settings)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "You are importing from 'trl.experimental'")  # where TRL 1.16 has both
        from trl.experimental.cpo.cpo_trainer import CPOTrainer
        from trl.experimental.orpo.orpo_trainer import ORPOTrainer
    return trainer_of(ORPOTrainer if isinstance(objective, ORPO) else CPOTrainer, **settings)


def trainer_of(kind: Any, **attributes: Any) -> Any:
    """A trainer of TRL's with what its loss reads, and no more."""
    trainer = kind.__new__(kind)
    stand_in: Any = torch.nn.Module()
    stand_in.is_gradient_checkpointing = False
    common = {
        "accelerator": _accelerator(),
        "model": stand_in,
        "ref_model": None,
        "aux_loss_enabled": False,
        "_metrics": defaultdict(lambda: defaultdict(list)),
        "_total_train_tokens": 0,
        "_tp_size": 1,
        "is_encoder_decoder": False,
        "pad_token_id": 0,
        "padding_value": 0,
        "precompute_ref_logps": False,
    }
    for name, value in {**common, **attributes}.items():
        setattr(trainer, name, value)
    return trainer


def logged(trainer: Any) -> dict[str, float]:
    """What a trainer logged of its last batch."""
    of_mode = trainer._metrics["train" if trainer.model.training else "eval"]
    return {name: values[-1] for name, values in of_mode.items()}


def batch_of(objective: OverAnswers, rows: Sequence[Encoded]) -> Tensors:
    """The rows as TRL's collators have them."""
    sides = [(side.tokens, side.loss_mask) for side in sequences_of(rows)]
    if isinstance(objective, ORPO | CPO):
        return both_sides(padded(sides))
    if not isinstance(objective, KTO):
        return padded(sides)
    labels = torch.tensor([bool(row.label) for row in rows])
    return (
        padded(sides) | {"KL_" + name: value for name, value in padded(mismatched(sides)).items()} | {"label": labels}
    )


def mismatched(sides: Sequences) -> Sequences:
    """Each prompt with the answer of the sequence before it, as TRL's KTOTrainer has it for its KL."""
    answers = [ids[mask] for ids, mask in (sides[-1], *sides[:-1])]
    made = []
    for (ids, mask), answer in zip(sides, answers, strict=True):
        prompt = ids[~mask]
        made.append((np.concatenate([prompt, answer]), np.arange(len(prompt) + len(answer)) >= len(prompt)))
    return made


def padded(sequences: Sequences) -> Tensors:
    """(B, T) each, filled up with zeros on the right."""
    width = max(len(ids) for ids, _ in sequences)

    def rows(values: Sequence[np.ndarray]) -> torch.Tensor:
        return torch.tensor(np.stack([np.pad(each.astype(np.int64), (0, width - len(each))) for each in values]))

    return {
        "input_ids": rows([ids for ids, _ in sequences]),
        "attention_mask": rows([np.ones(len(ids)) for ids, _ in sequences]),
        "completion_mask": rows([mask for _, mask in sequences]),
    }


def both_sides(batch: Tensors) -> Tensors:
    """A batch whose first half was chosen as ORPOTrainer and CPOTrainer name it."""
    labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
    named = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], "labels": labels}
    pairs = len(labels) // 2
    halves = {"chosen": slice(pairs), "rejected": slice(pairs, None)}
    return {f"{side}_{name}": value[rows] for side, rows in halves.items() for name, value in named.items()}


def as_of_head(log_probs: torch.Tensor, log_sum_sq_probs: torch.Tensor | None = None) -> SimpleNamespace:
    """Log-probabilities (B, T-1) in the form TRL's losses get them from a model; what they only log is zero."""
    return SimpleNamespace(
        log_probs=log_probs,
        log_sum_sq_probs=log_sum_sq_probs,
        entropy=torch.zeros_like(log_probs),
        mean_logits=torch.zeros_like(log_probs),
        is_top1=torch.zeros_like(log_probs, dtype=torch.bool),
    )


def _accelerator() -> SimpleNamespace:
    """One process, on the CPU."""

    def same(value: Any) -> Any:
        return value

    return SimpleNamespace(
        device=torch.device("cpu"),
        autocast=nullcontext,
        gather=same,
        gather_for_metrics=same,
        unwrap_model=same,
        parallelism_config=None,
    )
