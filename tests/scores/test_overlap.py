"""scores/overlap.py: rows of an exam that are trained on are found, as they are and nearly; others are left alone."""

import numpy as np
import pytest

from tests.makers.tiny import tiny_model_folder
from tunebook import FastModel
from tunebook.data.encoded import Encoded
from tunebook.data.opened import ReadingOptions, opened
from tunebook.scores.overlap import MOST_NAMED, Shared, shared_rows, told_of
from tunebook.scores.reading import questions
from tunebook.tokens.encoding import encode_rows

TEXT = "the quick brown fox jumps over lazy dog sleeps sun moon tune June Paris noon never again it is say"
WORDS = TEXT.split()
SYSTEM = {"role": "system", "content": " ".join(WORDS[:12])}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    return FastModel.from_pretrained(tiny_model_folder(tmp_path_factory.mktemp("overlap") / "llama"))[0].loaded


def chats(count, *, seed, system=()):
    """Long questions of words drawn at random, none of which is like another, behind the same system prompt."""
    draw = np.random.default_rng(seed)
    texts = [" ".join(draw.choice(WORDS, 30)) for _ in range(2 * count)]
    return [
        {"messages": [*system, {"role": "user", "content": ask}, {"role": "assistant", "content": answer}]}
        for ask, answer in zip(texts[::2], texts[1::2], strict=True)
    ]


def said(row, *, ask=None, answer=None):
    *before, user, assistant = row["messages"]
    return {
        "messages": [
            *before,
            user | {"content": ask or user["content"]},
            assistant | {"content": answer or assistant["content"]},
        ]
    }


def found(loaded, exam, rows, **options):
    asked = questions(opened(exam, ReadingOptions()), loaded)
    return shared_rows(asked, loaded.family, encode_rows(rows, loaded, max_seq_length=512, **options).rows)


def test_a_question_that_is_trained_on_is_found_whatever_its_answer_and_one_that_is_not_is_left_alone(loaded):
    exam, rows = chats(20, seed=1, system=[SYSTEM]), chats(20, seed=2, system=[SYSTEM])
    assert found(loaded, exam, rows) == []
    rows[7], rows[3] = exam[4], said(exam[9], answer="never")
    assert found(loaded, exam, rows) == [Shared(4, 7, 1.0), Shared(9, 3, 1.0)]


def test_a_row_with_few_other_words_is_nearly_the_same_and_one_with_half_of_them_is_not(loaded):
    exam, rows = chats(20, seed=1, system=[SYSTEM]), chats(5, seed=2, system=[SYSTEM])
    asked = [row["messages"][1]["content"].split() for row in exam]
    rows[2] = said(exam[0], ask=" ".join([*asked[0][:-1], "Zagreb"]))
    rows[3] = said(exam[1], ask=" ".join([*asked[1][:15], *asked[2][:15]]), answer="again")
    (one,) = found(loaded, exam, rows)
    assert (one.exam_row, one.training_row) == (0, 2)
    assert 0.8 <= one.share < 1


def test_the_same_question_of_another_picture_is_another_question(loaded):
    exam = [{"prompt": "What is it?", "completion": "a fox"}]
    asked = questions(opened(exam, ReadingOptions()), loaded)
    (row,) = encode_rows(exam, loaded, max_seq_length=64).rows

    class Family:
        """Encodes as the model's own, and adds a picture to each row."""

        def encode(self, examples):
            return [with_picture(one, b"exam") for one in loaded.family.encode(examples)]

    def with_picture(row, digest):
        return Encoded(row.tokens, row.loss_mask, images=(type("Picture", (), {"digest": digest})(),))

    assert shared_rows(asked, Family(), [with_picture(row, b"other")]) == []
    assert shared_rows(asked, Family(), [with_picture(row, b"exam")]) == [Shared(0, 0, 1.0)]


def test_texts_without_a_question_are_compared_whole(loaded):
    exam = [{"text": "the quick brown fox"}, {"text": "the lazy dog sleeps"}]
    assert found(loaded, exam, [{"text": "the quick brown"}, exam[1]]) == [Shared(1, 1, 1.0)]


def test_rows_that_were_packed_are_found_by_their_documents(loaded):
    exam = chats(2, seed=1)
    first, second = encode_rows([chats(1, seed=3)[0], exam[1]], loaded, max_seq_length=512).rows
    lengths = [len(first.tokens), len(second.tokens)]
    packed = Encoded(
        np.concatenate([first.tokens, second.tokens]),
        np.concatenate([first.loss_mask, second.loss_mask]),
        segments=np.repeat(np.arange(2, dtype=np.int32), lengths),
    )
    asked = questions(opened(exam, ReadingOptions()), loaded)
    assert shared_rows(asked, loaded.family, [packed]) == [Shared(1, 0, 1.0)]


def test_the_first_are_named_and_all_are_counted():
    many = [Shared(at, at + 10, 1.0) for at in range(MOST_NAMED + 1)]
    (text,) = told_of([*many, Shared(9, 99, 0.9)], 40)
    assert text.startswith("Of 40 rows of the exam 4 are training rows (the first: row 0 is like row 10, row 1 ")
    assert " and 1 nearly are (row 9 is like row 99). Their scores say what is learnt by heart" in text
    assert told_of([], 40) == []
