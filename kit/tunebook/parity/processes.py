"""mlx-lm's training function in several processes, as `mlx.launch` starts them, on rows of unequal length.

Rows go in, and how far its update is from that of one process on the same rows comes out, with the reason: each process
takes the mean over its own tokens, and the processes' means are averaged, so a token in a process with few of them
counts for more. It does not depend on how mlx-lm deals rows out; the shares are given.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.optimizers
import numpy as np
from mlx_lm.tuner.trainer import TrainingArgs, train

from ..config import LoraConfig
from ..train.ranks.launch import environments
from .references.mlx_lm_run import Arrays, Losses, adapters, quietly, with_adapters

TARGETS = ("self_attn.q_proj", "self_attn.v_proj")
SECONDS = 300.0
CHILD = """
import sys
from pathlib import Path
from tunebook.machine.without_torch import torch_unseen
with torch_unseen():
    from tunebook.parity.processes import update_of_this_process
update_of_this_process(*map(Path, sys.argv[1:]))
"""


@dataclass(frozen=True)
class InProcesses:
    """What came of one update of mlx-lm's in several processes. Both are relative to the update of one process."""

    processes: int
    tokens: tuple[int, ...]  # that are predicted in each process
    off: float  # from the mean over all tokens, which one process takes
    unexplained: float  # from the mean of the processes' own means

    def __str__(self):
        counts = " and ".join(map(str, self.tokens))
        return (
            f"mlx-lm's update in {self.processes} processes, of {counts} tokens, is off by {self.off:.1%} from its own "
            f"in one process on the same rows. It is the mean of the processes' means, but for {self.unexplained:.1e}: "
            "a token counts for more where there are fewer of them. Here gradients are added up as sums and divided "
            "once, by the tokens of all processes."
        )


def mlx_lm_in_processes(folder: Path | str, shares: Sequence[Sequence[Sequence[int]]]) -> InProcesses:
    """mlx-lm's update of the model in `folder` where each process has one of the `shares`: rows of token ids."""
    folder, every = Path(folder), [row for share in shares for row in share]
    with tempfile.TemporaryDirectory() as made:
        [together] = _updates(folder, [every], Path(made))
        alone = [_updates(folder, [share], Path(made))[0] for share in shares]
        several = _updates(folder, shares, Path(made))
    means = {name: np.mean([each[name] for each in alone], axis=0) for name in together}
    return InProcesses(
        processes=len(shares),
        tokens=tuple(sum(len(row) - 1 for row in share) for share in shares),
        off=_off(several[0], together),
        unexplained=_off(several[0], means),
    )


def _updates(folder: Path, shares: Sequence[Sequence[Sequence[int]]], made: Path) -> list[Arrays]:
    """What each process changed, one for each share."""
    (made / "shares.json").write_text(json.dumps([[list(row) for row in share] for share in shares]))
    hosts = environments(len(shares), made / "hosts.json") if len(shares) > 1 else [{}]
    command = [sys.executable, "-c", CHILD, str(folder), str(made)]
    processes = [
        subprocess.Popen(
            command,
            env={**os.environ, **host},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for host in hosts
    ]
    try:
        for process in processes:
            wrote, _ = process.communicate(timeout=SECONDS)
            if process.returncode:
                raise RuntimeError(f"A process of mlx-lm ended with {process.returncode}: {wrote[-500:]}")
    finally:
        for process in processes:
            process.kill()
    found = []
    for rank in range(len(shares)):
        with np.load(made / f"{rank}.npz") as update:
            found.append(dict(update))
    return found


def _off(found: Arrays, wanted: Arrays) -> float:
    """The L2 norm of the difference over that of what is wanted."""
    difference = sum(float(np.square(found[name] - wanted[name]).sum()) for name in wanted)
    return (difference / sum(float(np.square(value).sum()) for value in wanted.values())) ** 0.5


def update_of_this_process(folder: Path, made: Path) -> None:
    """One iteration of mlx-lm's `train` by plain descent at a rate of 1; what it changed lies in `made` afterwards."""
    rank = int(os.environ.get("MLX_RANK", "0"))
    rows = json.loads((made / "shares.json").read_text())[rank]
    module = with_adapters(folder, LoraConfig(r=4), [f"model.layers.0.{target}" for target in TARGETS])
    width = max(map(len, rows))
    batch = mx.array([row + [0] * (width - len(row)) for row in rows]), mx.array([[1, len(row) - 1] for row in rows])
    before = adapters(module)
    with quietly():
        train(
            model=module,
            optimizer=mlx.optimizers.SGD(1.0),
            train_dataset=rows,
            args=TrainingArgs(
                batch_size=len(rows),
                iters=1,
                steps_per_report=1,
                steps_per_save=2,
                adapter_file=str(made / f"adapters {rank}.safetensors"),
            ),
            iterate_batches=lambda **_: iter([batch]),
            training_callback=Losses(),
        )
    after = adapters(module)
    change: dict[str, Any] = {name: before[name] - after[name] for name in after}
    np.savez(made / f"{rank}.npz", **change)
