"""How the losses of tokens become one number: made-up logits through the procedure's loss, and through torch's.

Three micro-batches of rows with 1 to 9 supervised tokens tell every way of averaging apart; the gradient is looked at
as well as the loss.
"""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import torch
from mlx_lm.tokenizer_utils import TokenizerWrapper

from ...data.encoded import Encoded
from ...models.families.text import TextFamily
from ...models.tensors import number
from ...objectives.next_token import supervised_positions
from ..case import Case
from ..finding import Finding
from ..procedure import Pass, Procedure

TOLERANCE = 1e-5  # relative
VOCABULARY, LENGTH = 50, 12
SUPERVISED = ((1, 9), (4, 2), (3, 3))  # tokens at the end of each row of each micro-batch


class Given(nn.Module):
    """A model whose logits (B, T, V) are its only parameter, whatever it is asked."""

    def __init__(self, logits: np.ndarray):
        super().__init__()
        self.logits = mx.array(logits)

    def __call__(self, tokens: mx.array) -> mx.array:
        return self.logits[:, : tokens.shape[1]]


def reduction(case: Case) -> list[Finding]:
    """The loss of a step of three micro-batches and its gradient for their logits, against torch's cross_entropy."""
    batches = _batches(np.random.default_rng(0))
    passes = [_passed(case.procedure, case.bare.tokenizer, *batch) for batch in batches]
    loss, gradients = case.procedure.accumulate([_alone(passes, index) for index in range(len(passes))])
    expected, theirs = _by_torch(batches)
    off = abs(number(loss) - expected) / expected
    at = f"The loss is {number(loss):.6f} here and {expected:.6f} in torch."
    for index, wanted in enumerate(theirs):
        found = np.array(gradients[index])
        relative = float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))
        if not relative <= off:
            off = relative
            row, token, _ = np.unravel_index(np.abs(found - wanted).argmax(), wanted.shape)
            at = (
                f"The gradient differs most at token {token} of row {row} of micro-batch {index}, of which the last "
                f"{SUPERVISED[index][row]} of {LENGTH} tokens are supervised."
            )
    return [
        Finding(
            stage="reduction",
            what="made-up logits as one loss over three micro-batches, here and in torch",
            measured=off,
            tolerance=TOLERANCE,
            unit="relative",
            evidence=at,
        )
    ]


def _batches(random: np.random.Generator) -> list[tuple[np.ndarray, list[Encoded]]]:
    """(logits (B, T-1, V), rows) of each micro-batch."""
    made = []
    for counts in SUPERVISED:
        logits = 3 * random.standard_normal((len(counts), LENGTH - 1, VOCABULARY)).astype(np.float32)
        rows = [
            Encoded(
                tokens=random.integers(0, VOCABULARY, LENGTH).astype(np.int32),
                loss_mask=np.arange(LENGTH) >= LENGTH - count,
            )
            for count in counts
        ]
        made.append((logits, rows))
    return made


def _passed(procedure: Procedure, tokenizer: TokenizerWrapper, logits: np.ndarray, rows: list[Encoded]) -> Pass:
    module = Given(logits)
    family = TextFamily(module, tokenizer)
    batch = family.collate(rows, LENGTH)
    positions = supervised_positions(batch)
    nats, gradients = nn.value_and_grad(module, procedure.loss(family))(module, batch, positions)
    return nats, gradients["logits"], positions.size


def _alone(passes: list[Pass], index: int) -> Pass:
    """A pass whose gradients are a list over all micro-batches, zero but for its own, so that their sum keeps each."""
    nats, _, tokens = passes[index]
    return nats, [own if at == index else mx.zeros_like(own) for at, (_, own, _) in enumerate(passes)], tokens


def _by_torch(batches: list[tuple[np.ndarray, list[Encoded]]]) -> tuple[float, list[np.ndarray]]:
    leaves = [torch.tensor(logits, requires_grad=True) for logits, _ in batches]
    nats, count = torch.zeros(()), 0
    for leaf, (_, rows) in zip(leaves, batches, strict=True):
        labels = torch.tensor(
            np.stack([np.where(row.loss_mask, row.tokens, -100)[1:] for row in rows]).astype(np.int64)
        )
        nats = nats + torch.nn.functional.cross_entropy(leaf.flatten(0, 1), labels.flatten(), reduction="sum")
        count += int((labels != -100).sum())
    loss = nats / count
    gradients = torch.autograd.grad(loss, leaves)
    return loss.item(), [gradient.numpy() for gradient in gradients]
