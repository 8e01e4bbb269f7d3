"""Forty support chats of a stranger, with ten mistakes people make, lead to a trained model by the messages alone.

`follow` is a person who has not read the code: it reads a message and does what it says, one message after another.
"""

import ast
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from tunebook import Trainer, TrainingConfig, read_rows
from tunebook.data.sources import Rows

ARGS = TrainingConfig(max_steps=2, output_dir=None)
MOST_CORRECTIONS = 5


def chat(number: int, user: str = "user", assistant: str = "assistant") -> dict[str, Any]:
    asked = f"Bestellung {number} für Frau Müller ist nicht da."
    return {
        "messages": [{"role": user, "content": asked}, {"role": assistant, "content": f"Order {number} is on its way."}]
    }


def strangers_lines() -> list[str]:
    """Forty lines of JSON, of which the numbers here are those of the file."""
    rows: dict[int, Any] = {number: chat(number) for number in range(1, 41)}
    rows[3] = {"mesages": rows[3]["messages"]}
    rows[6]["messages"][1]["role"] = "asistant"
    rows[9] = chat(9, "human", "gpt")
    rows[12]["messages"][1]["content"] = None
    rows[15]["messages"][1]["content"] = ""
    rows[18]["messages"][0]["content"] = 18
    rows[21] = {"question": "Where is my order?", "answer": "It is with the neighbours."}
    rows[24]["messages"].pop()
    rows[33]["messages"] = json.dumps(rows[33]["messages"])
    lines = [json.dumps(row, ensure_ascii=False) for row in rows.values()]
    lines[26] = lines[26][:-1] + ",}"  # line 27 ends in a comma
    lines[29] = lines[29][:40]  # line 30 was cut short
    return lines


def given(folder: Path, encoding: str) -> Path:
    path = folder / "support.jsonl"
    path.write_bytes(("\n".join(strangers_lines()) + "\n").encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ["cp1252", "utf-8-sig", "utf-16"])
def test_forty_rows_with_ten_mistakes_are_trained_after_at_most_five_corrections(adapted, tmp_path, encoding):
    path = given(tmp_path, encoding)
    arguments: dict[str, Any] = {}
    corrections, trainer = 0, None
    while trainer is None and corrections <= MOST_CORRECTIONS:
        try:
            trainer = Trainer(adapted, train_dataset=path, args=ARGS, **arguments)
        except ValueError as error:
            follow(str(error), path, arguments)
            corrections += 1
    assert trainer is not None
    assert corrections == (2 if encoding == "utf-8-sig" else 3)
    # Four lines hold nothing to learn and were dropped: no answer, an empty one, none at all, cut short.
    assert len(trainer.train_rows) + len(trainer.eval_rows) == 36
    texts = [adapted.loaded.tokenizer.decode(row.tokens.tolist()) for row in (*trainer.train_rows, *trainer.eval_rows)]
    for kept in (
        "Bestellung 3 für Frau Müller",
        "Order 6 is",
        "Order 9 is",
        "It is with the neighbours.",
        "Order 33 is",
    ):
        assert sum(kept in text for text in texts) == 1
    assert all(math.isfinite(step.loss) for step in trainer.train().steps)


def test_one_message_names_every_bad_row_by_its_line_and_counts_over_the_whole_set(adapted, tmp_path):
    path = given(tmp_path, "utf-8")
    for hold_out in (0.0, 0.05, 0.5):  # what is held out changes nothing
        config, rows = TrainingConfig(hold_out=hold_out), read_rows(path, skip_bad_rows=True)
        with pytest.raises(ValueError, match="cannot be trained on") as refused:
            Trainer(adapted, train_dataset=rows, args=config)
        told = str(refused.value)
        assert told.startswith("8 of 38 rows of train_dataset (support.jsonl) cannot be trained on:")
        assert re.findall(r"^- line (\d+)", told, re.MULTILINE) == ["3", "6", "12", "15", "18", "21", "24", "33"]
        assert "skip_bad_rows=True trains on the other 30." in told


def test_skip_bad_rows_trains_without_them_and_a_notice_lists_each(adapted, tmp_path):
    path = given(tmp_path, "utf-8")
    trainer = Trainer(adapted, train_dataset=path, args=ARGS, skip_bad_rows=True)
    assert len(trainer.train_rows) + len(trainer.eval_rows) == 30
    broken, bad = trainer.data.notices[:2]
    assert broken.startswith("skip_bad_rows: 2 lines of train_dataset (support.jsonl) are no rows and are left out")
    assert [f"line {number}: " in broken for number in (27, 30)] == [True, True]
    assert bad.startswith("skip_bad_rows: 8 of 38 rows of train_dataset (support.jsonl) are left out")
    assert [number for number in range(41) if f"line {number}: " in bad] == [3, 6, 12, 15, 18, 21, 24, 33]
    assert len(trainer.train().steps) == 2


def test_one_bad_row_and_one_broken_line_are_told_of_in_the_singular(adapted, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f"{json.dumps(chat(number))}\n" for number in range(6)) + '{"messages": []}\n{"messages"\n')
    assert repr(read_rows(path, skip_bad_rows=True)).endswith("without 1 broken line>")
    broken, bad = Trainer(adapted, train_dataset=path, args=ARGS, skip_bad_rows=True).data.notices[:2]
    assert broken.startswith("skip_bad_rows: 1 line of train_dataset (a.jsonl) is no row and is left out; line 8: ")
    assert bad.startswith("skip_bad_rows: 1 of 7 rows of train_dataset (a.jsonl) is left out; line 7: ")


def test_a_stream_leaves_the_same_rows_out_and_says_so_as_it_meets_them(adapted, tmp_path):
    path = given(tmp_path, "utf-8")
    config = TrainingConfig(max_steps=5, streaming=True, output_dir=None)
    with pytest.raises(ValueError, match="skip_bad_rows=True"):
        Trainer(adapted, train_dataset=path, args=config)
    trainer = Trainer(adapted, train_dataset=path, args=config, skip_bad_rows=True)
    told: list[Any] = []
    trainer.subscribe(told.append)
    trainer.train()
    said = " ".join([*trainer.data.notices, *map(str, told)])
    assert "2 lines of train_dataset are no rows and are left out; line 27: " in said
    assert "skip_bad_rows: " in said.partition("So far in the stream: ")[2]


def test_rows_read_without_their_broken_lines_say_so(tmp_path):
    rows = read_rows(given(tmp_path, "utf-8"), skip_bad_rows=True)
    assert repr(rows).endswith("without 2 broken lines>")
    assert isinstance(rows, Rows)
    assert [str(one.place) for one in rows.broken] == ["line 27", "line 30"]
    assert [rows[place]["messages"] for place in (0, 37)] == [chat(number)["messages"] for number in (1, 40)]


def test_where_nothing_would_be_left_skipping_is_not_offered_and_does_not_help(model):
    rows = [{"messages": [{"role": "user", "content": "Hi"}]}] * 3
    for skip in (False, True):
        with pytest.raises(ValueError, match=r"3 of 3 rows .*\(rows 0 to 2\): it has no assistant turn") as refused:
            Trainer(model, train_dataset=rows, skip_bad_rows=skip)
        assert "skip_bad_rows" not in str(refused.value)


def test_bad_rows_of_both_sets_are_told_at_once(model):
    good, bad = chat(1), {"messages": [{"role": "user", "content": "Hi"}]}
    with pytest.raises(ValueError, match=r"(?s)1 of 3 rows of train_dataset .*\n1 of 2 rows of eval_dataset"):
        Trainer(model, train_dataset=[good, bad, good], eval_dataset=[bad, good])


def test_held_out_rows_are_chosen_among_good_ones(model):
    good, bad = (
        [chat(number) for number in range(2)],
        [{"messages": [{"role": "user", "content": f"{n}"}]} for n in range(38)],
    )
    config = TrainingConfig(hold_out=0.5)
    trainer = Trainer(model, train_dataset=[*bad, *good], args=config, skip_bad_rows=True)
    assert (len(trainer.train_rows), len(trainer.eval_rows)) == (1, 1)


def follow(message: str, path: Path, arguments: dict[str, Any]) -> None:
    """Do what a message says: run its line, pass its argument, or correct the lines of the file it names."""
    if line := re.search(r"save it as UTF-8: (.*)$", message):
        exec(line[1], {})
        return
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    if "lines are no rows" in message:
        for number, column, reason in re.findall(
            r"^- line (\d+): not JSON at column (\d+): (.*)$", message, re.MULTILINE
        ):
            lines[int(number) - 1] = corrected_text(lines[int(number) - 1], int(column), reason)
    else:
        if passed := re.search(r"pass formatting_func=(lambda row: .*)$", message):
            arguments["formatting_func"] = eval(passed[1], {"json": json})
        for number, reason in re.findall(r"^- line (\d+): (.*)$", message, re.MULTILINE):
            lines[int(number) - 1] = corrected_row(lines[int(number) - 1], reason)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")  # a dropped line is left blank


def corrected_text(line: str, column: int, reason: str) -> str:
    """A line that is not JSON with the comma taken out that the message names; else it is deleted."""
    if "take the comma out" not in reason:
        return ""
    comma = line.rindex(",", 0, column + 1)
    return line[:comma] + line[comma + 1 :]


def corrected_row(line: str, reason: str) -> str:
    """A row as its reason says it is to be: renamed, corrected, put in quotes, dropped; else it stays."""
    row = json.loads(line)
    turns = row.get("messages")
    number = int(found[1]) if (found := re.search(r"turn (\d+)", reason)) else 0
    if renamed := re.search(r"rename ('.*?') to ('.*?')", reason):
        old, new = map(ast.literal_eval, renamed.groups())
        row[new] = row.pop(old)
    elif role := re.search(r"correct it to ('.*?')", reason):
        turns[number]["role"] = ast.literal_eval(role[1])
    elif "write it as text, in quotes" in reason:
        turns[number]["content"] = str(turns[number]["content"])
    elif "drop" in reason and "formatting_func" not in reason:
        return ""
    return json.dumps(row, ensure_ascii=False)
