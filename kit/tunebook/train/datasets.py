"""A training set and a held-out set as a run needs them: opened, split, encoded and checked against one another.

What comes in is whatever a person passes to the Trainer; what goes out are encoded rows, prompts to sample from, and a
sentence about everything that was left out, cut or found odd.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..config import TrainingConfig
from ..data.encoded import Encoded
from ..data.formats import RefusedRows
from ..data.opened import Opened, ReadingOptions, open_rows, told_format
from ..data.pretraining import MultimodalPretrain, check, reach_of_documents
from ..data.row_kinds import row_kind
from ..data.sources import Source, held_out_places, stream_rows
from ..models.families.tables import BeyondTable, most_written
from ..models.generation import Prompt, as_prompt, opening
from ..models.loaded import Loaded
from ..models.resize import added_rows
from ..models.tensors import flat
from ..tokens.bad_rows import broken_notices, without_bad_rows
from ..tokens.batch_order import padding_notice
from ..tokens.encoding import EncodedSet, encode, row_encoder
from ..tokens.feed import Feed, StoredFeed, StreamFeed
from ..tokens.packing import pack, packing_notice
from ..tokens.stored_rows import lengths_of
from ..tokens.tally import Account, together
from .packing_check import why_not_packed

MOST_HELD_OUT = 64  # rows held out when nobody says how many; more make a loss steadier and every evaluation slower
SAMPLED_ROWS = 2  # how many rows samples are taken of when no prompts are given


@dataclass(frozen=True, kw_only=True)
class Datasets:
    """What a person gave, and how it is to be read."""

    train: Source | MultimodalPretrain
    held_out: Source | MultimodalPretrain | None = None  # None: as many training rows as TrainingConfig.hold_out says
    options: ReadingOptions = field(default_factory=ReadingOptions)


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What a run trains on, measures with and samples from."""

    train: EncodedSet
    opened: Opened  # the training source, of a stream its head; `Encoded.number` counts the rows of its `source`
    feed: Feed  # what steps are made of: the rows of `train`, those packed, or a stream that begins with `train`
    held_out: EncodedSet | None
    prompts: list[Prompt]
    notices: list[str]

    @property
    def skip_unreadable(self) -> bool:
        """Whether rows are left out whose images cannot be opened when their batch is made."""
        return skips_unreadable(self.opened.options.documents)


def prepare(datasets: Datasets, loaded: Loaded, config: TrainingConfig, max_seq_length: int) -> Prepared:
    """Open, split and encode. Raises as `open_rows`, `pretraining.check` and `encoding.encode` do.

    What is said of rows that cannot be trained on is said of all rows of a source, before any is held out.
    """
    _check_documents(datasets, loaded, config)
    if config.streaming:
        return _streamed(datasets, loaded, config, max_seq_length)
    sets = {"train_dataset": open_rows(datasets.train, "train_dataset", datasets.options)}
    if datasets.held_out is not None:
        sets["eval_dataset"] = open_rows(datasets.held_out, "eval_dataset", datasets.options)
    left_out = broken_notices(sets)
    if datasets.options.skip_bad_rows:
        sets, said = without_bad_rows(sets, loaded, max_seq_length=max_seq_length)
        left_out += said
    try:
        prepared = _prepared(sets, loaded, config, max_seq_length)
    except RefusedRows:
        without_bad_rows(sets, loaded, max_seq_length=max_seq_length)  # raises, and says it of whole sources
        raise
    prepared.notices[:0] = left_out
    return prepared


def _prepared(sets: dict[str, Opened], loaded: Loaded, config: TrainingConfig, max_seq_length: int) -> Prepared:
    """`prepare` for sources that are open, under the names of their arguments."""

    def encoded(opened: Opened, name: str) -> EncodedSet:
        return encode(opened, loaded, max_seq_length=max_seq_length, name=name)

    opened, notices = sets["train_dataset"], list[str]()
    if "eval_dataset" in sets:
        to_measure = sets["eval_dataset"]
        train, held_out = encoded(opened, "train_dataset"), encoded(to_measure, "eval_dataset")
        if both := _in_both(train.rows, held_out.rows):
            notices.append(
                f"{both} of the {len(held_out.rows)} held-out rows {'is' if both == 1 else 'are'} trained on as well, "
                "so the loss measures memory; split with hold_out(rows, n)."
            )
        notices += train.notices + held_out.notices
    elif (split := _split(opened, config)) is not None:
        to_train, to_measure = (opened.at(places) for places in split)
        train = encoded(to_train, "train_dataset")
        held_out = encoded(to_measure, "the rows held out of train_dataset")
        copies = len(opened.rows) - len(to_train.rows) - len(to_measure.rows)
        left_out = f"; {copies} copies of them are left out as well" if copies else ""
        notices.append(
            f"{(count := len(to_measure.rows))} of the {len(opened.rows)} rows {'is' if count == 1 else 'are'} held "
            f"out to measure with, and not trained on{left_out}; pass eval_dataset to choose them, or "
            "TrainingConfig(hold_out=0) to train on all."
        )
        notices += together(train.account, held_out.account).by_kind().values()
    else:
        to_measure, train, held_out = opened, encoded(opened, "train_dataset"), None
        notices += train.notices
    notices += _on_positions(train.rows, loaded, config) + _on_new_rows(loaded)
    batched = train.rows
    if config.packing:
        batched = _packed(train.rows, loaded, config, max_seq_length)
        notices.append(packing_notice(batched, max_seq_length=max_seq_length))
    if said := padding_notice(lengths_of(batched), config, max_seq_length=max_seq_length):
        notices.append(said)
    return Prepared(
        train=train,
        opened=opened,
        feed=StoredFeed(batched, config),
        held_out=held_out,
        prompts=_prompts(to_measure, held_out or train, loaded, config),
        notices=notices,
    )


def encode_more(
    given: Source | MultimodalPretrain, datasets: Datasets, loaded: Loaded, config: TrainingConfig, max_seq_length: int
) -> EncodedSet:
    """Other rows, which are only measured, read as those of `datasets` are. Raises as `prepare` does."""
    _check_documents(replace(datasets, train=given, held_out=None), loaded, config)
    opened = open_rows(given, "rows", datasets.options)
    said = tuple(broken_notices({"rows": opened}))
    return replace(encode(opened, loaded, max_seq_length=max_seq_length), said=said)


def skips_unreadable(given: Any) -> bool:
    """Whether `given` are documents of which those with images that cannot be opened are left out."""
    return isinstance(given, MultimodalPretrain) and given.skip_bad_images


def _streamed(datasets: Datasets, loaded: Loaded, config: TrainingConfig, max_seq_length: int) -> Prepared:
    """A stream, of which only the first rows are encoded beforehand: they show whether it can be trained on."""
    given = datasets.train
    documents, source = (given, given.source) if isinstance(given, MultimodalPretrain) else (None, given)
    skip = documents.skip if documents else 0
    stream = stream_rows(source, "train_dataset", skip=skip, skip_bad_rows=datasets.options.skip_bad_rows)
    places = range(skip, len(stream.head))
    reach = reach_of_documents(documents, stream.reach) if documents else stream.reach
    options = replace(datasets.options, documents=documents)
    head = Opened(
        source=stream.head,
        rows=stream.head[skip:],
        places=places,
        options=options,
        reach=reach,
        format=told_format(stream.head[skip:], options),
        place=stream.place,
        broken=stream.broken,
    )
    train = encode(head, loaded, max_seq_length=max_seq_length, name="train_dataset")
    account = Account(name="train_dataset", max_seq_length=max_seq_length, place=stream.place)
    encode_one = row_encoder(replace(head, rows=stream.head), loaded, account)
    held_out, to_measure, notices = None, head, broken_notices({"train_dataset": head})
    notices += _on_positions(train.rows, loaded, config) + _on_new_rows(loaded)
    if datasets.held_out is not None:
        to_measure = open_rows(datasets.held_out, "eval_dataset", datasets.options)
        held_out = encode(to_measure, loaded, max_seq_length=max_seq_length, name="eval_dataset")
        notices += broken_notices({"eval_dataset": to_measure}) + held_out.notices
    else:
        notices.append("Nothing is held out of a stream, so no loss is measured; pass eval_dataset to measure one.")
    return Prepared(
        train=train,
        opened=head,
        feed=StreamFeed(stream, train.rows, encode_one, account, config, skip=skip),
        held_out=held_out,
        prompts=_prompts(to_measure, held_out or train, loaded, config),
        notices=notices,
    )


def _check_documents(datasets: Datasets, loaded: Loaded, config: TrainingConfig) -> None:
    names = ("format", "formatting_func", "response_markers", "thinking")
    check(
        datasets.train,
        datasets.held_out,
        model=loaded.name,
        placeholder=loaded.family.placeholder,
        packing=config.packing,
        train_on=config.train_on,
        given=[name for name in names if vars(datasets.options)[name] is not None],
    )


def _on_positions(rows: Sequence[Encoded], loaded: Loaded, config: TrainingConfig) -> list[str]:
    """A sentence where the model has fewer positions than max_seq_length, or was trained on fewer than rows have."""
    asked, table = config.max_seq_length or loaded.max_seq_length, loaded.family.tables.positions
    if table is not None and table < asked:
        return [f"max_seq_length is {table} and not {asked}: this model has a table of {table} positions."]
    known = loaded.config.get("text_config", loaded.config).get("max_position_embeddings")
    lengths = lengths_of(rows)
    beyond = sum(length > known for length in lengths) if isinstance(known, int | float) else 0
    if not beyond:
        return []
    return [
        f"{beyond} rows, the longest of {max(lengths)} tokens, reach beyond the {known} positions this model was made "
        f"for (max_position_embeddings); with max_seq_length={known} they are cut there."
    ]


def _on_new_rows(loaded: Loaded) -> list[str]:
    """A sentence where rows were added for new tokens and nothing trains them."""
    added, trained = added_rows(loaded), flat(loaded.module.trainable_parameters())
    if not added or any(name.startswith(loaded.family.tables.paths) for name in trained):
        return []
    return [
        f"{added} rows were added to the embedding for new tokens and are not trained; pass "
        f"modules_to_save={[path.rpartition('.')[2] for path in loaded.family.tables.paths]} to get_peft_model."
    ]


def _split(opened: Opened, config: TrainingConfig) -> tuple[Sequence[int], Sequence[int]] | None:
    """Places of the rows to train on and of those to hold out; None where that is less than a row, or all there is."""
    fewest = 2 if opened.options.answers == "labelled" else 1  # a KL of one answer would be its own reward
    wanted = min(MOST_HELD_OUT, int(config.hold_out * len(opened.rows)))
    if not wanted:
        return None
    try:
        return held_out_places(opened.rows, max(fewest, wanted), config.seed)
    except ValueError:  # hardly any two rows are distinct
        return None


def _packed(rows: Sequence[Encoded], loaded: Loaded, config: TrainingConfig, max_seq_length: int) -> Sequence[Encoded]:
    """Raises ValueError for a model that would not train on packed documents as on each alone."""
    if (reason := why_not_packed(loaded.family, loaded.module, max_seq_length=max_seq_length)) is not None:
        raise ValueError(f"TrainingConfig.packing is on, but {loaded.name} cannot be packed: {reason}. Set it off.")
    return pack(rows, max_seq_length, seed=config.seed)


def _in_both(train: Sequence[Encoded], held_out: Sequence[Encoded]) -> int:
    """How many held-out rows are, token for token, training rows too."""
    digests = [row.digest for row in held_out]
    wanted = set(digests)
    trained = {digest for row in train if (digest := row.digest) in wanted}
    return sum(digest in trained for digest in digests)


def _prompts(opened: Opened, measured: EncodedSet, loaded: Loaded, config: TrainingConfig) -> list[Prompt]:
    """What samples are taken of: the prompts that were given, else the openings of the first rows.

    Raises ValueError for a prompt that was given and reaches beyond a table of the model.
    """
    if config.sample_prompts:
        given = [
            as_prompt(prompt, loaded.tokenizer, loaded.family.placeholder, thinking=config.thinking)
            for prompt in config.sample_prompts
        ]
        for number, prompt in enumerate(given):
            try:
                _check_prompt(prompt, loaded)
            except BeyondTable as error:
                raise ValueError(f"Prompt {number} of sample_prompts cannot be answered: {error}") from error
        return given
    return [prompt for prompt in _openings(opened, measured, loaded) if _fits(prompt, loaded)]


def _check_prompt(prompt: Prompt, loaded: Loaded) -> None:
    """Raise BeyondTable for a prompt the model cannot answer."""
    (row,) = loaded.family.encode([prompt.example])
    most_written(row.tokens, loaded.family.tables, loaded.tokenizer, max_tokens=1)


def _fits(prompt: Prompt, loaded: Loaded) -> bool:
    """Whether the opening of a row that is cut before training is itself within the positions."""
    if loaded.family.tables.positions is None:
        return True
    try:
        _check_prompt(prompt, loaded)
    except BeyondTable:
        return False
    return True


def _openings(opened: Opened, measured: EncodedSet, loaded: Loaded) -> list[Prompt]:
    """Those of the first rows that were not left out, up to where the assistant speaks."""
    numbers = dict.fromkeys(row.number for row in measured.rows[:MOST_HELD_OUT])
    rows = [opened.source[number] for number in list(numbers)[:SAMPLED_ROWS]]
    some = replace(opened, rows=rows, options=replace(opened.options, train_on="assistant"))
    read = row_kind(some, loaded.tokenizer, loaded.family.placeholder, looks_at_images=False).reader()
    prompts = [opening(read(row), loaded.tokenizer) for row in rows]
    are_told_apart = len({prompt.shown for prompt in prompts}) == len(prompts)
    return prompts if are_told_apart else [opening(read(row)) for row in rows]
