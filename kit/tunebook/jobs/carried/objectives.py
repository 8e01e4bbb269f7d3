"""An objective as its name and its settings."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ...objectives import CPO, DPO, KTO, ORPO
from ...objectives.base import Objective
from ...objectives.next_token import NextToken
from .refused import NotCarried

OVER_ANSWERS = {kind.__name__: kind for kind in (CPO, DPO, KTO, ORPO)}


def as_plain(objective: Objective) -> dict[str, Any]:
    """Values that JSON keeps as they are. Raises NotCarried for an objective that is not one of the kit's."""
    if type(objective) is NextToken:
        return {"kind": "NextToken", "settings": {}}
    kind = type(objective)
    if OVER_ANSWERS.get(kind.__name__) is not kind:
        raise NotCarried(
            f"objective is a {kind.__name__}, a class of your own, and a job carries no code: train in the kernel, "
            f"trainer.train(), or take one of {', '.join(OVER_ANSWERS)}."
        )
    return {"kind": kind.__name__, "settings": asdict(objective)}  # pyright: ignore[reportArgumentType] - it is one


def from_plain(plain: Mapping[str, Any]) -> Objective:
    """The objective that `as_plain` was given."""
    if plain["kind"] == "NextToken":
        return NextToken()
    settings: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in plain["settings"].items()
    }
    return OVER_ANSWERS[plain["kind"]](**settings)
