"""What a report says of pairs and judged answers: each side by itself, lengths, contradictions, labels."""

import numpy as np
import pytest

from tests.makers.tiny import tiny_model_folder
from tests.tokens.test_pairs import pair
from tunebook import FastModel
from tunebook.data.encoded import Encoded
from tunebook.tokens.answer_facts import answer_columns_of, remarks
from tunebook.tokens.data_report import inspect
from tunebook.tokens.encoding import encode_rows
from tunebook.tokens.row_facts import columns_of


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    return FastModel.from_pretrained(tiny_model_folder(tmp_path_factory.mktemp("tiny")), max_seq_length=64)[0].loaded


def judged(ids, label, prompt=2):
    mask = np.arange(len(ids)) >= prompt
    return Encoded(tokens=np.array(ids, np.int32), loss_mask=mask, label=label, number=ids[-1])


def found(rows):
    return {remark.kind: remark for remark in remarks(answer_columns_of(rows))}


def test_rows_that_are_no_answers_have_no_such_numbers():
    row = Encoded(tokens=np.array([1, 2, 3], np.int32), loss_mask=np.array([False, True, True]))
    assert answer_columns_of([row]) is None
    assert answer_columns_of([]) is None


def test_of_a_pair_there_are_both_lengths_and_how_far_the_sides_are_apart():
    columns = answer_columns_of([pair([5, 6, 7, 8, 9], [5, 6, 7, 4, 3, 9]), pair([5, 6, 7], [5, 6, 7, 7])])
    assert columns.first.tolist() == [3, 1]
    assert columns.second.tolist() == [4, 2]
    assert columns.apart.tolist() == [1 + 2, 0 + 1]


def test_a_pair_is_odd_where_one_of_its_sides_is(loaded):
    tokenizer = loaded.tokenizer
    end, words = tokenizer.eos_token_id, tokenizer.encode("the quick brown fox", add_special_tokens=False)
    blank = tokenizer.encode("\n", add_special_tokens=False)
    rows = [
        pair([*words[:2], *words, end], [*words[:2], *words, end]),
        pair([*words[:2], *words, end], [*words[:2], *words], number=1),
        pair([*words[:2], *words, end], [*words[:2], *blank, end], number=2),
    ]
    columns = columns_of(rows, tokenizer)
    assert columns.no_end.tolist() == [False, True, False]
    assert columns.empty_answer.tolist() == [False, False, True]
    assert columns.length.tolist() == [len(words) + 3] * 3
    assert columns.tokens.tolist() == [len(row.tokens) for row in rows]
    assert columns.trained.tolist() == [row.supervised_tokens for row in rows]


def test_a_bias_of_length_is_told_with_the_rows_that_make_it():
    rows = [pair([5, 6, *range(number, number + 5)], [5, 6, number, 9], number=number) for number in range(10, 20)]
    remark = found(rows)["length_bias"]
    assert "of 10 whose chosen answer is the longer one, 5 tokens against 2 on average" in remark.text
    assert remark.numbers == list(range(10, 20))
    even = [pair([5, 6, 7, *[9] * (number % 2)], [5, 6, 7, *[8] * ((number + 1) % 2)]) for number in range(12)]
    assert "length_bias" not in found(even)
    assert "length_bias" not in found(rows[:9])


def test_an_answer_that_is_good_here_and_bad_there_is_told_only_for_the_same_prompt():
    rows = [pair([5, 6, 7], [5, 6, 8], number=1), pair([5, 6, 8], [5, 6, 9], number=2), pair([4, 6, 9], [4, 6, 7])]
    assert found(rows)["both_sides"].numbers == [2]
    assert "both_sides" not in found([rows[0], rows[2]])
    assert found([judged([5, 6, 7], True), judged([5, 6, 7], False)])["both_sides"].numbers == [7]


@pytest.mark.parametrize(
    ("good", "bad", "said"),
    [
        (9, 3, "objectives.KTO(undesirable_weight=...) of 2.25 to 3.00"),
        (3, 9, "objectives.KTO(desirable_weight=...) of 3.00 to 4.00"),
        (4, 0, "Add bad answers"),
        (0, 4, "Add good answers"),
        (4, 4, None),
        (4, 3, None),
    ],
)
def test_labels_out_of_balance_get_the_weight_that_the_paper_gives_them(good, bad, said):
    rows = [judged([5, 6, 10 + number], number < good) for number in range(good + bad)]
    remark = found(rows).get("labels")
    assert (remark is None) == (said is None)
    assert said is None or said in remark.remedy
    assert said is None or len(remark.numbers) == (min(good, bad) or max(good, bad))


def test_the_report_of_a_set_has_findings_of_its_own(loaded):
    rows = [{"prompt": f"Say {number}", "chosen": " It is what it is.", "rejected": " No."} for number in range(12)]
    report = inspect(encode_rows(rows, loaded, max_seq_length=64, answers="pairs"), loaded.tokenizer)
    [finding] = [finding for finding in report.findings if finding.kind == "length_bias"]
    assert str(finding).startswith("12 rows of 12 whose chosen answer is the longer one")
    assert report.longest < 64
    assert report.tokens > report.encoded_rows * report.median
