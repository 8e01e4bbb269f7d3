"""Rows that are read while a run goes on: the same rows for the same step, from any step on, and nothing kept."""

import json
import resource
import time
from collections import Counter
from dataclasses import asdict
from itertools import islice, takewhile

import datasets
import numpy as np
import pytest

from tests.makers.small_runs import same, weights
from tunebook import FastModel, Trainer, TrainingConfig
from tunebook.config import TrainingConfig as Config
from tunebook.data.encoded import Encoded
from tunebook.data.sources import stream_rows
from tunebook.events import Notice
from tunebook.tokens.feed import BLOCK, Place, StoredFeed, StreamFeed
from tunebook.tokens.tally import Account

MANY = BLOCK * 2 + 90


def settings(**given):
    return Config(**{"per_device_train_batch_size": 4, "gradient_accumulation_steps": 3, "max_steps": 9, **given})


def numbered(count):
    return [{"text": str(number)} for number in range(count)]


def as_is(number, row):
    """A row as one piece that says its number; a row of several texts as several."""
    return [
        Encoded(tokens=np.array([int(row["text"]), piece]), loss_mask=np.ones(2, bool), number=number)
        for piece in range(row.get("pieces", 1))
    ]


def feed_of(source, **given):
    return StreamFeed(stream_rows(source), [], as_is, Account(name="rows", max_seq_length=8), settings(**given))


def numbers(portion):
    return [[(row.number, int(row.tokens[1])) for row in batch] for batch in portion.batches]


def epoch_of(feed, epoch=0):
    """The rows of one epoch's portions, in order."""
    portions = takewhile(lambda portion: portion.place.epoch == epoch, feed.portions(Place(epoch=epoch)))
    return [row for portion in portions for batch in numbers(portion) for row in batch]


def test_an_epoch_of_a_stream_has_every_row_once_in_an_order_of_its_own():
    feed = feed_of(numbered(MANY))
    first, second = epoch_of(feed), epoch_of(feed, 1)
    assert Counter(first) == Counter(second) == Counter((number, 0) for number in range(MANY))
    assert first != second != sorted(second)
    assert epoch_of(feed_of(numbered(MANY), dataset_order="sequential")) == sorted(first)


def test_rows_change_places_within_their_block_alone():
    order = [number for number, _ in epoch_of(feed_of(numbered(MANY)))]
    assert [number // BLOCK for number in order] == [place // BLOCK for place in range(MANY)]


def test_no_batch_and_no_step_of_a_stream_spans_two_epochs():
    portions = list(islice(feed_of(numbered(29)).portions(Place()), 6))
    assert [[len(batch) for batch in portion.batches] for portion in portions] == [[4, 4, 4], [4, 4, 4], [4, 1]] * 2
    assert [portion.place.epoch for portion in portions] == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("order", ["shuffle", "sequential"])
def test_a_stream_goes_on_from_any_step_as_if_it_had_never_stopped(order):
    rows = [{**row, "pieces": number % 4} for number, row in enumerate(numbered(MANY))]  # every fourth is left out
    feed = feed_of(rows, dataset_order=order)
    straight = list(islice(feed.portions(Place()), 300))
    for stop in (1, 2, 40, 90, 139, 140, 141, 250):
        place = Place(**json.loads(json.dumps(asdict(straight[stop - 1].place))))
        resumed = islice(feed.portions(place), 300 - stop)
        assert [(numbers(one), one.place) for one in resumed] == [(numbers(one), one.place) for one in straight[stop:]]


def test_a_stored_set_goes_on_from_any_step_too():
    rows = [as_is(number, row)[0] for number, row in enumerate(numbered(29))]
    feed = StoredFeed(rows, settings())
    straight = [numbers(portion) for portion in islice(feed.portions(Place()), 8)]
    assert [numbers(portion) for portion in islice(feed.portions(Place(step=5)), 3)] == straight[5:]


def test_whatever_rows_come_in_streams_the_same():
    rows = numbered(700)
    kinds = {
        "list": rows,
        "function": lambda: iter(rows),
        "iterator": iter(rows),
        "iterable": type("Iterable", (), {"__iter__": lambda self: iter(rows)})(),
        "Dataset": datasets.Dataset.from_list(rows),
        "IterableDataset": datasets.Dataset.from_list(rows).to_iterable_dataset(num_shards=3),
    }
    found = {kind: epoch_of(feed_of(source)) for kind, source in kinds.items() if kind != "iterator"}
    found["iterator"] = [
        row
        for portion in islice(feed_of(kinds["iterator"]).portions(Place()), 59)
        for batch in numbers(portion)
        for row in batch
    ]
    assert set(map(tuple, found.values())) == {tuple(found["list"])}


def test_an_iterator_says_that_it_can_be_read_once():
    portions = feed_of(iter(numbered(20))).portions(Place())
    assert [len(next(portions).batches) for _ in range(2)] == [3, 2]
    with pytest.raises(ValueError, match=r"can be read once.*pass a function that returns it"):
        next(portions)


def test_a_stream_without_a_row_to_train_on_is_an_error_and_not_an_endless_search():
    with pytest.raises(ValueError, match="gave no row that can be trained on"):
        next(feed_of([{"text": "1", "pieces": 0}] * 5).portions(Place()))
    with pytest.raises(ValueError, match="is empty"):
        stream_rows(lambda: iter(()))


def test_a_row_of_a_stream_that_is_no_dict_is_named():
    stream = stream_rows(lambda: iter([{"text": "1"}] * 100 + ["two"]))
    with pytest.raises(TypeError, match="Row 100 of train_dataset is a str"):
        list(stream.start_at(90))


def test_two_hundred_thousand_rows_keep_memory_flat_and_the_last_step_is_found_in_a_moment(tmp_path):
    path, count = tmp_path / "rows.jsonl", 200_000
    with path.open("w") as file:
        file.writelines(f'{{"text": "{number}", "filling": "{"x" * 100}"}}\n' for number in range(count))
    stream = stream_rows(str(path))
    config = settings(per_device_train_batch_size=500, gradient_accumulation_steps=2)
    feed = StreamFeed(stream, [], as_is, Account(name="rows", max_seq_length=8), config)
    before, last, seen = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, None, 0
    for portion in islice(feed.portions(Place()), 200):
        seen += sum(map(len, portion.batches))
        last, before_last = portion, last
    assert seen == count
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000  # KB; the rows are 27 MB of text
    began = time.process_time()
    found = next(feed.portions(before_last.place))
    assert time.process_time() - began < 2
    assert numbers(found) == numbers(last)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"max_steps": None}, "streaming needs max_steps"),
        ({"packing": True}, "streaming and packing are both on"),
        ({"dataset_order": "length_grouped"}, "not with 'length_grouped'"),
    ],
)
def test_what_a_stream_cannot_do_is_refused_when_the_settings_are_made(given, said):
    with pytest.raises(ValueError, match=said):
        settings(streaming=True, **given)


def train(folder, source, out, **given):
    model, _ = FastModel.from_pretrained(folder, max_seq_length=64)
    FastModel.get_peft_model(model, r=4, lora_dropout=0.1)
    args = TrainingConfig(
        streaming=True,
        max_steps=8,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        save_steps=3,
        output_dir=str(out),
        learning_rate=5e-3,
    )
    trainer = Trainer(model, train_dataset=source, args=args)
    notices = []
    trainer.subscribe(lambda event: notices.append(event.text) if isinstance(event, Notice) else None)
    return trainer, trainer.train(**given), notices


def test_a_streamed_run_that_is_resumed_is_the_run_that_was_not_interrupted(tiny_folder, rows, tmp_path):
    straight, whole, notices = train(tiny_folder, rows, tmp_path / "straight")
    assert any("Nothing is held out of a stream" in text for text in notices)
    read = []

    def counted():
        for number, row in enumerate(rows):
            read.append(number)
            yield row

    first, _, _ = train(tiny_folder, counted, tmp_path / "resumed")
    checkpoint = next(path for path in (tmp_path / "resumed").rglob("step-00006"))
    resumed, rest, _ = train(tiny_folder, counted, tmp_path / "resumed", resume_from_checkpoint=checkpoint)
    assert [step.loss for step in rest.steps] == [step.loss for step in whole.steps]
    assert same(weights(straight), weights(resumed))
    assert same(weights(first), weights(resumed))
    ends = [result.steps[-1] for result in (whole, rest)]
    assert ends[0].total_tokens == ends[1].total_tokens > ends[0].trainable_tokens == ends[1].trainable_tokens > 0


def test_token_accounts_count_every_slot_and_every_label(tiny_folder, rows, tmp_path):
    trainer, result, _ = train(tiny_folder, rows, tmp_path)
    total = trainable = 0
    for step, portion in zip(result.steps, trainer.data.feed.portions(Place()), strict=False):
        for batch in portion.batches:
            total += 33 * len(batch) if max(len(row.tokens) for row in batch) <= 32 else 64 * len(batch)
            trainable += sum(int(row.loss_mask.sum()) for row in batch)
        assert (step.total_tokens, step.trainable_tokens) == (total, trainable)


def test_a_row_of_a_stream_that_cannot_be_trained_on_ends_the_run_with_its_number_and_a_checkpoint(
    tiny_folder, rows, tmp_path
):
    bad = [*(rows * 6)[:64], *[{"messages": [{"role": "user", "content": "And?"}]}] * 64]
    with pytest.raises(ValueError, match=r"Row (6[4-9]|[789]\d|1\d\d) of train_dataset cannot be trained on"):
        train(tiny_folder, bad, tmp_path)
    assert list(tmp_path.rglob("step-*/state.json"))
