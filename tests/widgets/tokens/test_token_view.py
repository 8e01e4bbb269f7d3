"""tokens/token_view.py and tokens/token_html.py: the card, of rows and of a trainer, and what is marked on it."""

import json
import re

import numpy as np
import pytest
from IPython.core.formatters import DisplayFormatter

from tests.widgets.odd_rows import HOSTILE, KINDS, odd_rows
from tests.widgets.tokens.token_cards import Seen, seen
from tunebook import Trainer, TrainingConfig, train_on_responses_only
from tunebook.tokens.encoding import encode_rows
from tunebook_widgets import TokenView
from tunebook_widgets.tokens.token_book import Page
from tunebook_widgets.tokens.token_html import Bars, Card, static_html
from tunebook_widgets.tokens.token_pieces import Piece
from tunebook_widgets.tokens.token_spread import HEAD, TAIL


def test_the_underlined_text_is_what_the_loss_sees(model, rows):
    html = seen(TokenView(model, rows[:5]))
    encoded = encode_rows(rows[:5], model.loaded, max_seq_length=128).rows
    for row, text, trained, count in zip(encoded, html.rows, html.trained, html.trained_tokens, strict=True):
        decode = model.loaded.tokenizer.decode
        assert text.replace("↵\n", "\n") == decode(row.tokens.tolist())
        assert trained.replace("↵\n", "\n") == decode(row.tokens[row.loss_mask].tolist())
        assert count == row.supervised_tokens


@pytest.mark.parametrize("thinking", [True, False])
def test_the_switch_for_thoughts_is_seen_in_the_rows(model, rows, thinking):
    model.loaded.tokenizer.chat_template += "{% if enable_thinking is false %}OFF{% endif %}"
    (text,) = seen(TokenView(model, rows[:1], train_on="everything", thinking=thinking)).rows
    assert text.endswith("OFF") is not thinking


def test_the_first_token_is_not_marked_for_it_is_predicted_from_nothing(model):
    view = TokenView(model, [{"text": "the quick brown fox"}])
    (row,) = encode_rows([{"text": "the quick brown fox"}], model.loaded, max_seq_length=128).rows
    assert row.loss_mask.all()
    assert seen(view).trained_tokens == [len(row.tokens) - 1]


def test_special_tokens_are_keys_and_nothing_else_is(model, rows):
    html = seen(TokenView(model, rows[:2]))
    assert html.keys == ["<|im_start|>", "<|im_end|>"] * 4


def test_a_text_that_spells_a_special_token_out_is_no_key_when_it_is_not_one_token(model):
    ids = model.loaded.tokenizer.encode("a <", add_special_tokens=False)
    ids += [
        token for word in ("|im_", "end|>") for token in model.loaded.tokenizer.encode(word, add_special_tokens=False)
    ]
    html = seen(TokenView(model, [{"input_ids": [*ids, 2]}]))
    assert "<|im_end|>" in html.rows[0].removesuffix("<|im_end|>")
    assert html.keys == ["<|im_end|>"]


def test_the_text_twin_marks_the_same_tokens(model, rows):
    view = TokenView(model, rows[:3])
    assert re.findall("⟦(.*?)⟧", repr(view), flags=re.DOTALL) == seen(view).trained


def test_a_cell_gets_html_and_text_and_no_widget(model, rows):
    data, _ = DisplayFormatter().format(TokenView(model, rows[:3]))
    assert set(data) == {"text/html", "text/plain"}


def test_the_card_has_no_script_and_asks_for_nothing_from_elsewhere(odd):
    html = seen(odd)
    tags = {tag for tag, _ in html.elements}
    attributes = {name for _, attributes in html.elements for name in attributes}
    assert tags.isdisjoint({"script", "img", "iframe", "object", "embed", "a", "form", "link", "meta", "base"})
    assert not [name for name in attributes if name.startswith("on") or name in ("src", "href", "srcdoc", "action")]
    assert "url(" not in html.style
    assert "@import" not in html.style


def test_one_row_is_open_and_opening_another_closes_it(model, rows):
    view = TokenView(model, rows)
    groups = [[dict(found) for tag, found in seen(view).elements if tag == "details"] for _ in range(2)]
    assert ["open" in row for row in groups[0]].count(True) == 1
    assert len({row["name"] for row in groups[0]}) == 1
    assert groups[0][0]["name"] != groups[1][0]["name"]  # two cards on one page are apart


def test_every_kind_of_odd_row_is_shown_and_says_why(odd):
    html, shown = odd._repr_html_(), {page.number: page.why for page in odd._book.chosen()}
    reasons = {
        "plain": "",
        "no end": "no end token",
        "empty": "empty answer",
        "two bos": "two BOS",
        "unknown": "unknown token",
        "a copy": "a copy of row 0",
        "cut": "longest · most cut",
        "left out": "left out",
    }
    assert {kind: shown[KINDS.index(kind)] for kind in reasons} == reasons
    assert all(f'<em class="tunebook-why">{reason}</em>' in html for reason in reasons.values() if reason)


def test_every_finding_stands_there_with_its_remedy(odd):
    page = Seen(odd._repr_html_())
    text = re.sub(r"<[^>]+>", "", odd._repr_html_().replace(page.style, ""))
    assert len(odd.report.findings) == 7
    for finding in odd.report.findings:
        escaped = (finding.text, finding.remedy)
        assert all(part.replace("<", "&lt;").replace(">", "&gt;").replace("'", "&#x27;") in text for part in escaped)
        assert str(finding) in repr(odd)


def test_a_row_that_is_left_out_is_shown_with_nothing_marked_and_says_what_was_cut(odd, model):
    page = next(page for page in odd._book.chosen() if page.why == "left out")
    source = odd_rows(model.loaded.tokenizer)[page.number]["input_ids"]
    shown = [token for piece in page.head + page.tail for token in piece.ids]
    assert shown == source[:64]
    assert page.trained == 0
    assert page.cut == len(source) - 64
    assert page.caption == "64 tokens, none of them trained"


def test_hostile_text_stays_text(odd):
    html = seen(odd)
    row = html.rows[[page.number for page in odd._book.chosen()].index(KINDS.index("hostile"))]
    assert "<script>window" in row
    everything = odd._repr_html_() + repr(odd)
    assert not [char for char in "\x1b\x07\u202e\u202c\u200b\u2066" if char in everything]


def test_hostile_text_of_a_conversation_stays_text(model):
    turns = [{"role": "user", "content": HOSTILE}, {"role": "assistant", "content": HOSTILE}]
    view = TokenView(model, [{"messages": turns}], max_seq_length=1024)
    (row,) = seen(view).rows
    acting = (0x1B, 0x07, 0x202E, 0x202C, 0x200B, 0x2066)
    plain = HOSTILE.translate({code: f"⟨U+{code:04X}⟩" for code in acting})
    assert row.count(plain) == 2
    assert "\x1b" not in repr(view)


def test_a_single_token_that_is_markup_stays_text():
    piece = Piece(HOSTILE, (5,), trained=True, special=False)
    key = Piece(HOSTILE, (6,), trained=False, special=True)
    page = Page(0, 0, HOSTILE, 2, 1, 0, (piece, key), 0, 0, (), HOSTILE, 0)
    html = Seen(static_html(Card([HOSTILE, HOSTILE], Bars(1, [1], 1), [(HOSTILE, HOSTILE)]), [page]))
    assert html.rows == [HOSTILE * 2]
    assert html.trained == [HOSTILE]
    assert {tag for tag, _ in html.elements}.isdisjoint({"script", "img"})
    assert [tag for tag, _ in html.elements].count("svg") == 1


def test_a_huge_row_is_shown_by_its_ends_with_the_count_between(model):
    ids = [7 + index % 200 for index in range(5000)]
    labels = [-100] * 2500 + ids[2500:]
    view = TokenView(model, [{"input_ids": ids, "labels": labels}], max_seq_length=8192)
    (page,) = view._book.chosen()
    assert [token for piece in page.head for token in piece.ids] == ids[:HEAD]
    assert [token for piece in page.tail for token in piece.ids] == ids[-TAIL:]
    assert page.gap == f"… {5000 - HEAD - TAIL:,} tokens, {2500 - TAIL:,} of them trained, are not shown …"
    assert page.gap in seen(view).rows[0]


def test_the_drawing_has_a_bar_for_each_filled_bin_and_a_line_at_the_limit(model, rows):
    view = TokenView(model, rows, max_seq_length=40)
    bars = view.report.histogram
    elements = seen(view).elements
    heights = [float(found["height"] or 0) for tag, found in elements if tag == "rect"]
    assert [height > 0 for height in heights] == [count > 0 for count in bars.counts]
    assert heights[int(np.argmax(bars.counts))] == max(heights)
    (line,) = [found for tag, found in elements if tag == "line"]
    assert float(line["x1"] or 0) == pytest.approx(10 * 40 / bars.width, rel=1e-4)
    (drawing,) = [found for tag, found in elements if tag == "svg"]
    assert "12 rows" in (drawing["aria-label"] or "")


def test_a_trainers_rows_are_shown_as_they_will_be_trained(model, rows):
    twice = [{"messages": row["messages"] * 2} for row in rows]
    args = TrainingConfig(train_on="last_assistant", hold_out=0)
    trainer = Trainer(model, train_dataset=twice, args=args)
    view = TokenView(trainer)
    trained = [row.supervised_tokens for row in trainer.train_rows]
    assert view.report.trained_tokens == sum(trained) < TokenView(model, twice).report.trained_tokens
    assert seen(view).trained_tokens[:3] == trained[:3]


def test_a_trainers_formatting_func_and_markers_come_with_it(model):
    rows = [{"q": f"number {n}", "a": "the dog"} for n in range(4)]
    trainer = Trainer(
        model,
        train_dataset=rows,
        formatting_func=lambda row: f"user: {row['q']} assistant: {row['a']}",
        args=TrainingConfig(hold_out=0),
    )
    train_on_responses_only(trainer, instruction_part="user:", response_part="assistant:")
    assert {text.removesuffix("<|im_end|>") for text in seen(TokenView(trainer)).trained} == {" the dog"}


def test_a_left_out_row_of_a_trainer_is_the_right_one_after_some_were_held_out(model, rows):
    many = [
        {"messages": [{"role": "user", "content": f"{n} {row['messages'][0]['content']}"}, row["messages"][1]]}
        for n, row in enumerate(rows * 4)
    ]
    long = {"messages": [{"role": "user", "content": "why " * 90}, {"role": "assistant", "content": "so"}]}
    trainer = Trainer(model, train_dataset=[*many, long], args=TrainingConfig(hold_out=0.2, max_seq_length=64))
    assert trainer.eval_rows
    left_out = [page for page in TokenView(trainer)._book.chosen() if page.why == "left out"]
    assert ["why why" in "".join(piece.text for piece in page.head) for page in left_out] == [True]


def test_a_left_out_row_of_a_trainer_is_marked_as_the_trainer_marks_it(model, rows):
    turn = lambda role, content: {"role": role, "content": content}  # noqa: E731
    short, long = [turn("user", "why?"), turn("assistant", "so")], [turn("user", "why " * 90), turn("assistant", "so")]
    args = TrainingConfig(hold_out=0, max_seq_length=64, train_on="last_assistant")
    trainer = Trainer(model, train_dataset=[*rows, {"messages": short + long}], args=args)
    (page,) = [page for page in TokenView(trainer)._book.chosen() if page.why == "left out"]
    assert page.trained == 0


def test_a_trainer_takes_no_second_opinion_and_a_model_needs_rows(model, rows):
    trainer = Trainer(model, train_dataset=rows)
    with pytest.raises(ValueError, match="pass TokenView\\(trainer\\) and nothing else"):
        TokenView(trainer, rows)
    with pytest.raises(ValueError, match="nothing else"):
        TokenView(trainer, train_on="everything")
    with pytest.raises(ValueError, match="TokenView\\(model, rows\\)"):
        TokenView(model)


def test_rows_may_be_a_file(model, rows, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    assert TokenView(model, file).report == TokenView(model, rows).report


def test_a_row_left_out_of_a_trainer_that_holds_rows_out_is_shown_under_its_own_number(model):
    rows = [
        {"messages": [{"role": "user", "content": f"Say {n}."}, {"role": "assistant", "content": f"It is {n}."}]}
        for n in range(100)
    ]
    rows[50] = {"messages": [{"role": "user", "content": "lost " * 200}, {"role": "assistant", "content": "so"}]}
    trainer = Trainer(model, train_dataset=rows, args=TrainingConfig(max_seq_length=64))
    assert trainer.eval_rows
    shown = repr(TokenView(trainer))
    assert "Row 50" in shown
    page = shown[shown.index("Row 50") :]
    assert "lost lost" in page
    assert "Say" not in page.split("\n\n")[0]


def test_packed_rows_are_shown_as_the_rows_they_are_packed_of(model):
    rows = [{"text": f"the dog number {n} sleeps"} for n in range(40)]
    trainer = Trainer(model, train_dataset=rows, args=TrainingConfig(packing=True, hold_out=0))
    assert len(trainer.train_rows) < 20
    assert "40 rows" in repr(TokenView(trainer))
