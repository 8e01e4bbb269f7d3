"""Data that cannot be trained on, each kind met where a person meets it: one sentence with the place and the next move.

Files that cannot be read are in `test_sources.py`; these can be read, and the Trainer refuses them before any step.
"""

import json
import time

import pytest

from tests.tiny import tiny_model_folder
from tunebook import FastModel, Trainer, TrainingConfig

ASK, ANSWER = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}
GOOD = {"messages": [ASK, ANSWER]}
IMAGE = {"type": "image", "image": "cat.png"}


def chat(*turns):
    return {"messages": list(turns)}


# What is wrong with the third of five rows, and what the sentence must say of it.
ROWS = {
    "no messages": (chat(), "row 2", "empty"),
    "null answer": (chat(ASK, {"role": "assistant", "content": None}), "row 2", "content"),
    "empty answer": (chat(ASK, {"role": "assistant", "content": "  "}), "row 2", "empty"),
    "no answer": (chat(ASK), "row 2", "assistant"),
    "a turn that is no dict": (chat("Why?", ANSWER), "row 2", "turn 0"),
    "a turn without a role": (chat({"content": "Why?"}, ANSWER), "row 2", "role"),
    "content that is a number": (chat({"role": "user", "content": 7}, ANSWER), "row 2", "int"),
    "an unknown role": (chat({"role": "narrator", "content": "So it was."}, ANSWER), "row 2", "narrator"),
    "an image for a text model": (chat({"role": "user", "content": [IMAGE]}, ANSWER), "row 2", "image"),
    "the assistant speaks first": (chat(ANSWER, ASK), "row 2", "assistant"),
    "messages that are a string": ({"messages": "Why? Because."}, "row 2", "str"),
    "another format": ({"text": "the dog"}, "4 of 5", "1 of 5"),
    "columns nobody knows": ({"q": "Why?", "a": "Because."}, "columns are", "a, messages, q"),
}


@pytest.mark.parametrize("kind", ROWS)
def test_a_row_that_cannot_be_trained_on_is_named_with_what_is_wrong(model, kind):
    bad, place, said = ROWS[kind]
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - the sentence is checked below
        Trainer(model, train_dataset=[GOOD, GOOD, bad, GOOD, GOOD])
    sentence = str(refused.value)
    assert place in sentence
    assert said in sentence
    assert "\n" not in sentence
    assert 40 < len(sentence) < 600


TOKENS = {
    "an id beyond the vocabulary": ({"input_ids": [5, 9, 100_000]}, "100000"),
    "a negative id": ({"input_ids": [5, -1, 9]}, "-1"),
    "labels of another length": ({"input_ids": [5, 9, 7], "labels": [5, 9]}, "2"),
    "labels that are other tokens": ({"input_ids": [5, 9, 7], "labels": [-100, 9, 8]}, "8"),
    "no label at all": ({"input_ids": [5, 9, 7], "labels": [-100, -100, -100]}, "-100"),
}


@pytest.mark.parametrize("kind", TOKENS)
def test_a_tokenized_row_that_would_train_on_nonsense_is_refused(model, kind):
    bad, said = TOKENS[kind]
    good = {"input_ids": [5, 9, 7], "labels": [-100, 9, 7]}
    rows = [good, good, {**good, **bad} if "labels" in bad else bad]
    if "labels" not in bad:
        rows = [{"input_ids": [5, 9, 7]}, {"input_ids": [5, 9, 7]}, bad]
    with pytest.raises(ValueError, match=r"1 of 3 rows cannot be trained on \(first: row 2\)") as refused:
        Trainer(model, train_dataset=rows)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_conversation_for_a_model_without_a_template_names_three_ways_out(tmp_path):
    bare, _ = FastModel.from_pretrained(tiny_model_folder(tmp_path, chat_template=None))
    with pytest.raises(ValueError, match=r"no chat template.*instruct model.*chat_template=.*'text' column"):
        Trainer(bare, train_dataset=[GOOD])


def test_ten_megabytes_in_one_row_are_cut_and_said_in_seconds(model, tmp_path):
    file = tmp_path / "huge.jsonl"
    huge = chat(ASK, {"role": "assistant", "content": "the quick brown fox " * 500_000})
    file.write_text("".join(json.dumps(row) + "\n" for row in (GOOD, huge, GOOD)))
    began = time.process_time()  # not of the clock: other processes share the cores
    trainer = Trainer(model, train_dataset=file, args=TrainingConfig(max_seq_length=128))
    assert time.process_time() - began < 60
    assert max(len(row.tokens) for row in trainer.train_rows) == 128
    assert any("1 of 3 rows of train_dataset are longer than 128 tokens" in text for text in trainer.data.notices)


@pytest.mark.parametrize(
    ("dataset", "error", "said"),
    [
        ([], ValueError, "train_dataset is empty"),
        ([GOOD, "Why?"], TypeError, "Row 1 of train_dataset is a str"),
        (GOOD, TypeError, "train_dataset is a dict; pass a list of rows"),
        (42, TypeError, "train_dataset is a int"),
        ("nowhere.jsonl", FileNotFoundError, "nowhere.jsonl"),
        ("", ValueError, "train_dataset is an empty string"),
    ],
    ids=["no rows", "a string among rows", "a single row", "a number", "a missing file", "an empty name"],
)
def test_what_is_no_data_set_is_refused_by_name(model, dataset, error, said):
    with pytest.raises(error, match=said):
        Trainer(model, train_dataset=dataset)
