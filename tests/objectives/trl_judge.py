"""TRL's own losses under torch, of log-probabilities and logits that are made up: no model, no trainer set up.

A trainer of TRL is made without its `__init__` and given the few attributes its loss reads. What it asks of a model is
answered with numbers that stand ready.
"""

from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch


def accelerator() -> SimpleNamespace:
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


def trainer_of(kind: type, **attributes: Any) -> Any:
    """A TRL trainer with what its loss reads, and no more."""
    trainer, model = kind.__new__(kind), torch.nn.Module()
    model.is_gradient_checkpointing = False
    common = {
        "accelerator": accelerator(),
        "model": model,
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


def answering(found: Callable[[torch.Tensor], torch.Tensor], squares: torch.Tensor | None = None) -> Callable[..., Any]:
    """A model that answers with log-probabilities (B, T-1) of the ids it is given, 0 where there is no label."""

    def model(input_ids: torch.Tensor, labels: torch.Tensor, **_: Any) -> SimpleNamespace:
        logps = found(input_ids).masked_fill(labels[:, 1:] == -100, 0.0)
        return SimpleNamespace(
            log_probs=logps,
            log_sum_sq_probs=squares,
            entropy=torch.zeros_like(logps),
            mean_logits=torch.zeros_like(logps),
            is_top1=torch.zeros_like(logps, dtype=torch.bool),
        )

    return model


def dpo(objective: Any, made: dict[str, np.ndarray]) -> tuple[float, np.ndarray, dict[str, float]]:
    """(loss, its gradient for the log-probabilities, metrics) of a batch of pairs as `made_up_pairs` has it."""
    from trl.trainer.dpo_trainer import DPOTrainer

    logps = torch.tensor(made["logps"], requires_grad=True)
    reference, squares = torch.tensor(made["reference"]), torch.tensor(made["squares"])
    trainer = trainer_of(
        DPOTrainer,
        args=SimpleNamespace(discopop_tau=objective.discopop_tau, gradient_checkpointing_kwargs=None),
        ref_model=answering(lambda _: reference),
        beta=objective.beta,
        loss_types=list(objective.loss_type),
        loss_weights=list(objective.loss_weights),
        ld_alpha=objective.ld_alpha,
        f_divergence_type=objective.f_divergence_type,
        f_alpha_divergence_coef=objective.f_alpha_divergence_coef,
        label_smoothing=objective.label_smoothing,
        use_weighting=objective.use_weighting,
    )
    mask = torch.tensor(made["loss_mask"].astype(np.int64))
    inputs = {
        "input_ids": torch.tensor(made["tokens"].astype(np.int64)),
        "attention_mask": torch.ones_like(mask),
        "completion_mask": mask,
    }
    loss = trainer._compute_loss(answering(lambda _: logps, squares), inputs, False)
    loss.backward()
    return loss.item(), logps.grad.numpy(), means(trainer._metrics["train"])


def kto(objective: Any, made: dict[str, np.ndarray]) -> tuple[float, np.ndarray, dict[str, float]]:
    """The same of a batch of labelled rows; `made` has "kl_logps" and "kl_reference" of mismatched answers too."""
    from trl.trainer.kto_trainer import KTOTrainer

    logps = torch.tensor(made["logps"], requires_grad=True)
    ids = torch.tensor(made["tokens"].astype(np.int64))

    def of(ours: str) -> Callable[[torch.Tensor], torch.Tensor]:
        mine = logps if ours == "logps" else torch.tensor(made[ours])
        mismatched = torch.tensor(made["kl_" + ours])
        return lambda input_ids: mine if input_ids is ids else mismatched

    trainer = trainer_of(
        KTOTrainer,
        args=SimpleNamespace(gradient_checkpointing_kwargs=None),
        ref_model=answering(of("reference")),
        beta=objective.beta,
        loss_type=objective.loss_type,
        desirable_weight=objective.desirable_weight,
        undesirable_weight=objective.undesirable_weight,
        calculate_KL=objective.loss_type == "kto",
    )
    mask = torch.tensor(made["loss_mask"].astype(np.int64))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(mask), "completion_mask": mask}
    inputs |= {"KL_" + name: value.clone() for name, value in inputs.items()}
    inputs["label"] = torch.tensor(made["labels"])
    loss = trainer._compute_loss(answering(of("logps")), inputs, False)
    loss.backward()
    return loss.item(), logps.grad.numpy(), means(trainer._metrics["train"])


def without_reference(objective: Any, made: dict[str, np.ndarray]) -> tuple[float, np.ndarray, dict[str, float]]:
    """(loss, its gradient for the logits (2P, T, V), metrics) of ORPO or CPO."""
    logits = torch.tensor(made["logits"], requires_grad=True)
    trainer, batch = reference_free(objective, made)
    loss, metrics = trainer.get_batch_loss_metrics(lambda *_, **__: SimpleNamespace(logits=logits), batch)
    loss.backward()
    return loss.item(), logits.grad.numpy(), metrics


def reference_free(objective: Any, made: dict[str, np.ndarray]) -> tuple[Any, dict[str, torch.Tensor]]:
    """(a trainer of ORPO or CPO, its batch)."""
    from trl.experimental.cpo.cpo_trainer import CPOTrainer
    from trl.experimental.orpo.orpo_trainer import ORPOTrainer

    kind = {"ORPO": ORPOTrainer, "CPO": CPOTrainer}[type(objective).__name__]
    settings = objective.identity()
    del settings["objective"], settings["disable_dropout"]
    pairs, batch = len(made["tokens"]) // 2, {}
    real = np.arange(made["tokens"].shape[1]) < made["lengths"][:, None]
    for side, rows in (("chosen", slice(pairs)), ("rejected", slice(pairs, None))):
        ids = torch.tensor(made["tokens"][rows].astype(np.int64))
        batch[f"{side}_input_ids"] = ids
        batch[f"{side}_attention_mask"] = torch.tensor(real[rows].astype(np.int64))
        batch[f"{side}_labels"] = ids.masked_fill(torch.tensor(~made["loss_mask"][rows]), -100)
    return trainer_of(kind, **settings), batch


def means(metrics: dict[str, list[float]]) -> dict[str, float]:
    return {name: values[-1] for name, values in metrics.items()}
