"""The processes of a run held against each other: before the first step all there is, now and then the weights.

What each of them computes with goes in, digested; an error that names who differs, or a sentence on the links, comes
out.
"""

import platform
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ...data.encoded import Encoded
from ...models.base_digest import digest_of
from ...models.tensors import flat
from ..kept.identity import BY_PLACE, rows_digest
from ..plan import RunPlan
from .group import Ranks

VERSIONS = ("tunebook", "mlx", "mlx-lm", "mlx-vlm")
WEIGHTS_STEPS = 50  # after how many steps the weights are compared again
TRIED = 1_000_000  # numbers of a trial of the links
# Settings that two runs of one identity may differ in, and two processes of one run may not.
DECIDES_WHEN = {
    "eval_steps",
    "score_steps",
    "per_device_eval_batch_size",
    "load_best_model_at_end",
    "early_stopping_patience",
    "metric_for_best_model",
}


class RanksDiffer(ValueError):
    """The processes of a run do not have the same: model, rows, settings, versions or weights."""


def met(ranks: Ranks, plan: RunPlan) -> list[str]:
    """What there is to say of the processes of a run before it begins. Raises RanksDiffer where it cannot."""
    if ranks.is_alone:
        return []
    check_use(ranks.size, plan)
    check_alike(ranks, plan)
    return [tried_links(ranks)]


def check_alike(ranks: Ranks, plan: RunPlan) -> None:
    """Raise RanksDiffer where a process would train something else than the first."""
    said = ranks.exchange(_facts(plan))
    complaints = []
    for rank, facts in enumerate(said):
        different = sorted(name for name in facts.keys() | said[0].keys() if facts.get(name) != said[0].get(name))
        complaints += [
            f"  {name}: {facts.get(name)!r} on {ranks.peers[rank].name}, {said[0].get(name)!r} on rank 0"
            for name in different
        ]
    if complaints:
        raise RanksDiffer(
            "These processes cannot train one model together:\n"
            + "\n".join(complaints)
            + "\nStart every one of them with the same script, model, rows and versions."
        )


def check_weights(ranks: Ranks, module: nn.Module, step: int) -> None:
    """Raise RanksDiffer where what is trained is not the same, to the last bit, in every process after `step`."""
    if ranks.is_alone:
        return
    digests = ranks.exchange(digest_of(flat(module.trainable_parameters())))
    [(most, count), *others] = Counter(digests).most_common()
    if not others:
        return
    odd = [peer.name for peer, digest in zip(ranks.peers, digests, strict=True) if digest != most]
    whose = f"of {', '.join(odd)} are others than those of the rest" if 2 * count > ranks.size else "differ by rank"
    raise RanksDiffer(
        f"After step {step} the weights {whose} ({', '.join(digests)}, by rank). No checkpoint of them is written; go "
        "on from the last one with trainer.train(resume_from_checkpoint=True). A machine whose memory or GPU makes "
        "mistakes does this: python -m tunebook doctor looks for one."
    )


def tried_links(ranks: Ranks) -> str:
    """A sentence on how fast arrays are exchanged; from then on sums are made so that they are alike everywhere."""
    mx.eval(own := mx.random.normal((TRIED,), key=mx.random.key(ranks.rank)))
    ranks.taken_traffic()
    seconds = []
    total = own
    for _ in range(3):
        began = time.perf_counter()
        total = ranks.summed({"": own})[""]
        seconds.append(time.perf_counter() - began)
    if len({*ranks.exchange(digest_of({"": total}))}) > 1:
        ranks.adds_alike = False
    slowest = max(ranks.exchange(min(seconds)))
    ranks.taken_traffic()
    machines = Counter(peer.host for peer in ranks.peers)
    on = " and ".join(f"{count} on {host}" for host, count in machines.items())
    more = (
        "" if ranks.adds_alike else " MLX's sums differ in their last bits from rank to rank, so each adds up itself."
    )
    rate = own.nbytes / slowest / 1e6
    return f"{ranks.size} processes train together ({on}); they add up {rate:,.0f} MB a second.{more}"


def check_use(size: int, plan: RunPlan) -> None:
    """Raise ValueError where some of `size` processes would have nothing to do in any step."""
    why, batches = plan.objective.couples_rows, plan.config.gradient_accumulation_steps
    if why is not None and batches < size:
        raise ValueError(
            f"gradient_accumulation_steps is {batches}, and there are {size} processes: a micro-batch of this "
            f"objective cannot be split ({why}) Set it to {size} or more, or start fewer processes."
        )


def _facts(plan: RunPlan) -> dict[str, Any]:
    """What must be the same in every process; long ones digested."""
    versions: Mapping[str, str] = {name: _version(name) for name in VERSIONS}
    rows: Sequence[Encoded] = plan.eval_rows
    return {
        **{name: value for name, value in plan.identity.items() if name not in BY_PLACE},
        **{f"version of {name}": number for name, number in versions.items()},
        "version of Python": ".".join(platform.python_version_tuple()[:2]),
        "held-out rows": f"{len(rows)} rows, {rows_digest(rows)}",
        "trained weights": digest_of(flat(plan.loaded.module.trainable_parameters())),
        "exam": None if plan.exam is None else plan.exam.digest,
        "what decides when": {name: value for name, value in plan.config.as_plain().items() if name in DECIDES_WHEN},
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
