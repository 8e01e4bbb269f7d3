"""tokens/token_book.py and tokens/token_browser.py, without a browser: every row has its page, and it alone is read."""

import json

import numpy as np
import pytest

from tests.widgets.odd_rows import KINDS
from tunebook.data.encoded import Encoded
from tunebook.data.sources import row_number
from tunebook.tokens.encoding import encode_rows
from tunebook_widgets import TokenView
from tunebook_widgets.tokens.token_book import Book
from tunebook_widgets.tokens.token_browser import TokenBrowser


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
        ordered={},
        place=row_number,
        decode=str,
        special=set(),
    )
    browser = TokenBrowser(book, "rows")
    browser._receive(browser, {"go": "to", "index": 500}, [])
    assert read == [0, 500]
