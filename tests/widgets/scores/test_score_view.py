"""A view of an exam's rows with a model: its losses are the kit's own, and what stays in a notebook needs no script."""

import base64
import io
import json
import math
from html.parser import HTMLParser

import pytest
from PIL import Image

from tests.makers.tiny_vision import asked, noise_images
from tests.widgets.odd_rows import HOSTILE
from tests.widgets.scores.made_marks import marks
from tunebook import FastModel, scores
from tunebook_widgets import ScoreView
from tunebook_widgets.scores import token_losses
from tunebook_widgets.scores.heat import level

ROWS = [{"prompt": f"Say {word}.", "completion": f"{word}, où est l'été 日本?"} for word in ("fox", "dog", "sun")] * 4


class Seen(HTMLParser):
    """What a parser that is not ours makes of the page."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.tags[-1][0] != "style":
            self.text += data


@pytest.fixture
def exam():
    return scores.Exam(ROWS, metrics=["exact_match", "perplexity"], max_tokens=6)


@pytest.fixture
def view(tuned, exam):
    base, now = exam.take(tuned, adapters=False), exam.take(tuned)
    return ScoreView(base, now, model=tuned, exam=exam, metric="perplexity")


def test_the_losses_of_a_row_are_its_perplexity_with_adapters_and_without(view, tuned, exam):
    browser = view.browse()
    assert browser.losses == {}  # until the row is looked at
    browser._receive(browser, {"losses": "reference", "place": 0}, [])
    shown = browser.losses
    assert [each["name"] for each in shown["models"]] == ["base", "tuned"]
    for place, adapters in enumerate((False, True)):
        row = exam.take(tuned, adapters=adapters).rows[0]
        nats = [each[place] for _, _, each in shown["pieces"]]
        (found,) = dict(exam.sitting(tuned, adapters=adapters).token_losses([(0, None)])).values()
        assert sum(nats) == pytest.approx(found.nats, abs=1e-3)
        assert math.exp(found.nats / found.count) == pytest.approx(row.marks["perplexity"].value, rel=1e-5)
        assert shown["models"][place]["said"].startswith(f"{found.nats / found.count:.3f} nats per token over")
        worst = max(shown["pieces"], key=lambda piece: piece[2][place])
        assert f"least expected: ‘{worst[0]}’ {worst[2][place]:.2f}" in shown["models"][place]["said"]
    assert "".join(text for text, _, _ in shown["pieces"]) == ROWS[0]["completion"] + "<|im_end|>"


def test_an_answer_of_a_model_is_measured_too_and_one_that_both_gave_once(view, tuned):
    browser = view.browse()
    browser._receive(browser, {"losses": "1", "place": 2}, [])
    assert "".join(text for text, _, _ in browser.losses["pieces"]) == view._book.answer(2, 1)
    assert [name for name, _ in browser.row["texts"]] == ["reference", "0", "1"]
    before = browser.losses
    browser._receive(browser, {"losses": "7", "place": 2}, [])
    assert browser.losses == before
    same = ScoreView(*[view._book.marks[1]] * 2, model=tuned, exam=scores.Exam(ROWS, view._book.metrics, max_tokens=6))
    assert same.browse().row["texts"] == [["reference", "the row's own answer"], ["0", "the answer of both"]]


def test_a_model_without_adapters_is_asked_alone_and_a_row_that_is_too_long_is_not(model, exam, monkeypatch):
    monkeypatch.setattr(token_losses, "LONGEST", 20)
    view = ScoreView(exam.take(model, name="it"), model=model, exam=exam)
    browser = view.browse()
    browser._receive(browser, {"losses": "reference", "place": 0}, [])
    assert "tokens, more than 20." in browser.losses["why_not"]
    monkeypatch.setattr(token_losses, "LONGEST", 4096)
    browser._receive(browser, {"losses": "reference", "place": 0}, [])
    assert [each["name"] for each in browser.losses["models"]] == ["the model"]


def test_of_a_long_answer_both_ends_are_shown_and_its_sum_is_of_all(tuned):
    rows = [{"prompt": "Say much.", "completion": "the lazy dog sleeps in the sun " * 100}]
    exam = scores.Exam(rows, metrics=["perplexity"])
    browser = ScoreView(exam.take(tuned), model=tuned, exam=exam).browse()
    browser._receive(browser, {"losses": "reference", "place": 0}, [])
    (found,) = dict(exam.sitting(tuned).token_losses([(0, None)])).values()
    hidden = found.count - token_losses.HEAD - token_losses.TAIL
    assert browser.losses["hidden"] == f"… {hidden:,} tokens are not shown …"
    assert sum(map(len, browser.losses["pieces"])) == 3 * (token_losses.HEAD + token_losses.TAIL)
    assert f"over {found.count:,} tokens" in browser.losses["models"][1]["said"]
    assert len(json.dumps(browser.losses)) < 40_000


def test_a_model_and_its_exam_go_together(tuned, exam):
    taken = exam.take(tuned)
    with pytest.raises(ValueError, match="model is given without exam"):
        ScoreView(taken, model=tuned)
    with pytest.raises(ValueError, match="exam is given without model"):
        ScoreView(taken, exam=exam)
    with pytest.raises(ValueError, match="'tuned' are not of this exam"):
        ScoreView(taken, model=tuned, exam=scores.Exam(ROWS[:2], metrics=["exact_match"]))


def test_pictures_of_a_row_are_shown_small(vision_models):
    model: FastModel = vision_models("qwen2_vl")
    rows = [asked("What is it?", noise_images(count, size=(400, 300)), "a fox") for count in (1, 6)]
    exam = scores.Exam(rows, metrics=["perplexity"])
    taken = exam.take(model)
    browser = ScoreView(taken, model=model, exam=exam).browse()
    browser._receive(browser, {"go": "number", "number": 1}, [])
    assert browser.row["of_pictures"] == "2 more pictures are not shown."
    sizes = [Image.open(io.BytesIO(base64.b64decode(one.partition(",")[2]))).size for one in browser.row["pictures"]]
    assert sizes == [(160, 120)] * 4
    assert len(json.dumps(browser.row)) < 80_000
    browser._receive(browser, {"losses": "reference", "place": browser.row["place"]}, [])
    assert browser.losses["models"]
    assert "(image)" in ScoreView(taken).browse().row["prompt"]


def test_the_page_that_stays_has_ten_rows_without_a_script_and_every_number_in_words(view):
    html = view._repr_html_()
    seen = Seen(html)
    tags = [tag for tag, _ in seen.tags]
    assert tags.count("details") == 10
    assert not {"script", "img", "link", "iframe"} & set(tags)
    for metric in ("exact_match", "perplexity"):
        assert view._book.sentence(metric) in seen.text
    tokens = [attributes for tag, attributes in seen.tags if "nats" in (attributes.get("title") or "")]
    assert tokens
    for attributes in tokens:
        step = level(float(attributes["title"].removesuffix(" nats")))
        assert f"tunebook-heat-{step}" in attributes["class"]
        assert ("rgba(213, 94, 0" in attributes["style"]) == (step > 0)
    assert "nats per token over" in seen.text
    assert len(html) < 150_000


def test_markup_in_rows_and_answers_stays_text_and_the_plain_form_names_the_rows():
    hostile = {"answers": [HOSTILE] * 3, "prompts": [HOSTILE] * 3, "references": [HOSTILE] * 3, "why": HOSTILE}
    view = ScoreView(marks(HOSTILE, [0, 1, None], **hostile), marks(HOSTILE, [1, 0, 0], **hostile))
    seen = Seen(view._repr_html_())
    assert not {"script", "img", "svg"} & {tag for tag, _ in seen.tags}
    assert sum(tag == "style" for tag, _ in seen.tags) == 1
    assert seen.text.count("<script>window.hit = 1</script>") >= 8
    assert "\u202e" not in seen.text + repr(view)
    assert "\n  row 1  right → wrong  " in repr(view)


def test_thoughts_are_folded_and_cut_answers_said_in_the_page_that_stays():
    thinking = marks("m", [0, 0], answers=["<think>hm hm</think>42", "43"], cut=[1])
    seen = Seen(ScoreView(thinking)._repr_html_())
    assert [tag for tag, _ in seen.tags].count("details") == 3
    assert "Thoughts (5 characters)hm hm" in seen.text
    assert "✂ cut here" in seen.text
