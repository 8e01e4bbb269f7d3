"""A trial of learning rates: the losses of a run at these rates, and nothing left behind."""

import math
import os
import signal
import threading

import mlx.core as mx
import numpy as np
import pytest

from tests.makers.small_runs import make, recorded, same, weights
from tests.train.whole_runs.test_preferences import PAIRS
from tunebook import FastModel, Trainer, TrainingConfig
from tunebook.events import EvalEvent, StepEvent
from tunebook.objectives import DPO
from tunebook.rate_finder.trial import find

CALM = {"dropout": 0.0, "neftune_noise_alpha": None, "gradient_accumulation_steps": 1, "output_dir": None}


def random_state():
    return [np.array(part).tolist() for part in mx.random.state]


def test_a_run_after_a_trial_is_the_run_there_would_have_been(tiny_folder, rows, tmp_path):
    plain, tried = (make(tiny_folder, rows, tmp_path / name, rows[:3], max_steps=4) for name in ("plain", "tried"))
    expected, told = recorded(plain), recorded(tried)
    before, state = weights(tried), random_state()
    found = tried.find_learning_rate(steps=5)
    assert same(weights(tried), before)
    assert random_state() == state
    assert told == []
    assert not (tmp_path / "tried").exists()
    plain.train()
    tried.train()
    assert same(weights(plain), weights(tried))
    losses = [[event.loss for event in events if isinstance(event, StepEvent)] for events in (expected, told)]
    assert losses[0] == losses[1]
    assert found.losses[0] == next(event.loss for event in expected if isinstance(event, EvalEvent))


@pytest.mark.parametrize("more", [{}, {"embedding_learning_rate": 2e-3}], ids=["all alike", "a rate for the embedding"])
def test_a_trial_at_one_rate_has_the_losses_of_a_run_at_it(more, tiny_folder, rows):
    def trainer(rate, **settings):
        model, _ = FastModel.from_pretrained(tiny_folder, max_seq_length=128)
        FastModel.get_peft_model(model, r=4, modules_to_save=["embed_tokens"] if more else None)
        if more:
            settings["embedding_learning_rate"] = rate / 5  # the ratio that `more` has to 1e-2
        args = TrainingConfig(learning_rate=rate, lr_scheduler_type="constant", warmup_steps=0, **settings)
        return Trainer(model, train_dataset=rows, eval_dataset=rows[:3], args=args)

    run = trainer(1e-2, max_steps=3, eval_steps=1, output_dir=None)
    told = recorded(run)
    run.train()
    other = trainer(1e-4, num_train_epochs=1)
    losses = find(other._work(), [1e-2, 1e-2, 1e-2]).losses
    assert list(losses) == [event.loss for event in told if isinstance(event, EvalEvent)][:4]


def test_a_trial_stops_where_the_loss_runs_away_and_finds_a_rate_below(tiny_folder, rows):
    trainer = make(tiny_folder, rows, "", rows[:3], **CALM)
    found = trainer.find_learning_rate(lowest=1e-4, highest=1e3, steps=29)
    assert len(found.rates) < 29
    assert found.losses[-1] > min(found.losses)
    assert 1e-4 < found.rate < found.rates[-1]
    assert found.measured == "3 held-out rows"


def test_it_does_what_it_is_for(tiny_folder, rows):
    """At the rate it gives a short run ends lower than at a tenth and at thirty times of it."""

    def loss_at(rate):
        trainer = make(tiny_folder, rows, "", rows[:3], **CALM, learning_rate=rate, max_steps=8, warmup_steps=0)
        return trainer.train().evals[-1].loss

    rate = make(tiny_folder, rows, "", rows[:3], **CALM).find_learning_rate(highest=10.0).rate
    chosen = loss_at(rate)
    assert chosen < loss_at(rate / 10)
    assert chosen < loss_at(rate * 30)


def test_of_preferences_the_loss_begins_at_ln_2(tiny_folder):
    model, _ = FastModel.from_pretrained(tiny_folder, max_seq_length=128)
    FastModel.get_peft_model(model, r=4)
    args = TrainingConfig(per_device_train_batch_size=2, output_dir=None, hold_out=0.0)
    trainer = Trainer(model, train_dataset=PAIRS, args=args, objective=DPO())
    found = trainer.find_learning_rate(lowest=1e-5, highest=1e-1, steps=6)
    assert found.losses[0] == pytest.approx(math.log(2), abs=1e-5)
    assert min(found.losses) < 0.6
    assert "training rows, as none are held out" in found.measured


def test_an_interrupt_ends_a_trial_with_everything_put_back(tiny_folder, rows, tmp_path):
    trainer = make(tiny_folder, rows, tmp_path, rows[:3])
    before, state = weights(trainer), random_state()
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    timer = threading.Timer(1.0, lambda: os.kill(os.getpid(), signal.SIGINT))
    try:
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            trainer.find_learning_rate(lowest=1e-6, highest=1e-5, steps=1000)
    finally:
        timer.join()
        signal.signal(signal.SIGINT, handler)
    assert same(weights(trainer), before)
    assert random_state() == state
