"""The gradient of a step over some answers, tensor by tensor, against TRL's; both sides start from the same adapters.

None of them is zero. The reference is the model without them.
"""

import numpy as np

from ...models.tensors import flat
from ...objectives.reference import Reference
from ..case import Case
from ..finding import Finding
from ..probes.backward import largest
from ..references import torch_model
from .curve import loss_by_trl
from .run import passed_answers


def gradients(case: Case) -> list[Finding]:
    """Of two micro-batches, the norm of the difference over the norm, of the tensor where that is largest."""
    few, half = case.few, max(2, len(case.few) // 2)
    batches = [few[:half], few[half:]] if len(few) > half + 1 else [few]
    case.put(case.start)
    reference = Reference(case.adapted.module, case.compared)
    reference.settle()
    case.put(case.filled)
    passes = [
        passed_answers(
            case.procedure, case.compared, case.adapted, batch, reference, case.max_seq_length, step_rows=few
        )
        for batch in batches
    ]
    _, tree = case.procedure.accumulate(passes)
    ours = {name: np.array(array) for name, array in flat(tree).items()}
    case.with_head.zero_grad()
    loss_by_trl(case, batches).backward()
    theirs = torch_model.gradients_held(case.theirs)
    case.theirs.zero_grad()
    case.put(case.start)
    return [largest("gradient of one step for each adapter, here and by TRL under torch's autograd", ours, theirs)]
