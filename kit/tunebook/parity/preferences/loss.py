"""How the log-probabilities of answers become one number: made-up logits through the objective, and through TRL's code.

Three micro-batches of ragged answers behind ragged prompts tell every way of summing and averaging apart; the gradient
is looked at as well as the loss.
"""

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import numpy as np
import torch

from ...data.encoded import Encoded, sequences_of
from ...models.families.text import TextFamily
from ...models.tensors import number
from ...objectives import CPO, ORPO
from ...objectives.answers import OverAnswers
from ..case import Case
from ..finding import Finding
from ..probes.reduction import Given
from ..procedure import Pass, Procedure
from ..references import trl_losses
from .faults import PREFERENCE_FAULTS
from .run import passed_batch

TOLERANCE = 1e-5  # relative
VOCABULARY, WIDTH = 50, 33  # a batch is padded to 1 + 32
# (tokens of the prompt, of the first answer, of the second one) of each row of each micro-batch
ROWS = (((2, 9, 3), (5, 4, 12)), ((1, 1, 6), (3, 7, 7)), ((4, 2, 5), (2, 15, 1)))


@dataclass(frozen=True, kw_only=True)
class MadeUp:
    """One micro-batch, and what a model and its reference would say of it; S sequences, twice as many as pairs."""

    rows: list[Encoded]
    logits: np.ndarray  # (S, WIDTH, VOCABULARY)
    reference: np.ndarray  # (S,)
    mismatched: np.ndarray  # (S,) what the model says of answers to other prompts
    reference_mismatched: np.ndarray  # (S,)


def loss(case: Case) -> list[Finding]:
    """The loss of a step of three micro-batches and its gradient for their logits, against TRL's of the same."""
    objective, made = case.compared, _made_up(case.compared.rows == "pairs")
    found, ours = _step(case.procedure, case, made)
    expected, theirs = _by_trl(objective, made)
    off, at = abs(found - expected) / abs(expected), ""
    for index, wanted in enumerate(theirs):
        relative = float(np.linalg.norm(ours[index] - wanted) / np.linalg.norm(wanted))
        if not relative <= max(off, TOLERANCE):
            off = relative
            sequence = int(np.abs(ours[index] - wanted).max(axis=(1, 2)).argmax())
            tokens = sequences_of(made[index].rows)[sequence].supervised_tokens
            where = f"sequence {sequence} of micro-batch {index}, of {tokens} tokens of an answer"
            at = f" The gradient differs most for {where}."
    if not any(gradient.any() for gradient in ours):
        at = " The gradient here is zero, so nothing is learnt."
    if not abs(found - expected) <= TOLERANCE * abs(expected):
        at += _why(case, made, found)
    return [
        Finding(
            stage="loss",
            what=f"made-up logits as one loss of {_named(objective)}, here and in TRL",
            measured=off,
            tolerance=TOLERANCE,
            unit="relative",
            evidence=f"The loss is {found:.6f} here and {expected:.6f} in TRL.{at}",
        )
    ]


def _why(case: Case, made: list[MadeUp], found: float) -> str:
    """Which known fault a loss that is wrong is that of."""
    for name, fault in PREFERENCE_FAULTS.items():
        if fault.stage == "loss":
            theirs, _ = _step(fault.procedure, case, made)
            if abs(found - theirs) <= TOLERANCE * abs(theirs):
                return f" It is the loss of a known fault: {name}."
    return ""


def _step(procedure: Procedure, case: Case, made: list[MadeUp]) -> tuple[float, list[np.ndarray]]:
    """(loss, its gradient for the logits of each micro-batch)."""
    together = [row for batch in made for row in batch.rows]
    passes = [_passed(procedure, case, batch, together) for batch in made]
    found, gradients = procedure.accumulate([_alone(passes, index) for index in range(len(passes))])
    return number(found), [np.array(gradient) for gradient in gradients]


def _named(objective: OverAnswers) -> str:
    settings = objective.identity()
    kinds = settings.get("loss_type", [])
    kind = kinds if isinstance(kinds, str) else " + ".join(kinds)
    return f"{settings['objective']} ({kind})" if kind else settings["objective"]


def _made_up(pairs: bool) -> list[MadeUp]:
    random, made = np.random.default_rng(0), []
    for sizes in ROWS:
        rows = []
        for prompt, *answers in sizes:
            ids = random.integers(1, VOCABULARY, prompt)
            sides = [np.concatenate([ids, random.integers(1, VOCABULARY, tokens)]) for tokens in answers]
            rows += [
                Encoded(tokens=side.astype(np.int32), loss_mask=np.arange(len(side)) >= prompt, label=label)
                for side, label in zip(sides, (True, False), strict=True)
            ]
        if pairs:
            rows = [_paired(*two) for two in zip(rows[::2], rows[1::2], strict=True)]
        count = len(sequences_of(rows))
        said = -random.exponential(20.0, (3, count)).astype(np.float32)
        made.append(
            MadeUp(
                rows=rows,
                logits=3 * random.standard_normal((count, WIDTH, VOCABULARY)).astype(np.float32),
                reference=said[0],
                mismatched=said[1],
                reference_mismatched=said[1] - 2.0 + said[2] / 40,
            )
        )
    return made


def _paired(chosen: Encoded, rejected: Encoded) -> Encoded:
    return Encoded(
        tokens=np.concatenate([chosen.tokens, rejected.tokens]),
        loss_mask=np.concatenate([chosen.loss_mask, rejected.loss_mask]),
        second=len(chosen.tokens),
    )


def _passed(procedure: Procedure, case: Case, made: MadeUp, together: list[Encoded]) -> Pass:
    module, objective = Given(made.logits), case.compared
    family = TextFamily(module, case.bare.tokenizer)
    batch = procedure.answers.collate(family, made.rows, WIDTH) | objective.known_of_step(together)
    kl = max(0.0, float((made.mismatched - made.reference_mismatched).mean()))
    batch |= {"reference_logps": mx.array(made.reference), "kl": mx.array(kl)}
    loaded = replace(case.bare, module=module, family=family)
    total, gradients, units = passed_batch(procedure, objective, loaded, batch)
    return total, gradients["logits"], units


def _alone(passes: list[Pass], index: int) -> Pass:
    """A pass whose gradients are a list over all micro-batches, zero but for its own, so that their sum keeps each."""
    total, _, units = passes[index]
    return total, [own if at == index else mx.zeros_like(own) for at, (_, own, _) in enumerate(passes)], units


def _by_trl(objective: OverAnswers, made: list[MadeUp]) -> tuple[float, list[np.ndarray]]:
    """(loss, its gradient for the logits of each micro-batch): of all rows at once, unless a batch couples its rows."""
    leaves = [torch.tensor(batch.logits, requires_grad=True) for batch in made]
    if objective.couples_rows:
        losses = [_loss_by_trl(objective, [batch], [leaf]) for batch, leaf in zip(made, leaves, strict=True)]
        loss = torch.stack(losses).mean()  # they are of one size
    else:
        loss = _loss_by_trl(objective, made, leaves)
    gradients = torch.autograd.grad(loss, leaves)
    return loss.item(), [gradient.numpy() for gradient in gradients]


def _loss_by_trl(objective: OverAnswers, made: list[MadeUp], leaves: list[torch.Tensor]) -> torch.Tensor:
    rows = [row for batch in made for row in batch.rows]
    width = max(row.longest for row in rows)
    logits = _side_by_side(objective, leaves)[:, :width]
    if isinstance(objective, ORPO | CPO):
        return trl_losses.loss_of(objective, lambda *_, **__: SimpleNamespace(logits=logits), rows)[0]
    of_all = torch.log_softmax(logits[:, :-1], dim=-1)
    squares = torch.logsumexp(2 * of_all, dim=-1)
    reference, mismatched, of_mismatched = (
        _side_by_side(objective, [torch.tensor(said) for said in each])
        for each in zip(*((one.reference, one.mismatched, one.reference_mismatched) for one in made), strict=True)
    )
    known = {"ref_logps": reference, "ref_KL_logps": of_mismatched}
    if objective.rows == "pairs":
        chosen, rejected = reference.chunk(2)
        known = {"ref_chosen_logps": chosen, "ref_rejected_logps": rejected}

    def model(input_ids: torch.Tensor, labels: torch.Tensor, **_: Any) -> SimpleNamespace:
        if not torch.is_grad_enabled():  # what a KL is of, which has no gradient
            return trl_losses.as_of_head(mismatched[:, None])
        logps = of_all.gather(-1, input_ids[:, 1:, None]).squeeze(-1)
        return trl_losses.as_of_head(logps.masked_fill(labels[:, 1:] == -100, 0.0), squares)

    return trl_losses.loss_of(objective, model, rows, known)[0]


def _side_by_side(objective: OverAnswers, parts: list[torch.Tensor]) -> torch.Tensor:
    """What stands for sequences of micro-batches as those of one batch: of pairs, all that was chosen comes first."""
    if objective.rows != "pairs":
        return torch.cat(parts)
    halves = [part.chunk(2) for part in parts]
    return torch.cat([chosen for chosen, _ in halves] + [rejected for _, rejected in halves])
