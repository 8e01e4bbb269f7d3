"""Which answers of a conversation say of themselves that they are not to be learnt.

OpenAI's and Mistral's `weight`, axolotl's `train` and `training`, and their like come in; 0 or 1 comes out.
"""

from collections.abc import Mapping
from typing import Any

from .columns import BadRow, shown

# The key, and the value that means "learn this".
WEIGHTS = {"weight": 1, "train": True, "training": True, "trainable": True, "loss_mask": 1, "masked": False}


def weight_of(message: Mapping[str, Any], number: int) -> int:
    """1 where turn `number` is to be learnt, 0 where a key says it is not. Raises BadRow for what is neither."""
    learnt = 1
    for key, yes in WEIGHTS.items():
        value = message.get(key)
        if value is None:
            continue
        if not isinstance(value, int | float) or value not in (0, 1):
            raise BadRow(
                f"turn {number} has {key} {shown(value)}, and only 0 and 1, or False and True, can be followed."
            )
        learnt *= value == yes
    return learnt


def without_weights(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message without these keys, which no chat template is to write."""
    return {key: value for key, value in message.items() if key not in WEIGHTS}
