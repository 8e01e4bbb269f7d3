"""Several exams in one table: what each model has gained and lost, and metrics that are for some rows only."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from textwrap import dedent

import pytest

from tunebook import scores
from tunebook.scores.marks import Answered, Marks
from tunebook.scores.metrics import Mark

ROWS = [{"question": f"Say {word}.", "answer": word, "level": level} for word, level in (("fox", 1), ("dog", 2))]


def marks(name, exam, **values):
    """Marks with a right or wrong answer in every row, by metric."""
    rows = zip(*values.values(), strict=True)
    return Marks(
        name=name,
        exam=exam,
        metrics=tuple(replace(scores.exact_match(), name=metric) for metric in values),
        rows=tuple(
            Answered(
                number=number,
                prompt="?",
                reference=None,
                answer="",
                marks={metric: Mark(value, (value, 1.0)) for metric, value in zip(values, row, strict=True)},
            )
            for number, row in enumerate(rows)
        ),
    )


def test_what_was_gained_and_lost_is_told_for_each_model_over_all_exams():
    right, wrong, half = [1.0] * 12, [0.0] * 12, [1.0, 0.0] * 6
    task = scores.compare(marks("base", "a", task=wrong), marks("tuned", "a", task=right), marks("q", "a", task=wrong))
    rest = scores.compare(
        marks("base", "b", facts=right, sense=half),
        marks("tuned", "b", facts=wrong, sense=half[::-1]),
        marks("q", "b", facts=right, sense=half),
    )
    table = scores.gained_and_lost(task, rest)
    assert (table.gained("tuned"), table.lost("tuned")) == (["task"], ["facts"])
    assert (table.gained("q"), table.lost("q")) == ([], [])
    assert "tuned: gained task; lost facts; not told from chance: sense." in table.sentences
    assert "q: gained nothing; lost nothing; not told from chance: task, facts, sense." in table.sentences
    assert "tuned: facts: 0 of 12 flipped to right, 12 to wrong: worse, p = 0.00049" in repr(table)
    assert "3 lines better or worse in up to 14% of such tables" in repr(table)
    assert list(table.frame()["metric"]) == ["task"] * 3 + ["facts", "sense"] * 3
    assert len(table.picture().axes) == 3
    assert {type(one.picture()) for one in (task, rest)} == {type(table.picture())}
    with pytest.raises(KeyError, match="there are tuned, q"):
        table.lost("base")


def test_a_notebook_shows_and_keeps_the_picture_where_nobody_imported_pyplot():
    asked = """
        import sys
        from IPython.core.formatters import DisplayFormatter
        from tests.scores.test_gained_and_lost import marks
        from tunebook import scores
        table = scores.compare(marks("base", "a", task=[0.0] * 8), marks("tuned", "a", task=[1.0] * 8))
        shown, _ = DisplayFormatter().format(table.picture())
        assert "matplotlib.pyplot" not in sys.modules
        assert shown["image/png"].startswith(b"\\x89PNG"), shown
    """
    subprocess.run([sys.executable, "-c", dedent(asked)], check=True, cwd=Path(__file__).parents[2])


def test_exams_of_other_models_are_not_put_into_one_table():
    def comparison(exam, metric, *names):
        return scores.compare(*(marks(name, exam, **{metric: [1.0, 0.0]}) for name in names))

    with pytest.raises(ValueError, match="base, tuned in one exam and base, other in another"):
        scores.gained_and_lost(comparison("a", "x", "base", "tuned"), comparison("b", "y", "base", "other"))
    with pytest.raises(ValueError, match="'x' is in two of the exams"):
        scores.gained_and_lost(comparison("a", "x", "base", "tuned"), comparison("b", "x", "base", "tuned"))
    with pytest.raises(ValueError, match="Two models are called 'base'"):
        scores.gained_and_lost(comparison("a", "x", "base", "base"))
    with pytest.raises(ValueError, match="No comparison"):
        scores.gained_and_lost()


def test_a_metric_is_asked_only_of_the_rows_it_is_for(model):
    hard = replace(scores.exact_match(), name="hard", concerns=lambda row: row["level"] == 2)
    found = scores.Exam(ROWS, metrics=[hard, "perplexity"], max_tokens=2).take(model)
    assert [list(row.marks) for row in found.rows] == [["perplexity"], ["hard", "perplexity"]]
    assert [row.answer is None for row in found.rows] == [True, False]
    assert (found.scored("hard"), found.not_scored("hard"), found.scored("perplexity")) == ([1], {}, [0, 1])
    assert found["hard"] == 0
    assert found.notices == ("1 of 1 answers were cut at max_tokens=2; raise it for the rest.",)
    found.require(at_least=0.0)
    with pytest.raises(scores.ScoreTooLow, match="hard of base is 0 over 1 rows"):
        found.require(at_least=0.5)


def test_a_metric_that_is_for_no_row_is_refused():
    none = replace(scores.exact_match(), name="none", concerns=lambda row: row["level"] == 3)
    with pytest.raises(ValueError, match="'none' is for none of the 2 rows"):
        scores.Exam(ROWS, metrics=[none])
