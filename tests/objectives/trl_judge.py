"""TRL's own losses of log-probabilities and logits that are made up: no model is asked.

The trainers are those of the parity lab (`parity/references/trl_losses.py`); what one asks of a model is
answered with numbers that stand ready.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from tunebook.parity.references.trl_losses import as_of_head, both_sides, logged, trainer_for


def answering(found: Callable[[torch.Tensor], torch.Tensor], squares: torch.Tensor | None = None) -> Callable[..., Any]:
    """A model that answers with log-probabilities (B, T-1) of the ids it is given, 0 where there is no label."""

    def model(input_ids: torch.Tensor, labels: torch.Tensor, **_: Any) -> SimpleNamespace:
        logps = found(input_ids).masked_fill(labels[:, 1:] == -100, 0.0)
        return as_of_head(logps, squares)

    return model


def dpo(objective: Any, made: dict[str, np.ndarray]) -> tuple[float, np.ndarray, dict[str, float]]:
    """(loss, its gradient for the log-probabilities, metrics) of a batch of pairs as `made_up_pairs` has it."""
    logps = torch.tensor(made["logps"], requires_grad=True)
    reference, squares = torch.tensor(made["reference"]), torch.tensor(made["squares"])
    trainer = trainer_for(objective, None, False)
    trainer.ref_model = answering(lambda _: reference)
    loss = trainer._compute_loss(answering(lambda _: logps, squares), ids_and_masks(made), False)
    loss.backward()
    return loss.item(), logps.grad.numpy(), logged(trainer)


def kto(objective: Any, made: dict[str, np.ndarray]) -> tuple[float, np.ndarray, dict[str, float]]:
    """The same of a batch of labelled rows; `made` has "kl_logps" and "kl_reference" of mismatched answers too."""
    logps = torch.tensor(made["logps"], requires_grad=True)
    inputs = ids_and_masks(made)
    inputs |= {"KL_" + name: value.clone() for name, value in inputs.items()}
    inputs["label"] = torch.tensor(made["labels"])

    def of(ours: str) -> Callable[[torch.Tensor], torch.Tensor]:
        mine = logps if ours == "logps" else torch.tensor(made[ours])
        mismatched = torch.tensor(made["kl_" + ours])
        return lambda input_ids: mine if input_ids is inputs["input_ids"] else mismatched

    trainer = trainer_for(objective, None, False)
    trainer.ref_model = answering(of("reference"))
    loss = trainer._compute_loss(answering(of("logps")), inputs, False)
    loss.backward()
    return loss.item(), logps.grad.numpy(), logged(trainer)


def without_reference(objective: Any, made: dict[str, np.ndarray]) -> tuple[float, np.ndarray, dict[str, float]]:
    """(loss, its gradient for the logits (2P, T, V), metrics) of ORPO or CPO."""
    logits = torch.tensor(made["logits"], requires_grad=True)
    trainer, batch = reference_free(objective, made)
    loss, metrics = trainer.get_batch_loss_metrics(lambda *_, **__: SimpleNamespace(logits=logits), batch)
    loss.backward()
    return loss.item(), logits.grad.numpy(), metrics


def reference_free(objective: Any, made: dict[str, np.ndarray]) -> tuple[Any, dict[str, torch.Tensor]]:
    """(a trainer of ORPO or CPO, its batch)."""
    return trainer_for(objective, None, False), both_sides(ids_and_masks(made))


def ids_and_masks(made: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """A batch as TRL has it."""
    real = np.arange(made["tokens"].shape[1]) < made["lengths"][:, None]
    return {
        "input_ids": torch.tensor(made["tokens"].astype(np.int64)),
        "attention_mask": torch.tensor(real.astype(np.int64)),
        "completion_mask": torch.tensor(made["loss_mask"].astype(np.int64)),
    }
