"""What a run leaves that takes an exam: its verdict by the score it goes by, and what changed since the first."""

from dataclasses import replace

from tests.widgets.dashboard.told_runs import cells_of, ended_run, started_run, step_event
from tunebook.events import ScoreEvent
from tunebook_widgets.dashboard.freeze import frozen_table
from tunebook_widgets.dashboard.wording import verdict


def followed_run(values, *, metric="exact_match", losses=(3.0, 2.0, 1.0), exams=("ab",) * 9):
    """Of a run that goes by a score of its exam, taken at steps 0, 1, 2, ..."""
    run = started_run(total=len(values) - 1)
    run.started = replace(run.started, config={"metric_for_best_model": metric})
    for step, (value, exam) in enumerate(zip(values, exams, strict=False)):
        if step:
            run.add(step_event(step, total=len(values) - 1, loss=losses[step - 1]))
        since = {metric: f"{metric}: told of step {step}."} if step else {}
        lower = ["perplexity"]
        run.add(
            ScoreEvent(
                step=step,
                scores={metric: value},
                rows=40,
                seconds=1.0,
                exam=exam,
                since_start=since,
                lower_is_better=lower,
            )
        )
    run.add(ended_run(len(values) - 1, len(values) - 1))
    return run


def test_a_run_that_goes_by_a_score_ends_with_its_best_and_says_where_the_loss_went_on_to_fall():
    run = followed_run([0.1, 0.6, 0.5, 0.4])
    bundle = frozen_table(run)
    sentence = (
        "Finished all 3 steps in 7.0 s · loss 3.000 → 1.000 · best exact_match 0.6 at step 1. exact_match was 0.6 at "
        "step 1 and is 0.4 at step 3, though the training loss still fell (3.000 → 1.000)."
    )
    assert bundle["text/plain"].splitlines()[0] == sentence
    assert cells_of(bundle["text/html"])["What changed"] == (
        "Step 1 against step 0: exact_match: told of step 1. It is the best of 4 scores, which flatters it a little."
    )


def test_the_best_score_is_the_lowest_of_a_metric_that_is_better_so_and_of_the_last_exam_alone():
    assert "best perplexity 40 at step 2." in verdict(followed_run([90, 70, 40], metric="perplexity"))
    run = followed_run([0.9, 0.3, 0.4], exams=("old", "ab", "ab"))
    assert "best exact_match 0.4 at step 2." in verdict(run)
    assert cells_of(frozen_table(run)["text/html"])["Exam"] == "exact_match 0.3 → 0.4, over 40 rows"
    assert run.held_out("exam/exact_match") == [(1, 0.3), (2, 0.4)]


def test_the_best_score_by_each_moment_is_what_was_known_then_and_none_that_was_asked_for():
    run = followed_run([0.2, 0.1, 0.9, 0.6])
    run.scores[2] = replace(run.scores[2], asked=True)
    assert run.best_scores == [(0, 0, 0.2), (1, 0, 0.2), (3, 3, 0.6)]
    run.started = replace(run.started, config={})
    assert run.best_scores == []


def test_a_run_whose_first_score_was_the_best_says_so_and_one_that_goes_by_the_loss_tells_of_its_last():
    table = cells_of(frozen_table(followed_run([0.6, 0.5, 0.6]))["text/html"])
    assert table["What changed"] == "No score was better than that of step 0, the first."
    run = followed_run([0.1, 0.6, 0.5])
    run.started = replace(run.started, config={})
    assert "exact_match" not in verdict(run)
    changed = cells_of(frozen_table(run)["text/html"])["What changed"]
    assert changed == "Step 2 against step 0: exact_match: told of step 2."
