"""Likelihoods of rows that begin alike: those of the rows one by one, with most of their tokens read once."""

import numpy as np
import pytest

from tests.models.families.test_batched import TOGETHER, made
from tunebook import scores
from tunebook.data.encoded import Encoded
from tunebook.models.families.text import TextFamily
from tunebook.scores.likelihoods import summed_likelihoods
from tunebook.scores.likelihoods.shared import beginnings

SHOTS, QUESTIONS, CHOICES = 60, 7, 4


def rows_of_choices():
    """Of 7 questions, 5 behind the same 60 tokens and 2 behind 20 of them, each with 4 choices of 1 to 5 tokens."""
    random = np.random.default_rng(0)

    def ids(count):
        return random.integers(3, 500, count).tolist()

    shots, rows = ids(SHOTS), []
    for question in range(QUESTIONS):
        asked = shots[: SHOTS if question < 5 else SHOTS // 3] + ids(12 + 3 * question)
        for choice in range(CHOICES):
            tokens = np.array(asked + ids(1 + (question + choice) % 5), np.int32)
            rows.append(Encoded(tokens=tokens, loss_mask=np.arange(len(tokens)) >= len(asked)))
    return rows


def all_of(some):
    return [one for begun in some for one in (begun, *all_of(begun.inner))]


def test_every_row_is_behind_tokens_that_are_its_own_and_predict_nothing_of_it():
    rows = rows_of_choices()
    found, whole = beginnings(rows)
    assert whole == []

    def check(some, before):
        for one in some:
            tokens = np.append(before, rows[one.row].tokens[one.start : one.end])
            assert one.end == len(tokens) > one.start
            for row in one.rows:
                assert rows[row].tokens[: one.end].tolist() == tokens.tolist()
                assert not rows[row].loss_mask[: one.end + 1].any()
            check(one.inner, tokens)

    check(found, np.array([], np.int32))
    assert sorted(row for one in all_of(found) for row in one.rows) == [*range(len(rows))]
    (few,) = found
    assert (len(few), few.end) == (SHOTS // 3, SHOTS // 3)
    assert sorted(len(one) for one in few.inner)[-1] == SHOTS - SHOTS // 3


def test_nothing_is_shared_where_it_saves_little():
    row = Encoded(tokens=np.arange(3, 20, dtype=np.int32), loss_mask=np.arange(17) >= 12)
    other = Encoded(tokens=np.arange(4, 40, dtype=np.int32), loss_mask=np.arange(36) >= 12)
    assert beginnings([]) == ([], [])
    assert beginnings([row]) == ([], [0])
    found, whole = beginnings([row, other, row])
    assert (found, sorted(whole)) == ([], [0, 1, 2])


def test_beginnings_that_end_in_one_another_a_hundred_times_are_three_deep():
    tokens = np.arange(3, 500, dtype=np.int32)
    rows = [Encoded(tokens=tokens[:end], loss_mask=np.arange(end) == end - 1) for end in range(40, 490, 4)]
    found, whole = beginnings(rows)
    depth, some = 0, found
    while some:
        depth, some = depth + 1, [inner for one in some for inner in one.inner]
    assert depth == 3
    assert sorted([*whole, *(row for one in all_of(found) for row in one.rows)]) == [*range(len(rows))]


@pytest.mark.parametrize("kind", ["llama", "gemma3", "gpt2", "qwen3_5"])
@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_likelihoods_are_those_of_rows_asked_one_by_one_with_nothing_shared(kind, batch_size, tmp_path):
    model, rows = made(tmp_path, kind, TOGETHER[kind]), rows_of_choices()
    model.module.eval()
    found = dict(summed_likelihoods(model.family, model.module, rows, batch_size=batch_size))
    assert sorted(found) == [*range(len(rows))]
    for place, row in enumerate(rows):
        ((_, alone),) = summed_likelihoods(model.family, model.module, [row], batch_size=1)
        assert found[place].nats == pytest.approx(alone.nats, abs=1e-4)
        assert (found[place].tokens, found[place].is_greedy) == (alone.tokens, alone.is_greedy)


def test_a_question_is_read_once_for_all_its_choices_and_the_examples_once_for_all_questions(tmp_path, monkeypatch):
    model, read, plain = made(tmp_path, "llama", {}), [], TextFamily.hidden
    model.module.eval()
    rows = rows_of_choices()

    def hidden(self, module, batch):
        read.append(batch["tokens"].size)
        return plain(self, module, batch)

    monkeypatch.setattr(TextFamily, "hidden", hidden)
    model.family.why_apart(model.module)  # its probe is not to be counted
    read.clear()
    list(summed_likelihoods(model.family, model.module, rows, batch_size=8))
    # Only choices, each with the last token of its question, pass here; the longest has 5 tokens.
    assert sum(read) <= len(rows) * 6


def test_an_exam_says_why_its_choices_are_read_with_their_whole_question(tmp_path):
    rows = [
        {"question": f"What is {place}? " + "And then? " * 12, "choices": ["a fox", "a dog", "noon"], "answer": 1}
        for place in range(3)
    ]
    exam = scores.Exam(rows, metrics=["multiple_choice"])
    (said,) = exam.take(made(tmp_path, "lfm2", TOGETHER["lfm2"])).notices
    assert said.startswith("What several rows begin with was read again with each of them: its layers carry state")
    assert exam.take(made(tmp_path, "llama", {})).notices == ()
