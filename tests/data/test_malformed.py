"""Data that cannot be trained on, each kind met where a person meets it: one sentence with the place and the next move.

Files that cannot be read are in `sources/test_unreadable_files.py`; these can be read, and the Trainer refuses them
before any step.
"""

import json
import time
from typing import Any

import numpy as np
import pandas
import pytest

from tests.makers.tiny import CHAT_TEMPLATE, tiny_model_folder
from tests.makers.tiny_vision import asked, noise_images, tiny_vision_folder
from tunebook import FastModel, Trainer, TrainingConfig
from tunebook.data.formats import BadRow
from tunebook.data.formats.columns import column
from tunebook.data.sources import content_of, read_rows, stream_rows
from tunebook.data.sources.shape import DEEPEST
from tunebook.tokens.token_cache import key_of

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
    "content that is a number": (chat({"role": "user", "content": 7}, ANSWER), "row 2", "7"),
    "an unknown role": (chat({"role": "narrator", "content": "So it was."}, ANSWER), "row 2", "narrator"),
    "an image for a text model": (chat({"role": "user", "content": [IMAGE]}, ANSWER), "row 2", "image"),
    "the assistant speaks first": (chat(ANSWER, ASK), "row 2", "assistant"),
    "messages that are a string": ({"messages": "Why? Because."}, "row 2", "str"),
    "another format": ({"text": "the dog"}, "row 2", "looks like 'text'"),
    "columns nobody knows": ({"q": "Why?", "a": "Because."}, "row 2", "'q' and 'a' in place of"),
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
    with pytest.raises(ValueError, match=r"1 of 3 rows of .* cannot be trained on \(rows? 2\b.*\)") as refused:
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


def nested(levels, of="list"):
    value = "x"
    for _ in range(levels):
        value = [value] if of == "list" else {"a": value}
    return value


def circle():
    turn: dict[str, Any] = {"role": "user"}
    turn["content"] = [turn]
    return chat(turn, ANSWER)


DEEP = {
    "lists": lambda: chat({"role": "user", "content": nested(50_000)}, ANSWER),
    "dicts beside the turns": lambda: {**GOOD, "note": nested(50_000, "dict")},
    "a value that holds itself": circle,
    "an array of lists": lambda: {**GOOD, "note": np.array([nested(50_000), 1], dtype=object)},
    "one level too many": lambda: {**GOOD, "note": nested(DEEPEST)},
}
HOLDERS = {
    "list": list,
    "frame": pandas.DataFrame,
    "generator": lambda rows: (row for row in rows),
    "stream": lambda rows: lambda: iter(rows),
}


@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.parametrize("kind", DEEP)
def test_a_row_nested_too_deep_is_named_whatever_holds_it(kind, holder):
    read = stream_rows if holder == "stream" else read_rows
    with pytest.raises(ValueError, match=r"Row 1 of train_dataset is nested more than 100 levels deep"):
        read(HOLDERS[holder]([GOOD, DEEP[kind](), GOOD]))


def test_what_is_nested_as_deep_as_may_be_is_read():
    row = {**GOOD, "note": nested(DEEPEST - 2)}
    assert read_rows([row]) == [row]


@pytest.mark.parametrize("form", ["lines", "array"])
@pytest.mark.parametrize(
    ("value", "said"),
    [("[" * 300 + "]" * 300, "nested"), ("[" * 99_999 + "]" * 99_999, "too deep"), ("9" * 5000, "too many digits")],
    ids=["deep", "deeper than Python parses", "digits"],
)
def test_json_no_reader_can_take_is_refused_with_its_place(tmp_path, value, said, form):
    file = tmp_path / "rows.json"
    rows = [json.dumps(GOOD), f'{{"messages": {value}}}']
    file.write_text("\n".join(rows) if form == "lines" else f"[{', '.join(rows)}]")
    with pytest.raises(ValueError, match=r"rows\.json.* (Correct it|Correct that (line|item))") as refused:
        read_rows(file)
    assert said in str(refused.value)
    assert form == "array" or "line 2:" in str(refused.value)


@pytest.mark.parametrize("key", [3, None, ("a", "b"), float("nan")], ids=str)
def test_a_column_whose_name_is_no_string_is_named(key):
    with pytest.raises(ValueError, match=r"Row 1 of train_dataset has a column whose name is a \w+, not a string"):
        read_rows([GOOD, {**GOOD, key: 1}])


def test_names_of_columns_are_told_at_a_length_to_read(model):
    rows = [{f"{number}" + "n" * 5000: "x" for number in range(50)}]
    with pytest.raises(ValueError, match=r"and 30 more") as refused:
        Trainer(model, train_dataset=rows)
    assert len(str(refused.value)) < 2000


def test_rows_json_cannot_write_are_unlike_one_another():
    """Dicts whose keys cannot be put in order, and numbers of more digits than Python writes."""
    for value in ({1: "a", "b": 2}, {(1, 2): 3}, 10**5000):
        row = {**GOOD, "note": value}
        assert content_of(row) != content_of(row)


def test_long_arrays_that_differ_in_their_middle_are_not_one_set_in_the_cache(model):
    long = np.arange(5000)
    other = long.copy()
    other[2500] = 7
    assert repr(long) == repr(other)
    keys = {key_of([{"input_ids": ids}], model.loaded, []) for ids in (long, other, long.tolist())}
    assert len(keys) == 2  # an array is the list of its numbers


HALVES = {
    "text": {"text": "a\ud800"},
    "chat": chat(ASK, {"role": "assistant", "content": "\udfffb"}),
    "a prompt": {"prompt": "\ud800", "completion": "b"},
    "an input": {"instruction": "a", "input": "\udc00", "output": "b"},
}


@pytest.mark.parametrize(
    ("kind", "has_template"),
    [*((kind, True) for kind in HALVES), *((kind, False) for kind in HALVES if kind != "chat")],
)
def test_half_a_character_is_a_bad_row(tmp_path, kind, has_template):
    template = CHAT_TEMPLATE if has_template else None
    model, _ = FastModel.from_pretrained(tiny_model_folder(tmp_path, chat_template=template))
    good = {name: GOOD.get(name, "x") for name in HALVES[kind]}
    with pytest.raises(
        ValueError, match=r"1 of 2 rows of .* cannot be trained on \(rows? 1\b.*\).*half of a character"
    ):
        Trainer(model, train_dataset=[good, HALVES[kind]])


ODD = {
    "history that is one number": {"instruction": "a", "output": "b", "history": np.array(3)},
    "history that is true": {"instruction": "a", "output": "b", "history": True},
    "tool calls that are a number": chat(ASK, {**ANSWER, "tool_calls": 7}),
    "tool calls that are a dict": chat(ASK, {**ANSWER, "tool_calls": {"function": {}}}),
    "arguments nested too deep": chat(ASK, {**ANSWER, "tool_calls": [{"name": "f", "arguments": "[" * 99_999}]}),
    "a weight that is a list": chat(ASK, {**ANSWER, "weight": np.array([0, 1])}),
    "a weight of many digits": chat(ASK, {**ANSWER, "weight": 10**5000}),
    "a weight that is missing as pandas has it": chat(ASK, {**ANSWER, "weight": pandas.NA}),
    "a part whose type is an array": chat({"role": "user", "content": [{"type": np.array(["a", "b"])}]}, ANSWER),
    "a part whose type is a book": chat({"role": "user", "content": [{"type": "x" * 5000}]}, ANSWER),
    "a role that is a book": chat({"role": "x" * 5000, "content": "a"}, ANSWER),
    "tools that are an array": {**GOOD, "tools": np.array([1, 2])},
    "a system that is an array": {**GOOD, "system": np.array(["a", "b"])},
}


@pytest.mark.parametrize("kind", ODD)
def test_a_value_of_another_type_is_a_bad_row(model, kind):
    bad = ODD[kind]
    good = {name: GOOD.get(name, "x") for name in bad if name in ("messages", "instruction", "output")}
    with pytest.raises(ValueError, match=r"1 of 2 rows of .* cannot be trained on \(rows? 1\b.*\)") as refused:
        Trainer(model, train_dataset=[good, bad])
    assert len(str(refused.value)) < 600


def test_arrays_in_a_row_are_read_as_lists(model):
    row = {"messages": np.array([ASK, {**ANSWER, "weight": np.int64(1)}], dtype=object)}
    assert column(row, "messages", list) == [ASK, {**ANSWER, "weight": 1}]
    plain, arrays = (Trainer(model, train_dataset=[one]).train_rows[0].tokens for one in (GOOD, row))
    assert list(plain) == list(arrays)
    with pytest.raises(BadRow, match="is empty"):
        column({"messages": np.array([])}, "messages", list)


def test_images_beside_turns_that_are_none_are_a_bad_row(tmp_path):
    sees, _ = FastModel.from_pretrained(tiny_vision_folder(tmp_path, "qwen2_vl"))
    [image] = noise_images(1)
    good = {**asked("What?", [], "A cat."), "images": [image]}
    bad = [7, True, image, np.bool_(True), [{"role": "user", "content": 7}], [{"role": "user", "content": "\ud800"}]]
    bad += [[{"role": np.array(["a", "b"]), "content": "x"}]]
    rows = [good, *({"messages": turns, "images": [image]} for turns in bad)]
    with pytest.raises(
        ValueError, match=rf"{len(bad)} of {len(rows)} rows of .* cannot be trained on:\n- rows 1 to 4 and 7: "
    ):
        Trainer(sees, train_dataset=rows, args=TrainingConfig(hold_out=0))
