"""What a training step minimises: a model and a batch in, a sum of losses out, which its caller divides.

`base.py` says what the loop asks of one: which predictions of a batch count, the sum over them that is differentiated,
and the same sum where no gradient is wanted. It is given a `Family`, asks it for hidden states and the head, and never
for what kind of model made them. The simplest is `NextToken`.

The others are records of settings (`DPO`, `ORPO`, `CPO`, `KTO`; `SimPO` and `AlphaPO` make a `CPO`), of the kind that
`answers.py` has. Each reads log-probabilities (B, T-1) of a batch's tokens, which `token_logps.py` makes of the same
pieces as the next-token loss, and knows no model either. In the order of a step:

- `positions(batch)` (N,): the predictions it asks for. `units(batch)`: what the step's sum is divided by.
- `with_what_is_known(objective, batch, ...)` of `reference.py` adds what has no gradient: "reference_logps" (B,), and
  for KTO "kl" (). A batch that brings them is left as it is. A `Reference` is settled before the first step; its
  `kept` belongs into a checkpoint. Of an objective that `asks_beforehand` it is asked of all rows then
  (`train/passes/beforehand.py`); `kept_logps.py` finds what it said again for each batch, and `written` is kept too.
- `summed(family, forms)`: `loss(module, batch, positions, weights)` -> (sum, Sums), for `nn.value_and_grad` and
  `CompiledPass`. `measured` is the same without a gradient.
- Sums are added up over micro-batches by name; `metrics(sums)` makes numbers of them, by TRL's names. A dashboard has a
  plain chart for one that it does not know, and one for all with the same word before a slash.
- `couples_rows` says why splitting a step otherwise would change it; `without_dropout` that no dropout is drawn;
  `identity()` is what a resumed run has to have in common.

A batch of pairs ("rows" is "pairs") has 2P rows: P chosen answers, each behind its prompt, then the P rejected ones in
the same order. "loss_mask" marks the answers, "lengths" (B,) int32 are the tokens of each row without padding, and
"tokens_per_pair" () may be there: how many tokens one pair of the whole step, or of all that is scored, adds to a mean
over tokens (`pairs.py`), so that batches of other lengths add up to the mean of all. A batch of labelled rows has
"labels" (B,) bool, and "mismatched", a batch of the same prompts, each with the answer of the row before it.

Doors: `answers`, `base`, `kept_logps`, `next_token`, `reference`, `token_logps`.
"""

from ..machine.without_torch import torch_unseen

with torch_unseen():  # whoever imports from here has not imported the kit's own names before
    from .base import Objective
    from .cpo import CPO, AlphaPO, SimPO
    from .dpo import DPO
    from .kto import KTO
    from .orpo import ORPO

__all__ = ["CPO", "DPO", "KTO", "ORPO", "AlphaPO", "Objective", "SimPO"]
