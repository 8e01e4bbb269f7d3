"""tokens/bad_rows_html.py: rows that cannot be trained on are shown as they came, with what mends them."""

import json
import re
from html import unescape
from typing import Any

import pytest

from tests.data.test_strangers_rows import chat, given
from tests.widgets.odd_rows import HOSTILE
from tests.widgets.tokens.token_cards import Seen, seen
from tunebook import FastModel, Trainer, TrainingConfig, read_rows
from tunebook_widgets import TokenView

BAD_LINES = [3, 6, 12, 15, 18, 21, 24, 27, 30, 33]


def shown(view: TokenView) -> str:
    return unescape(re.sub(r"<style>.*?</style>|<[^>]+>", "", view._repr_html_(), flags=re.DOTALL))


def mends(view: TokenView) -> list[str]:
    return [
        unescape(text) for text in re.findall(r'<pre class="tunebook-mend">(.*?)</pre>', view._repr_html_(), re.DOTALL)
    ]


def test_bad_rows_come_first_by_their_lines_and_as_they_came(model, tmp_path):
    path = given(tmp_path, "utf-8")
    view = TokenView(model, path)
    text, lines = shown(view), path.read_text().splitlines()
    assert text.startswith("10 of 40 rows of data (support.jsonl) cannot be trained on.")
    assert [int(number) for number in re.findall(r"Line (\d+): ", text)] == BAD_LINES
    for number in BAD_LINES:
        came = text.partition(f"Line {number}, as it came")[2]
        assert came.startswith(lines[number - 1])
    assert text.index("Line 33, as it came") < text.index("data: 30 rows")
    assert view.report.source_rows == 30
    assert all(f"Line {number}" in text for number in (1, 2, 4))  # pages of good rows are called so too


def test_the_text_twin_says_the_same(model, tmp_path):
    view = TokenView(model, given(tmp_path, "utf-8"))
    for text in re.findall(r"<b>(Line \d+: .*?)</b>", view._repr_html_()):
        assert f"- {unescape(text)}\n" in repr(view)
    assert all(mend in repr(view) for mend in mends(view))


def test_each_call_that_mends_them_trains(model, tmp_path):
    rows = read_rows(given(tmp_path, "utf-8"), skip_bad_rows=True)
    view = TokenView(model, rows)
    left = []
    for call in mends(view):
        names: dict[str, Any] = {"model": model, "tokenizer": model.loaded.tokenizer, "rows": rows}
        names["Trainer"] = lambda *given, **more: TokenView(given[0], more.pop("train_dataset"), **without_skip(more))
        exec(call.replace("Trainer(", "made = Trainer("), names)
        left.append(0 if names["made"].bad is None else int(re.match(r"\d+", names["made"].bad.heading)[0]))  # pyright: ignore[reportOptionalSubscript]
    assert left == [7, 10]  # the first mends three rows, beside two broken lines; the second does without all of them
    assert len(Trainer(model, train_dataset=rows, skip_bad_rows=True, args=TrainingConfig(hold_out=0)).train_rows) == 30


def without_skip(arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if name != "skip_bad_rows"}


def test_rows_of_no_format_are_shown_with_the_call_that_makes_them_rows(model):
    rows = [{"question": "Why?", "answer": "Because."}] * 5
    view = TokenView(model, rows)
    assert shown(view).startswith("None of the 5 rows of data can be read.")
    assert '{"question": "Why?", "answer": "Because."}' in shown(view)
    [call] = mends(view)
    names: dict[str, Any] = {"model": model, "tokenizer": model.loaded.tokenizer, "rows": rows, "Trainer": Trainer}
    exec(f"made = {call}", names)
    assert len(names["made"].train_rows) == 5
    for asked in (lambda: view.report, view.browse):
        with pytest.raises(ValueError, match="No row can be trained on"):
            asked()


def test_the_call_that_skips_bad_rows_reads_the_others_as_the_view_was_told(model):
    rows = [{"question": "Why?", "answer": "Because."}] * 3 + [{"question": "Why?", "answer": None}]
    view = TokenView(model, rows, formatting_func=lambda row: {"prompt": row["question"], "completion": row["answer"]})
    [call] = mends(view)
    names: dict[str, Any] = {"model": model, "tokenizer": model.loaded.tokenizer, "rows": rows, "Trainer": Trainer}
    names["formatting_func"] = lambda row: {"prompt": row["question"], "completion": row["answer"]}
    exec(f"made = {call}", names)
    assert len(names["made"].train_rows) == 3
    named = TokenView(model, [{"text": "a", "prompt": "b", "completion": "c"}, {"prompt": "b"}], format="text")
    assert mends(named) == [
        "Trainer(model, tokenizer, train_dataset=rows, skip_bad_rows=True, format='text')  # the other 1"
    ]


def test_lines_that_are_no_rows_are_told_where_no_other_row_can_be_read_either(model, tmp_path):
    path = tmp_path / "tickets.csv"
    path.write_text("ticket,question,reply\n1,Why?,Because.\n2,Hello, is anybody there?,Yes.\n")
    text = shown(TokenView(model, path))
    assert text.startswith("None of the 2 rows of data (tickets.csv) can be read.")
    assert "Line 3: 4 cells, but the header names 3 columns" in text
    assert "Line 3, as it came2,Hello, is anybody there?,Yes." in text


def test_a_trainer_that_skipped_bad_rows_shows_which(model, tmp_path):
    path = given(tmp_path, "utf-8")
    trainer = Trainer(model, train_dataset=path, skip_bad_rows=True)
    text = shown(TokenView(trainer))
    assert text.startswith("10 of 40 rows of train_dataset (support.jsonl) cannot be trained on.")
    assert [int(number) for number in re.findall(r"Line (\d+): ", text)] == BAD_LINES


def test_good_rows_have_no_diagnosis_and_the_card_they_had(model, rows):
    view = TokenView(model, rows)
    assert view.bad is None
    assert "tunebook-bad" not in view._repr_html_().partition("</style>")[2]


def test_hostile_rows_that_are_bad_are_inert(model):
    turns = [{"role": HOSTILE, "content": HOSTILE}, {"role": "assistant", "content": "So."}]
    view = TokenView(model, [chat(1), chat(2), {"messages": turns}, {HOSTILE: HOSTILE}])
    html = view._repr_html_()
    tags = {tag for tag, _ in Seen(html).elements}
    assert tags.isdisjoint({"script", "img", "svg onload", "iframe", "style onload"})
    assert not [name for _, found in seen(view).elements for name in found if name.startswith("on")]
    assert not [char for char in "\x1b\x07\u202e\u202c\u200b\u2066" if char in html + repr(view)]
    assert json.dumps(HOSTILE, ensure_ascii=False)[1:30] in unescape(html)


def test_a_model_without_a_template_shows_conversations_as_what_it_cannot_read(tmp_path):
    from tests.makers.tiny import tiny_model_folder

    bare, _ = FastModel.from_pretrained(tiny_model_folder(tmp_path, chat_template=None))
    assert "no chat template" in shown(TokenView(bare, [chat(1)] * 2))
