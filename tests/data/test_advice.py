"""What a message about a person's rows tells them to write is written here, and works where the message came from."""

import json
import re
from pathlib import Path
from typing import Any

import pandas
import pyarrow as pa
import pytest
from pyarrow import parquet

import tunebook.objectives
from tests.makers.tiny import tiny_model_folder
from tunebook import FastModel, Trainer, TrainingConfig, hold_out, read_rows

ARGS = TrainingConfig(output_dir=None)
ASK, ANSWER = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}
CHAT = {"messages": [ASK, ANSWER]}


def said(model: Any, rows: Any, **options: Any) -> str:
    with pytest.raises(ValueError, match=r"\w") as refused:
        Trainer(model, train_dataset=rows, args=ARGS, **options)
    return str(refused.value)


def texts(model: Any, rows: Any, **options: Any) -> list[str]:
    trainer = Trainer(model, train_dataset=rows, args=ARGS, **options)
    return [model.loaded.tokenizer.decode(row.tokens.tolist()) for row in (*trainer.train_rows, *trainer.eval_rows)]


# Columns a set may have, and what of it the model is then trained to read and write.
COLUMNS = {
    "question and answer": ({"question": "Why?", "answer": "Because."}, ["Why?", "Because."]),
    "with a context": ({"Question": "Why?", "context": "It rains.", "response": "So."}, ["Why?", "It rains.", "So."]),
    "user and bot": ({"user": "Why?", "bot": "Because.", "id": 3}, ["Why?", "Because."]),
    "preferences": ({"prompt": "Why?", "chosen": "Because.", "rejected": "No."}, ["Why?", "Because."]),
    "preferences of conversations": ({"prompt": "Why?", "chosen": [ASK, ANSWER], "rejected": []}, ["Because."]),
    "a dialogue": ({"dialogue": [ASK, ANSWER]}, ["Why?", "Because."]),
    "speakers": (
        {"dialog": [{"speaker": "human", "text": "Why?"}, {"speaker": "bot", "text": "Because."}]},
        ["<|im_start|>user\nWhy?", "<|im_start|>assistant\nBecause."],
    ),
    "a body": ({"title": "On dogs", "body": "The dog sleeps."}, ["The dog sleeps."]),
    "a misspelt column": ({"mesages": [ASK, ANSWER], "tools": []}, ["Why?", "Because."]),
    "spaces in a header": ({"prompt": "Why?", " completion": "Because."}, ["Why?", "Because."]),
    "two misspelt columns": ({"instuction": "Why?", "input": "It rains.", "outputs": "So."}, ["It rains.", "So."]),
    "JSON text": ({"messages": json.dumps([ASK, ANSWER])}, ["Why?", "Because."]),
    "a dict of lists": ({"messages": {"role": ["user", "assistant"], "content": ["Why?", "So."]}}, ["Why?", "So."]),
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_the_formatting_func_a_message_shows_makes_rows_of_other_columns_rows_to_train_on(model, kind):
    row, words = COLUMNS[kind]
    shown = re.search(r"pass formatting_func=(lambda row: .*)$", said(model, [row] * 3))
    assert shown
    for text in texts(model, [row] * 3, formatting_func=eval(shown[1], {"json": json})):
        assert [word for word in words if word not in text] == []


def test_pairs_of_answers_are_read_by_the_objective_the_message_names(model):
    rows = [{"prompt": "Why?", "chosen": "Because.", "rejected": "No."}] * 3
    shown = re.search(r"pass objective=([\w.]+\(\))", said(model, rows))
    assert shown
    trainer = Trainer(model, train_dataset=rows, objective=eval(shown[1], {"tunebook": tunebook}), args=ARGS)
    assert [len(row.sequences) for row in trainer.train_rows] == [2, 2, 2]


def test_one_line_mends_all_odd_columns_of_a_set_and_leaves_the_good_rows_alone(model):
    odd = [COLUMNS[kind][0] for kind in ("question and answer", "a misspelt column", "JSON text", "a dict of lists")]
    shown = re.search(r"pass formatting_func=(lambda row: .*)$", said(model, [CHAT] * 5 + odd))
    assert shown
    mend = eval(shown[1], {"json": json})
    assert [mend(row) for row in [CHAT] * 5] == [CHAT] * 5
    assert len(texts(model, [CHAT] * 5 + odd, formatting_func=mend)) == 9


def test_either_format_a_message_offers_reads_a_set_that_fits_two(model):
    rows = [{**CHAT, "text": "The dog sleeps."}] * 3
    choices = re.findall(r"format='(\w+)'", said(model, rows))
    assert choices == ["messages", "text"]
    assert ["Because." in texts(model, rows, format=choice)[0] for choice in choices] == [True, False]


def test_a_format_that_is_not_that_of_the_rows_is_answered_with_the_one_that_is(model):
    for wrong in ("text", "prompt_completion", "alpaca", "sharegpt", "tokens"):
        [right] = set(re.findall(r"format='(\w+)'", said(model, [CHAT] * 3, format=wrong)))
        assert len(texts(model, [CHAT] * 3, format=right)) == 3


def test_rows_of_two_formats_are_taken_apart_as_the_message_says(model):
    rows = [CHAT, {"text": "The dog sleeps."}] * 2
    shown = re.search(r"such as (\[row for row in rows .*?\]),", said(model, rows))
    assert shown
    assert len(texts(model, eval(shown[1], {"rows": rows}))) == 2


def test_turns_that_stand_as_rows_become_one_conversation(model):
    rows = [ASK, ANSWER]
    shown = re.search(r"one row: (.*)$", said(model, rows))
    assert shown
    [text] = texts(model, eval(shown[1], {"rows": rows}))
    assert text.rstrip().endswith("Because.<|im_end|>")


def test_a_model_without_a_template_is_trained_on_the_text_the_message_makes(tmp_path):
    bare, _ = FastModel.from_pretrained(tiny_model_folder(tmp_path, chat_template=None))
    shown = re.search(r"(formatting_func)=(lambda row: .*)$", said(bare, [CHAT] * 2))
    assert shown
    assert "Why?\nBecause." in texts(bare, [CHAT] * 2, formatting_func=eval(shown[2]))[0]


def test_a_formatting_func_that_fails_is_a_bad_row_with_its_columns(model):
    told = said(model, [CHAT] * 3 + [{"question": "Why?"}], formatting_func=lambda row: {"messages": row["messages"]})
    assert told.startswith(
        "1 of 4 rows of train_dataset cannot be trained on (row 3): formatting_func fails on it with"
    )
    assert "KeyError: 'messages'; its columns are question." in told
    with pytest.raises(ValueError, match=r"No row is left .* formatting_func fails on it with KeyError"):
        Trainer(model, train_dataset=[CHAT] * 3, formatting_func=lambda row: {"text": row["body"]})
    assert len(
        texts(model, [CHAT, {"question": "Why?"}], formatting_func=lambda row: row["messages"], skip_bad_rows=True)
    )


@pytest.mark.parametrize(
    ("turns", "advice", "corrected"),
    [
        ([ANSWER, ASK, ANSWER], "put a system or user turn before it", [ASK, ANSWER, ASK, ANSWER]),
        ([ASK], "add one", [ASK, ANSWER]),
        ([ASK, {**ANSWER, "content": " "}], "write one", [ASK, ANSWER]),
        ([ASK, {"role": "assistant", "content": None}], "write it", [ASK, ANSWER]),
        ([{"role": "user", "content": 7}, ANSWER], "write it as text, in quotes", [{**ASK, "content": "7"}, ANSWER]),
        ([ASK, {**ANSWER, "role": "asistant"}], "correct it to 'assistant'", [ASK, ANSWER]),
        ([{**ASK, "content": "a\ud800"}, ANSWER], "take it out", [{**ASK, "content": "a"}, ANSWER]),
        (
            [ASK, {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}, ANSWER],
            "write it as tool_calls",
            None,
        ),
    ],
)
def test_a_conversation_is_trained_once_it_is_as_the_message_asks(model, turns, advice, corrected):
    rows = [CHAT, {"messages": turns}]
    told = said(model, rows)
    assert advice in told
    assert "skip_bad_rows=True trains on the other one." in told
    assert len(texts(model, rows, skip_bad_rows=True)) == 1
    if corrected is not None:
        assert len(texts(model, [CHAT, {"messages": corrected}])) == 2


def test_names_of_others_for_who_speaks_are_read_in_messages_as_in_conversations(model):
    names = [("human", "gpt"), ("User", "Assistant"), ("user", "bot"), ("HUMAN", "model")]
    rows = [{"messages": [{**ASK, "role": asks}, {**ANSWER, "role": answers}]} for asks, answers in names]
    rows.append({"messages": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "Because."}]})
    assert set(texts(model, rows)) == set(texts(model, [CHAT]))


def test_a_length_that_keeps_rows_whole_and_a_set_to_measure_with_do_what_the_notices_say(model):
    rows = [{"messages": [{**ASK, "content": f"{n} why?"}, {**ANSWER, "content": "so " * 90}]} for n in range(40)]
    trainer = Trainer(model, train_dataset=rows, args=TrainingConfig(max_seq_length=64))
    [held_out] = [text for text in trainer.data.notices if "held out" in text]
    assert "pass eval_dataset" in held_out
    longest = max(len(row.tokens) + row.cut for row in trainer.train_rows)
    whole = Trainer(model, train_dataset=rows, args=TrainingConfig(max_seq_length=longest, hold_out=0))
    assert whole.data.notices == []
    train, measured = hold_out(rows, 3)
    apart = Trainer(model, train_dataset=train, eval_dataset=measured, args=TrainingConfig(max_seq_length=longest))
    assert apart.data.notices == []


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "utf-16"])
def test_the_line_a_message_shows_saves_a_file_as_utf_8(tmp_path, encoding):
    path, row = (
        tmp_path / "rows.jsonl",
        {"text": "Der Fluß fließt \x81" if encoding == "latin-1" else "Der Fluß fließt"},
    )
    path.write_bytes((json.dumps(row, ensure_ascii=False) + "\n").encode(encoding))
    run(path, r"save it as UTF-8: (.*)$")
    assert list(read_rows(path)) == [row]


def test_a_file_put_together_from_two_encodings_names_the_lines_that_are_not_utf_8(tmp_path):
    path, text = tmp_path / "rows.jsonl", '{"text": "Fluß"}\n'
    path.write_bytes(text.encode() + text.encode("cp1252") + text.encode() + text.encode("cp1252"))
    with pytest.raises(ValueError, match=r"two encodings: lines 2 and 4 would read .* as in '.*Fluß") as refused:
        read_rows(path)
    assert "Write those lines again" in str(refused.value)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(
        b"".join(line.decode("cp1252").encode() if n in (2, 4) else line for n, line in enumerate(lines, 1))
    )
    assert list(read_rows(path)) == [{"text": "Fluß"}] * 4


def test_rows_within_a_key_and_conversations_on_lines_are_made_rows_by_the_line_shown(model, tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps({"data": [CHAT] * 3}, indent=2))
    assert run(path, r"rows made by: (.*)$", key="data")["rows"] == [CHAT] * 3
    path.write_text(json.dumps({"data": [CHAT] * 3}))
    shown = re.search(r"pass (rows\[0\]\['data'\]) of rows = read_rows", said(model, path))
    assert shown
    assert eval(shown[1], {"rows": read_rows(path)}) == [CHAT] * 3
    path.write_text("".join(json.dumps([ASK, ANSWER]) + "\n" for _ in range(3)))
    assert run(path, r"rows made by: (.*)$")["rows"] == [CHAT] * 3


def test_a_column_of_parquet_that_cannot_be_read_is_left_out_by_the_line_shown(tmp_path):
    for name, column in {
        "beyond the calendar": pa.array([2**62] * 2, pa.timestamp("us")),
        "no text": pa.Array.from_buffers(
            pa.string(), 2, [None, pa.array([0, 1, 2], pa.int32()).buffers()[1], pa.py_buffer(b"\xff\xfe")]
        ),
    }.items():
        path = tmp_path / f"{name}.parquet"
        parquet.write_table(pa.table({"text": ["a", "b"], "odd": column}), path)
        with pytest.raises(ValueError, match=r"row 0: its column 'odd' cannot be read") as refused:
            list(read_rows(path))
        made: dict[str, Any] = {}
        exec(str(refused.value).rpartition("leave it out: ")[2], made)
        assert list(read_rows(made["rows"])) == [{"text": "a"}, {"text": "b"}]


def test_a_csv_of_another_separator_and_one_of_a_huge_cell_are_read_as_the_message_says(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("prompt;completion\nWhy?;Because.\n")
    with pytest.raises(ValueError, match="Pass pandas") as refused:
        read_rows(path)
    frame = eval(str(refused.value).rpartition("Pass ")[2].removesuffix("."), {"pandas": pandas})
    assert list(read_rows(frame)) == [{"prompt": "Why?", "completion": "Because."}]


@pytest.mark.parametrize("rows", [[{0: "a", "text": "b"}] * 2, pandas.DataFrame([["a", "b"]], columns=[0, "text"])])
def test_columns_without_a_name_of_their_own_are_renamed_by_the_line_shown(rows):
    with pytest.raises(ValueError, match=r"[Rr]ename") as refused:
        read_rows(rows)
    names: dict[str, Any] = {"rows": rows, "frame": rows}
    exec(re.split(r"[Rr]ename \w+: | and pass these", str(refused.value))[1], names)
    assert read_rows(names["rows"])[0] == {"0": "a", "text": "b"}


def test_a_file_that_may_not_be_read_is_one_sentence(tmp_path):
    import socket

    path = tmp_path / "rows.jsonl"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        with pytest.raises(ValueError, match=r"rows\.jsonl cannot be read: .*\. Copy it to where"):
            read_rows(path)


def run(path: Path, pattern: str, **names: Any) -> dict[str, Any]:
    """The names there are after the line was run that reading a file shows."""
    with pytest.raises(ValueError, match=pattern) as refused:
        read_rows(path)
    shown = re.search(pattern, str(refused.value))
    assert shown
    exec(shown[1], names)
    return names
