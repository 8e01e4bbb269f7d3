"""What `model.generate` of transformers is given, in this kit's terms: what to go on from, and how tokens are drawn."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from ...data.examples import Example, Tokens
from ...models.generation import written
from ...models.loaded import Loaded
from ...settings.taken import elsewhere
from ..told import tell
from .inputs import Ids, ids_of, padded
from .streamer import Streamer
from .tokenizer import Seen

MAX_NEW_TOKENS = 256
GREEDY = (
    "`model.generate` takes the likeliest token unless it is told a temperature, whatever the model's "
    "generation_config.json says; write temperature=0.7 to draw."
)
# What changes nothing of what is written, as notebooks ask for it.
HARMLESS = ("use_cache", "pad_token_id", "token_type_ids", "cache_implementation", "disable_compile")
NEUTRAL = {"repetition_penalty": 1.0, "num_beams": 1, "num_return_sequences": 1, "return_dict_in_generate": False}


def generated(
    loaded: Loaded,
    input_ids: Any,
    *,
    seen: Seen | None,
    attention_mask: Any,
    streamer: Streamer | None,
    max_new_tokens: int | None,
    options: Mapping[str, Any],
) -> Ids:
    """(B, T): each of the rows (B, T') of `input_ids` and what was written behind it, padded at the end.

    With `seen` that is read, with its images, in place of the one row. Raises TypeError for `options` that are not
    here.
    """
    rows = np.atleast_2d(np.asarray(input_ids)).tolist()
    masks = [[1] * len(row) for row in rows] if attention_mask is None else np.atleast_2d(attention_mask).tolist()
    settings = sampling(options, loaded.tokenizer.eos_token_ids)
    longest = settings.pop("max_length", None)
    if max_new_tokens is None:
        max_new_tokens = MAX_NEW_TOKENS if longest is None else max(1, longest - len(rows[0]))
    found: list[list[int]] = []
    for row, mask in zip(rows, masks, strict=True):
        own = tuple(token for token, kept in zip(row, mask, strict=True) if kept)
        example = Example((Tokens(own, (False,) * len(own)),), rendered=True) if seen is None else seen.example
        if streamer is not None:
            streamer.put(ids_of([row]))
        new: list[int] = []
        for piece in written(loaded, example, max_tokens=max_new_tokens, **settings):
            if piece.token is not None:
                new.append(piece.token)
                if streamer is not None:
                    streamer.put(ids_of([new[-1:]])[0])
        if streamer is not None:
            streamer.end()
        found.append([*row, *new])
    pad, end = loaded.tokenizer.pad_token_id, loaded.tokenizer.eos_token_id
    return padded(found, next((one for one in (pad, end) if one is not None), 0), side="right")[0]


def sampling(options: Mapping[str, Any], ends: Collection[int]) -> dict[str, Any]:
    """temperature, top_p, min_p and top_k, and max_length where it is given. Raises TypeError for what is not here.

    `ends` are the tokens that end an answer.
    """
    taken: dict[str, Any] = {}
    refused: list[str] = []
    for name, value in options.items():
        if name in ("temperature", "top_p", "min_p", "top_k", "max_length"):
            taken[name] = value
        elif name == "eos_token_id" and {*(value if isinstance(value, Sequence) else [value])} <= {*ends}:
            continue  # they end answers anyhow
        elif name != "do_sample" and name not in HARMLESS and value is not None and NEUTRAL.get(name) != value:
            known = elsewhere("generate", name, value)
            refused.append(f"generate takes no {name}{'.' if known is None else f': {known}.'}")
    if refused:
        raise TypeError("\n".join(refused))
    taken = {name: value for name, value in taken.items() if value is not None}
    draws = options.get("do_sample")
    if draws is False or ("temperature" not in taken and not draws):
        if draws is None:
            tell(GREEDY)
        return {name: value for name, value in taken.items() if name == "max_length"}
    return {"temperature": 1.0, **taken}
