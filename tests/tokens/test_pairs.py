"""Pairs and judged answers as rows: two sequences or one, through the disk and into a batch."""

import json
from dataclasses import replace

import numpy as np
import pytest

from tests.makers.tiny import tiny_model_folder
from tunebook import FastModel
from tunebook.data.encoded import Encoded, sequences_of
from tunebook.events import EvalEvent, StepEvent, from_json, to_json
from tunebook.tokens.collation import collated
from tunebook.tokens.stored_rows import lengths_of, read_rows, write_rows


def pair(chosen: list[int], rejected: list[int], prompt: int = 2, number: int = 0) -> Encoded:
    masks = [np.arange(len(side)) >= prompt for side in (chosen, rejected)]
    tokens = np.array([*chosen, *rejected], np.int32)
    return Encoded(tokens=tokens, loss_mask=np.concatenate(masks), second=len(chosen), number=number)


PAIRS = [pair([5, 6, 7, 8], [5, 6, 9], number=3), pair([5, 6, 7], [5, 6, 8, 9, 10], number=4)]


def test_a_pair_is_two_sequences_each_with_its_own_mask():
    chosen, rejected = PAIRS[0].sequences
    assert (chosen.tokens.tolist(), rejected.tokens.tolist()) == ([5, 6, 7, 8], [5, 6, 9])
    assert (chosen.loss_mask.tolist(), rejected.loss_mask.tolist()) == ([False] * 2 + [True] * 2, [False] * 2 + [True])
    assert (PAIRS[0].longest, PAIRS[1].longest) == (4, 5)
    assert [row.supervised_tokens for row in PAIRS] == [3, 4]


def test_the_first_token_of_neither_sequence_is_predicted():
    row = pair([5, 6, 7], [5, 8], prompt=0)
    assert row.supervised_tokens == sum(sequence.supervised_tokens for sequence in row.sequences) == 3


def test_all_that_were_chosen_come_before_all_that_were_rejected():
    assert [len(one.tokens) for one in sequences_of(PAIRS)] == [4, 3, 3, 5]


def test_rows_that_are_no_pairs_are_their_own_sequences():
    row = Encoded(tokens=np.array([1, 2, 3], np.int32), loss_mask=np.array([False, True, True]))
    assert sequences_of([row]) == [row]
    assert (row.longest, row.supervised_tokens) == (3, 2)


def test_pairs_and_labels_come_back_from_the_disk_as_they_were(tmp_path):
    plain = Encoded(tokens=np.array([1, 2, 3], np.int32), loss_mask=np.array([False, True, True]), number=9)
    rows = [*PAIRS, plain, replace(plain, label=True), replace(plain, label=False)]
    write_rows(tmp_path, rows, lambda: {})
    stored, _ = read_rows(tmp_path)
    assert [(row.second, row.label, row.number) for row in stored] == [(r.second, r.label, r.number) for r in rows]
    assert [row.digest for row in stored] == [row.digest for row in rows]
    assert lengths_of(stored) == lengths_of(rows) == [4, 5, 3, 3, 3]


def test_rows_that_differ_in_where_a_side_begins_or_in_their_label_are_other_rows():
    same = pair([5, 6, 7], [5, 6, 7])
    others = [same, replace(same, second=2), replace(same, second=0), replace(same, second=0, label=True)]
    assert len({row.digest for row in others}) == len(others)


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    folder = tiny_model_folder(tmp_path_factory.mktemp("tiny") / "llama")
    return FastModel.from_pretrained(folder, max_seq_length=64)[0].loaded.family


def test_a_batch_of_pairs_has_both_sides_and_their_lengths(family):
    batch, left_out = collated(family, PAIRS, 64)
    assert left_out == []
    assert batch["tokens"].shape == (4, 33)  # padded to one more than a multiple of 32
    assert batch["tokens"][3, :6].tolist() == [5, 6, 8, 9, 10, 0]
    assert batch["lengths"].tolist() == [4, 3, 3, 5]
    assert int(batch["loss_mask"].sum()) == 7


def test_a_batch_of_judged_answers_has_their_labels(family):
    plain = Encoded(tokens=np.array([1, 2, 3], np.int32), loss_mask=np.array([False, True, True]))
    batch, _ = collated(family, [replace(plain, label=True), replace(plain, label=False)], 64)
    assert batch["labels"].tolist() == [True, False]


def test_metrics_of_an_objective_survive_the_log_and_nothing_that_is_no_number_does():
    step = StepEvent(
        step=1,
        total_steps=4,
        loss=2.5,
        lr=1e-4,
        tokens_sec=3.0,
        peak_gb=1.2,
        elapsed=3.4,
        num_tokens=9,
        grad_norm=0.7,
        metrics={"rewards/margins": 0.25},
    )
    score = EvalEvent(step=1, loss=1.0, rows=1, tokens=2, seconds=0.1, metrics={"kl": 0.5})
    assert [from_json(to_json(event)) for event in (step, score)] == [step, score]
    damaged = json.loads(to_json(score)) | {"metrics": {"kl": "0.5"}}
    with pytest.raises(ValueError, match="metrics"):
        from_json(json.dumps(damaged))
