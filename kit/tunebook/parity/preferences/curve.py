"""A whole run over answers, loss by loss: TRL's losses under torch, with the same optimizer, and ours."""

from collections.abc import Iterator, Sequence
from itertools import islice

import torch

from ...data.encoded import Encoded
from ...tokens.batch_order import total_steps, windows
from ...tokens.stored_rows import lengths_of
from ..case import Case
from ..finding import Finding
from ..probes.curves import CURVE, compared
from ..references import torch_model, trl_losses
from ..references.torch_optim import Reference, clip, rates
from .run import answer_losses


def curve(case: Case) -> list[Finding]:
    """The losses of every step of a run of ours, from adapters of its own making, and of TRL's."""
    case.put_ours(case.own_start)
    ours = list(
        answer_losses(case.procedure, case.compared, case.adapted, case.encoded, case.training, case.max_seq_length)
    )
    case.put_ours(case.own_start)
    torch_model.put(case.theirs, case.start)
    theirs = list(_by_trl(case))
    torch_model.put(case.theirs, case.start)
    return [compared("curve", f"{case.procedure.name} and TRL", ours, theirs, CURVE)]


def _by_trl(case: Case) -> Iterator[float]:
    named, config = torch_model.adapters(case.with_head), case.training
    reference, total = Reference(named, config), total_steps(len(case.encoded), config)
    order = windows(lengths_of(case.encoded), config)
    for window, rate in islice(zip(order, rates(config, total), strict=False), total):
        loss = loss_by_trl(case, [[case.encoded[index] for index in batch] for batch in window])
        loss.backward()
        clip(list(named.values()), config)
        reference.step(rate)
        case.theirs.zero_grad()
        yield loss.item()


def loss_by_trl(case: Case, batches: Sequence[Sequence[Encoded]]) -> torch.Tensor:
    """TRL's loss of a step: of all its rows at once, however they are split, unless a micro-batch couples its rows."""
    together = [row for batch in batches for row in batch]
    if not case.compared.couples_rows:
        return trl_losses.loss_of(case.compared, case.with_head, together)[0]
    losses = [trl_losses.loss_of(case.compared, case.with_head, batch)[0] * len(batch) for batch in batches]
    return torch.stack(losses).sum() / len(together)
