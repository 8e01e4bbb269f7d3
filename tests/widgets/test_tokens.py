import json
import random
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from IPython.core.formatters import DisplayFormatter
from tokenizers import Tokenizer, decoders, models

from tests.makers.odd_rows import HOSTILE, KINDS, odd_rows
from tunebook import Trainer, TrainingConfig, train_on_responses_only
from tunebook.data.encoded import Encoded
from tunebook.tokens.encoding import encode_rows
from tunebook_widgets import TokenView
from tunebook_widgets.tokens.token_book import HEAD, TAIL, Book, Page
from tunebook_widgets.tokens.token_browser import TokenBrowser
from tunebook_widgets.tokens.token_html import Bars, Card, static_html
from tunebook_widgets.tokens.token_pieces import Piece, pieces, visible


class Seen(HTMLParser):
    """What a parser that is not ours makes of the card: elements with their attributes, and each row's text."""

    def __init__(self, html: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.rows: list[str] = []
        self.trained: list[str] = []  # of each row, the text that is underlined
        self.trained_tokens: list[int] = []
        self.keys: list[str] = []
        self.style = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "pre":
            self.rows.append("")
            self.trained.append("")
            self.trained_tokens.append(0)
        if tag not in ("br", "rect", "line"):
            self.open.append(tag)
        if {"pre", "ins"} <= set(self.open) and tag in ("span", "kbd"):
            self.trained_tokens[-1] += 1

    def handle_endtag(self, tag):
        if tag not in ("rect", "line"):
            assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" in self.open:
            self.style += data
        elif "pre" in self.open:
            self.rows[-1] += data
            if "ins" in self.open:
                self.trained[-1] += data
            if "kbd" in self.open:
                self.keys.append(data)


def seen(view: TokenView) -> Seen:
    return Seen(view._repr_html_())


@pytest.fixture
def odd(model) -> TokenView:
    return TokenView(model, odd_rows(model.loaded.tokenizer), max_seq_length=64)


# ---- pieces


def cut_up(tokenizer, ids: list[int], trained: list[bool] | None = None):
    return pieces(ids, trained or [False] * len(ids), decode=tokenizer.decode, special={0, 1, 2})


def test_the_pieces_of_a_text_are_the_text_and_their_ids_are_its_ids(model):
    tokenizer = model.loaded.tokenizer
    text = "où est l'été, 日本語 👩🏽 naïve\n\tdef f():\n  ½"
    ids = [1, *tokenizer.encode(text, add_special_tokens=False), 2]
    made = cut_up(tokenizer, ids)
    assert "".join(piece.text for piece in made) == f"<|im_start|>{text}<|im_end|>"
    assert [token for piece in made for token in piece.ids] == ids
    assert any(len(piece.ids) > 1 for piece in made)
    assert [piece.text for piece in made if piece.special] == ["<|im_start|>", "<|im_end|>"]
    assert "\ufffd" not in "".join(piece.text for piece in made)


def test_no_token_and_no_supervision_is_lost_on_random_bytes(model):
    tokenizer, rng = model.loaded.tokenizer, random.Random(0)
    for _ in range(40):
        ids = [rng.randrange(len(tokenizer)) for _ in range(rng.randrange(1, 60))]
        trained = [rng.random() < 0.5 for _ in ids]
        made = cut_up(tokenizer, ids, trained)
        assert [(token, piece.trained) for piece in made for token in piece.ids] == list(zip(ids, trained, strict=True))


def test_a_character_that_only_looks_unfinished_takes_no_more_tokens_than_a_character_may(model):
    ids = model.loaded.tokenizer.encode("\ufffd" * 20, add_special_tokens=False)
    made = cut_up(model.loaded.tokenizer, ids)
    assert "".join(piece.text for piece in made) == "\ufffd" * 20
    assert [len(piece.ids) for piece in made] == [3] * 20  # one for each byte in UTF-8


def test_bytes_that_are_no_character_are_pieces_of_their_own(model):
    tokenizer = model.loaded.tokenizer
    first, *rest = tokenizer.encode("日", add_special_tokens=False)
    a = tokenizer.encode("a", add_special_tokens=False)
    made = cut_up(tokenizer, [first, *a, first, 2, first, *rest, *rest])
    strays = ["\ufffd"] * len(rest)
    assert [piece.text for piece in made] == ["\ufffd", "a", "\ufffd", "<|im_end|>", "日", *strays]
    assert [piece.text for piece in made if piece.special] == ["<|im_end|>"]


def test_blanks_between_words_survive_a_decoder_that_drops_the_first():
    words = {"<s>": 0, "▁the": 1, "▁dog": 2, "s": 3, "▁": 4}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<s>"))
    tokenizer.decoder = decoders.Metaspace()  # pyright: ignore[reportAttributeAccessIssue]
    ids = [1, 2, 3, 4, 2]
    made = pieces(ids, [False] * 5, decode=tokenizer.decode, special=set())
    assert "".join(piece.text for piece in made) == tokenizer.decode(ids) == "the dogs  dog"
    assert [piece.text for piece in made][1] == " dog"


@pytest.mark.parametrize("char", "\x00\x07\x08\r\x1b\x7f\x85\x9b\u00ad\u061c\u200b\u200f\u202a\u202e\u2028\u2066\ufeff")
def test_a_character_that_acts_or_hides_is_written_as_its_number(char):
    shown = visible(f"a{char}b")
    assert shown == f"a⟨U+{ord(char):04X}⟩b"


def test_ordinary_text_of_any_script_is_left_alone():
    text = "tab\there\nשלום مرحبا 日本 é é 👩🏽 ½ |<>&\"'`"
    assert visible(text) == text


# ---- the card


def test_the_underlined_text_is_what_the_loss_sees(model, rows):
    html = seen(TokenView(model, rows[:5]))
    encoded = encode_rows(rows[:5], model.loaded, max_seq_length=128).rows
    for row, text, trained, count in zip(encoded, html.rows, html.trained, html.trained_tokens, strict=True):
        decode = model.loaded.tokenizer.decode
        assert text.replace("↵\n", "\n") == decode(row.tokens.tolist())
        assert trained.replace("↵\n", "\n") == decode(row.tokens[row.loss_mask].tolist())
        assert count == row.supervised_tokens


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
    page = Page(0, 0, HOSTILE, 2, 1, 0, (piece, key), 0, 0, ())
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


# ---- of a trainer


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


# ---- all rows


def test_every_row_has_its_page_in_the_order_of_the_source(odd):
    browser = odd.browse()
    numbers = []
    for index in range(browser.total):
        browser._receive(browser, {"go": "to", "index": index}, [])
        numbers.append(browser.page["number"])
    assert numbers == list(range(len(KINDS)))


def test_leafing_ends_at_the_first_and_the_last_row(odd):
    browser = odd.browse()
    for asked, reached in ((-1, 0), (99, len(KINDS) - 1)):
        browser._receive(browser, {"go": "to", "index": asked}, [])
        assert browser.page["index"] == reached


def test_leafing_by_length_goes_from_the_longest_to_the_shortest_and_round(model, rows):
    browser = TokenView(model, rows).browse()
    lengths = [len(row.tokens) for row in encode_rows(rows, model.loaded, max_seq_length=128).rows]
    reached = []
    for _ in range(len(rows) + 1):
        browser._receive(browser, {"go": "order", "name": "longest"}, [])
        reached.append(lengths[browser.page["number"]])
    assert reached == [*sorted(lengths, reverse=True), max(lengths)]


def test_among_cut_rows_the_one_that_was_longest_comes_first(model):
    ids = [7 + index % 200 for index in range(90)]
    view = TokenView(model, [{"input_ids": ids[:size]} for size in (50, 70, 90, 60, 80)], max_seq_length=40)
    assert [int(view._book.page(int(index)).number) for index in view._book.orders["longest"]] == [2, 4, 1, 3, 0]


def test_an_order_begins_anew_once_another_way_was_taken(odd):
    browser = odd.browse()
    for message in ({"go": "order", "name": "longest"}, {"go": "to", "index": 0}, {"go": "order", "name": "longest"}):
        browser._receive(browser, message, [])
    assert browser.page["why"].startswith("longest: 1 of")


def test_orders_are_offered_only_where_they_have_rows(odd, model, rows):
    assert [name for name, _ in TokenView(model, rows).browse().orders] == ["longest"]
    counts = dict(odd.browse().orders)
    assert counts.pop("longest") == len(KINDS) - 1  # what was left out has no length to go by
    assert set(counts.values()) == {1}
    assert len(counts) == 7


def test_a_row_number_that_is_not_there_is_said_and_the_page_stays(odd):
    browser = odd.browse()
    browser._receive(browser, {"go": "row", "number": 7}, [])
    browser._receive(browser, {"go": "row", "number": 4000}, [])
    assert (browser.page["number"], browser.page["complaint"]) == (7, "There is no row 4000.")
    browser._receive(browser, {"go": "row", "number": 3}, [])
    assert (browser.page["number"], browser.page["complaint"]) == (3, "")


@pytest.mark.parametrize(
    "message", [{}, {"go": "to"}, {"go": "to", "index": "1"}, {"go": "order", "name": "x"}, {"go": 1}]
)
def test_a_message_that_makes_no_sense_changes_nothing(odd, message):
    browser = odd.browse()
    before = browser.page
    browser._receive(browser, message, [])
    assert browser.page == before


def test_a_page_is_plain_json(odd):
    browser = odd.browse()
    browser._receive(browser, {"go": "row", "number": 8}, [])
    assert json.loads(json.dumps(browser.page)) == browser.page


def test_a_raw_text_in_pieces_is_reached_by_its_row_number(model):
    rows = [{"text": "the quick brown fox jumps over the lazy dog " * size} for size in (1, 12, 1)]
    browser = TokenView(model, rows, max_seq_length=32).browse()
    browser._receive(browser, {"go": "row", "number": 2}, [])
    assert browser.page["index"] == browser.total - 1
    browser._receive(browser, {"go": "row", "number": 1}, [])
    assert browser.page["index"] == 1


def test_only_the_page_that_is_asked_for_is_read():
    read = []

    class Counting(list):
        def __getitem__(self, index):
            read.append(index)
            return super().__getitem__(index)

    rows = Counting(
        Encoded(np.array([5, 6, 7], dtype=np.int32), np.array([False, True, True]), number=n) for n in range(1000)
    )
    same = np.arange(1000)
    book = Book(
        rows,
        [],
        lambda number: rows[number],
        numbers=same,
        lengths=same * 0 + 3,
        cuts=same * 0,
        first_alike=same,
        odd={},
        decode=str,
        special=set(),
    )
    browser = TokenBrowser(book, "rows")
    browser._receive(browser, {"go": "to", "index": 500}, [])
    assert read == [0, 500]


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
