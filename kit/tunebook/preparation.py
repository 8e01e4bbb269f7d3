"""A training set and a held-out set as a run needs them: opened, split, encoded and checked against one another.

What comes in is whatever a person passes to the Trainer; what goes out are encoded rows, prompts to sample from, and a
sentence about everything that was left out, cut or found odd.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from .batches import padding_notice
from .config import TrainingConfig
from .encoded import lengths_of
from .encoding import EncodedSet, encode_rows
from .families.base import Encoded
from .formats import FormattingFunc, Markers, to_examples
from .loader import Loaded
from .sampling import Prompt, as_prompt, opening
from .sources import Row, Source, hold_out, read_rows

MOST_HELD_OUT = 64  # rows held out when nobody says how many; more make a loss steadier and every evaluation slower
SAMPLED_ROWS = 2  # how many rows samples are taken of when no prompts are given


@dataclass(frozen=True, kw_only=True)
class Sources:
    """What a person gave, and how it is to be read."""

    train: Source
    held_out: Source | None = None  # None: some of the training rows, as TrainingConfig.hold_out says
    format: str | None = None  # a key of formats.FORMATS; None: told from the columns
    formatting_func: FormattingFunc | None = None
    response_markers: Markers | None = None  # (instruction_part, response_part)


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What a run trains on, measures with and samples from."""

    train: EncodedSet
    train_rows: Sequence[Row]  # what `train` was made of; `Encoded.number` counts these
    held_out: EncodedSet | None
    prompts: list[Prompt]
    notices: list[str]


def prepare(sources: Sources, loaded: Loaded, config: TrainingConfig, max_seq_length: int) -> Prepared:
    """Open, split and encode. Raises as `sources.read_rows` and `encoding.encode_rows` do."""
    notices: list[str] = []
    train = read_rows(sources.train, "train_dataset")
    if sources.held_out is not None:
        held_out = read_rows(sources.held_out, "eval_dataset")
    else:
        train, held_out = _split(train, config)
        if held_out:
            notices.append(
                f"{len(held_out)} of the rows are held out to measure with, and not trained on; pass eval_dataset to "
                "choose them, or TrainingConfig(hold_out=0) to train on all."
            )

    def encode(rows: Sequence[Row], name: str) -> EncodedSet:
        return encode_rows(
            rows,
            loaded,
            max_seq_length=max_seq_length,
            name=name,
            format=sources.format,
            train_on=config.train_on,
            response_markers=sources.response_markers,
            formatting_func=sources.formatting_func,
        )

    train_set = encode(train, "train_dataset")
    held_out_set = encode(held_out, "eval_dataset") if held_out else None
    notices += train_set.notices + (held_out_set.notices if held_out_set else [])
    given = sources.held_out is not None  # what was split here has no rows in common
    if given and held_out_set and (both := _in_both(train_set.rows, held_out_set.rows)):
        notices.append(
            f"{both} of the {len(held_out_set.rows)} held-out rows are trained on as well, so their loss measures "
            "memory; split with hold_out(rows, n)."
        )
    if said := padding_notice(lengths_of(train_set.rows), config, max_seq_length=max_seq_length):
        notices.append(said)
    return Prepared(
        train=train_set,
        train_rows=train,
        held_out=held_out_set,
        prompts=_prompts(held_out or train, sources, loaded, config),
        notices=notices,
    )


def _split(rows: Sequence[Row], config: TrainingConfig) -> tuple[Sequence[Row], Sequence[Row]]:
    """(train, held out); nothing is held out where that would be less than a row, or all there is."""
    wanted = min(MOST_HELD_OUT, int(config.hold_out * len(rows)))
    if wanted:
        try:
            return hold_out(rows, wanted, config.seed)
        except ValueError:  # hardly any two rows are distinct
            pass
    return rows, []


def _in_both(train: Sequence[Encoded], held_out: Sequence[Encoded]) -> int:
    """How many held-out rows are, token for token, training rows too."""
    digests = [_digest(row) for row in held_out]
    wanted = set(digests)
    trained = {digest for row in train if (digest := _digest(row)) in wanted}
    return sum(digest in trained for digest in digests)


def _digest(row: Encoded) -> bytes:
    return hashlib.blake2b(row.tokens.tobytes() + row.loss_mask.tobytes(), digest_size=16).digest()


def _prompts(rows: Sequence[Row], sources: Sources, loaded: Loaded, config: TrainingConfig) -> list[Prompt]:
    """What samples are taken of: the prompts that were given, else the openings of the first rows."""
    if config.sample_prompts:
        return [as_prompt(prompt, loaded.tokenizer) for prompt in config.sample_prompts]
    examples = to_examples(
        rows[:SAMPLED_ROWS],
        loaded.tokenizer,
        sources.format,
        response_markers=sources.response_markers,
        formatting_func=sources.formatting_func,
    )
    return [opening(example) for example in examples]
