import importlib
import inspect

import pytest

from tunebook.samples import python_docs


@pytest.fixture(scope="module")
def docs():
    return python_docs()


def test_there_are_a_few_hundred_rows_and_no_answer_twice(docs):
    answers = [row["messages"][1]["content"] for row in docs]
    assert 150 < len(docs) < 600
    assert len(set(answers)) == len(answers)


def test_an_answer_is_the_docstring_python_itself_shows(docs):
    plain = [
        row for row in docs if row["name"].startswith(("textwrap.", "statistics.", "shutil.", "base64.", "heapq."))
    ]
    assert len(plain) > 5
    for row in plain:
        module, _, name = row["name"].partition(".")
        shown = importlib.import_module(module)
        for part in name.split("."):
            shown = getattr(shown, part)
        assert inspect.getdoc(shown) == row["messages"][1]["content"], row["name"]


def test_the_question_never_contains_the_answer(docs):
    leaks = [row["name"] for row in docs if row["messages"][1]["content"] in row["messages"][0]["content"]]
    assert not leaks


def test_the_rows_are_the_same_each_time(docs):
    assert python_docs() == docs
