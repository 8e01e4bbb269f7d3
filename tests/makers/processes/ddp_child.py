"""A process of DistributedDataParallel over gloo: `python -m tests.makers.processes.ddp_child FOLDER RANK SIZE`.

FOLDER holds a model, and `steps.json`: of each step, of each rank, (tokens, mask) of each row. The loss is that of all
tokens of the step, whichever rank has them: DDP takes the mean over ranks, so each multiplies by how many there are.
What is learnt by plain descent lies in FOLDER afterwards.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import torch.distributed as distributed
from torch.nn.parallel import DistributedDataParallel
from transformers import AutoModelForCausalLM


def trained(folder: Path, rank: int, size: int, *, rate: float, most: float) -> None:
    """Take all steps of `steps.json`."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=size)
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    model.eval()
    parallel = DistributedDataParallel(model)
    descent = torch.optim.SGD(model.parameters(), lr=rate)
    for step in json.loads((folder / "steps.json").read_text()):
        tokens, mask = padded(step[rank])
        count = mask[:, 1:].sum()
        distributed.all_reduce(count)
        logits = parallel(tokens).logits[:, :-1]
        nats = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
        loss = (nats * mask[:, 1:].flatten()).sum() * size / count
        descent.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), most)
        descent.step()
    if rank == 0:
        np.savez(folder / "ddp.npz", **{name: value.detach().numpy() for name, value in model.named_parameters()})
    distributed.destroy_process_group()


def padded(rows: list) -> tuple[torch.Tensor, torch.Tensor]:
    """((B, T) tokens, (B, T) mask as floats); what is padded stands behind, where a causal model does not look."""
    longest = max(len(tokens) for tokens, _ in rows)
    tokens = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros(len(rows), longest)
    for place, (row, row_mask) in enumerate(rows):
        tokens[place, : len(row)] = torch.tensor(row)
        mask[place, : len(row)] = torch.tensor(row_mask, dtype=torch.float32)
    return tokens, mask


if __name__ == "__main__":
    trained(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), rate=0.1, most=0.5)
