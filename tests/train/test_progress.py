"""How far a run is, and that it survives a checkpoint, of this version and of those before."""

import json
from dataclasses import replace

from tunebook.events import EvalEvent
from tunebook.tokens.feed import Place
from tunebook.train.progress import RunProgress
from tunebook.train.step import Outcome

SCORE = EvalEvent(step=4, loss=2.5, rows=3, tokens=40, seconds=0.25)


def through_json(progress):
    return RunProgress.from_plain(json.loads(json.dumps(progress.as_plain())))


def test_what_a_run_knows_of_itself_survives_a_checkpoint():
    before = RunProgress(
        step=5,
        num_tokens=90,
        total_tokens=200,
        trainable_tokens=95,
        place=Place(step=5, epoch=1, row=7, piece=2),
        not_finite=1,
        evals=[SCORE],
        looks=[3],
        learning_rates={2: 1e-3, 5: 3e-4},
        elapsed_before=60.0,
    )
    after = through_json(before)
    assert 60.0 < after.elapsed_before < after.elapsed
    after.elapsed_before = 60.0
    assert after == before


def test_a_learning_rate_to_come_is_not_in_a_checkpoint():
    assert through_json(RunProgress(step=5, learning_rates={2: 1e-3, 6: 3e-4})).learning_rates == {2: 1e-3}


def test_a_checkpoint_of_version_0_1_is_of_rows_read_up_to_its_step():
    plain = {"step": 5, "num_tokens": 90, "not_finite": 0, "evals": [], "elapsed": 60.0}
    found = RunProgress.from_plain(plain)
    assert found == RunProgress(step=5, num_tokens=90, place=Place(step=5), elapsed_before=60.0)


def test_seconds_are_counted_from_the_start_of_the_clock_on_top_of_those_before():
    progress = RunProgress(elapsed_before=60.0)
    idle = progress.elapsed
    progress.start_clock()
    assert 60.0 <= progress.elapsed < idle + 60.0


def test_steps_that_are_not_applied_are_counted_until_one_is():
    progress, counts = RunProgress(), []
    for applied in (True, False, False, True, False):
        outcome = Outcome(
            loss=1.0,
            grad_norm=1.0,
            rate=1e-3,
            tokens=5,
            total_tokens=9,
            trainable_tokens=6,
            seconds=0.1,
            metrics={},
            applied=applied,
        )
        progress.advance(outcome, Place(step=progress.step + 1))
        counts.append(progress.not_finite)
    assert counts == [0, 1, 2, 0, 1]
    assert (progress.step, progress.num_tokens, progress.total_tokens, progress.trainable_tokens) == (5, 25, 45, 30)


def test_a_score_that_was_asked_for_is_kept_and_decides_nothing():
    progress = RunProgress()
    for step, loss in ((0, 2.0), (1, 3.0), (2, 3.0), (4, 1.5)):
        progress.add_eval(replace(SCORE, step=step, loss=loss), counts=step % 4 == 0)
    after = through_json(progress)
    assert [event.step for event in after.evals] == [0, 1, 2, 4]
    assert [event.step for event in after.counted_evals] == [0, 4]
