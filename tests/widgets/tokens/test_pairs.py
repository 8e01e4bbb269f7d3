"""Pairs and judged answers in a TokenView: both answers under one prompt, the closest pair among the first."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import tunebook
from tests.makers.tiny_vision import noise_images
from tests.tokens.test_pairs import pair
from tunebook import Trainer, TrainingConfig
from tunebook.data.opened import ReadingOptions, opened
from tunebook.objectives import DPO, KTO, ORPO, AlphaPO, SimPO
from tunebook.tokens.data_report import inspect
from tunebook.tokens.encoding import encode
from tunebook_widgets import TokenView
from tunebook_widgets.tokens.token_spread import HEAD, REJECTED, spread
from tunebook_widgets.tokens.token_view import _book, _left_out_reader, _plain

ROWS = [
    {"prompt": "What color is the sky?", "chosen": " It is blue, as a rule.", "rejected": " Green."},
    {"prompt": "Who are you?", "chosen": " I am here.", "rejected": " I am there."},
    {"prompt": "the quick brown fox " * 40, "chosen": " jumps", "rejected": " sleeps"},
]


def book(model, rows, kind):
    source = opened(rows, ReadingOptions(answers=kind))
    encoded = encode(source, model.loaded, max_seq_length=64)
    report = inspect(encoded, model.loaded.tokenizer)
    return _book(encoded, report, model.loaded, _left_out_reader(source, encoded, model.loaded))


def text(pieces, trained):
    return "".join(piece.text for piece in pieces if piece.trained is trained)


def test_a_pair_is_shown_as_both_answers_under_one_prompt(model):
    page, end = book(model, ROWS, "pairs").page(0), model.loaded.tokenizer.eos_token
    assert text(page.head, False) == ROWS[0]["prompt"]
    assert text(page.head, True) == ROWS[0]["chosen"] + end
    assert text(page.tail, True) == ROWS[0]["rejected"] + end
    assert text(page.tail, False) == ""
    assert page.gap == REJECTED
    assert page.trained == sum(piece.trained * len(piece.ids) for piece in (*page.head, *page.tail))
    assert f"?⟦{ROWS[0]['chosen']}{end}⟧\n{REJECTED}\n⟦{ROWS[0]['rejected']}" in _plain(page)


def test_pairs_are_seen_before_there_is_a_trainer_by_the_objective_that_reads_them(model):
    assert "tunebook.objectives.DPO()" in repr(TokenView(model, ROWS))
    view = TokenView(model, ROWS, objective=DPO(), max_seq_length=64)
    assert REJECTED in repr(view)
    assert view.report.source_rows == len(ROWS)


def test_a_picture_is_shown_once_above_both_answers(vision_models):
    answers = {side: [{"role": "assistant", "content": f"a {side} dog"}] for side in ("chosen", "rejected")}
    asked = [{"role": "user", "content": "What is it?"}]
    rows = [{"prompt": asked, **answers, "images": noise_images(1, size=(56, 56))}]
    seen = book(vision_models("qwen2_vl"), rows, "pairs")
    page, picture = seen.page(0), "<|vision_start|><|image_pad|> × 4<|vision_end|>"
    assert text(page.head, False).count(picture) == 1
    assert text(page.tail, False) == ""
    assert [text(part, True) for part in (page.head, page.tail)] == [
        f"a {side} dog<|im_end|>\n" for side in ("chosen", "rejected")
    ]


def test_the_longest_and_the_closest_pair_are_among_the_first_pages(model):
    pairs = book(model, ROWS[:2], "pairs")
    assert [page.why for page in pairs.chosen()] == ["longest", "closest"]
    assert pairs.orders["closest"].tolist() == [1, 0]


def test_a_pair_that_was_left_out_is_shown_within_the_length(model):
    pairs = book(model, ROWS, "pairs")
    page = pairs.page(pairs.page_of(2))
    assert page.why == "left out"
    assert (page.tokens, page.trained) == (128, 0)
    assert page.cut_note


@pytest.mark.parametrize(("label", "said"), [(True, "a good answer"), (False, "a bad answer")])
def test_a_judged_answer_says_which_it_is(model, label, said):
    rows = [{"prompt": row["prompt"], "completion": row["chosen"], "label": label} for row in ROWS[:2]]
    judged = book(model, rows, "labelled")
    assert judged.page(0).why == said
    assert "closest" not in judged.orders


@pytest.mark.parametrize(("prompt", "chosen", "rejected"), [(900, 30, 40), (10, 900, 40), (10, 30, 900), (3, 4, 5)])
def test_of_a_huge_pair_the_ends_that_are_shown_and_what_is_not_make_up_the_row(prompt, chosen, rejected):
    ids = np.arange(prompt + chosen).tolist(), [*range(prompt), *range(5000, 5000 + rejected)]
    row = replace(pair(*ids, prompt=prompt))
    shown = spread(row)
    assert len(shown.head.tokens) <= HEAD
    assert len(shown.tail.tokens) <= HEAD
    assert shown.tail.tokens == ids[1][prompt:][:HEAD]
    assert all(shown.tail.trained)
    assert prompt + chosen + rejected == len(shown.head.tokens) + len(shown.tail.tokens) + shown.hidden_tokens
    assert row.supervised_tokens == shown.shown_trained + shown.hidden_trained


@pytest.mark.parametrize("by_trainer", [True, False])
def test_the_calls_that_do_without_bad_pairs_name_their_objective_and_run(model, by_trainer):
    objective, rows = DPO(beta=0.2), [*ROWS[:2], {"prompt": "What is missing?", "chosen": " This."}]
    args = TrainingConfig(output_dir=None, hold_out=0.0)
    if by_trainer:
        view = TokenView(Trainer(model, train_dataset=rows, skip_bad_rows=True, args=args, objective=objective))
    else:
        view = TokenView(model, rows, objective=objective)
    assert view.bad is not None
    [call] = view.bad.mends
    made: dict[str, Any] = {}
    names = {"model": model, "tokenizer": model.loaded.tokenizer, "rows": rows, "Trainer": Trainer}
    exec(
        call.replace("Trainer(", "made = Trainer(").replace("rows,", "rows, args=args,", 1),
        names | {"args": args},
        made,
    )
    assert made["made"].objective == objective
    assert len(made["made"].train_rows) == 2


def test_pairs_that_are_shown_without_an_objective_come_with_the_call_that_has_one(model):
    view = TokenView(model, ROWS)
    assert view.bad is not None
    assert "objective=tunebook.objectives.DPO())" in view.bad.mends[0]
    assert TokenView(model, ROWS[:2], objective=DPO()).bad is None


@pytest.mark.parametrize(
    "objective",
    [DPO(), DPO(loss_type=["ipo", "sft"], loss_weights=[1, 0.5], beta=0.3), SimPO(), AlphaPO(alpha=0.2), ORPO(), KTO()],
    ids=repr,
)
def test_an_objective_is_written_as_the_call_that_makes_it(objective):
    assert eval(objective.written(), {"tunebook": tunebook}) == objective
