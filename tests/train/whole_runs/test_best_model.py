"""Early stopping and the best weights: both wait for scores of held-out rows."""

import pytest

from tests.makers.small_runs import make, same, weights
from tunebook.events import EndReason


def worsening(folder, rows, out, **settings):
    """A run that learns rows away from what its held-out rows want: each score is worse than the one before."""
    noise = [{"text": "zq " * (4 + number)} for number in range(8)]
    return make(
        folder,
        noise,
        out,
        eval_dataset=[{"text": "the quick brown fox jumps over the lazy dog"}],
        eval_steps=2,
        learning_rate=0.05,
        lr_scheduler_type="constant",
        warmup_steps=0,
        dropout=0.0,
        **settings,
    )


def test_early_stopping_ends_the_run_when_patience_is_lost(tiny_folder, rows, tmp_path):
    result = worsening(tiny_folder, rows, tmp_path, early_stopping_patience=2).train()
    losses = [score.loss for score in result.evals]
    assert result.reason is EndReason.EARLY_STOPPED
    assert min(losses) == losses[-3]
    assert len(result.steps) < 12


def test_the_best_weights_are_put_back_at_the_end_also_after_a_resume(tiny_folder, rows, tmp_path):
    trainer = worsening(tiny_folder, rows, tmp_path / "a", load_best_model_at_end=True)
    result = trainer.train()
    best = min(result.evals, key=lambda score: score.loss)
    assert best.loss < result.evals[-1].loss
    assert trainer.evaluate().loss == pytest.approx(best.loss, abs=1e-6)

    first = worsening(tiny_folder, rows, tmp_path / "b", load_best_model_at_end=True)
    first.add_step_callback(lambda step, *_: first.stop() if step == 8 else None)
    first.train()
    second = worsening(tiny_folder, rows, tmp_path / "b", load_best_model_at_end=True)
    second.train(resume_from_checkpoint=True)
    assert same(weights(second), weights(trainer))


@pytest.mark.parametrize("setting", [{"load_best_model_at_end": True}, {"early_stopping_patience": 2}])
def test_waiting_for_a_score_nobody_measures_is_refused(tiny_folder, rows, tmp_path, setting):
    with pytest.raises(ValueError, match="needs held-out rows"):
        make(tiny_folder, rows, tmp_path, **setting)
    with pytest.raises(ValueError, match="needs eval_steps"):
        make(tiny_folder, rows, tmp_path, eval_dataset=rows[:2], **setting)
