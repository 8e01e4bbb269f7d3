"""A run that fails or diverges ends with whole and finite weights, and names what is to blame."""

import math

import mlx.core as mx
import numpy as np
import pytest

from tests.makers.arrays import in_numpy
from tests.makers.small_runs import same, weights
from tunebook import FastModel, Trainer, TrainingConfig
from tunebook.events import EndReason, Notice, StepEvent
from tunebook.train import optim, step
from tunebook.train.kept.checkpoint import checkpoint_folders, read_checkpoint

SETTINGS = {
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "max_steps": 6,
    "learning_rate": 5e-3,
    "lr_scheduler_type": "constant",
    "warmup_steps": 0,
    "save_steps": 1,
    "hold_out": 0,
}


def make(folder, rows, *, full=False, optim="adamw", **settings):
    model, _ = FastModel.from_pretrained(folder, max_seq_length=128, full_finetuning=full)
    if not full:
        FastModel.get_peft_model(model, r=4, lora_dropout=0.2)
    trainer = Trainer(model, train_dataset=rows, args=TrainingConfig(**{**SETTINGS, "optim": optim, **settings}))
    notices = []
    trainer.subscribe(
        lambda event: notices.append(event.text) if isinstance(event, Notice) else None, shows_progress=True
    )
    return trainer, notices


class FailingEval:
    """mlx.core, whose `eval` first does its work and then fails as a GPU does, in the update after one step."""

    def __init__(self, trainer, at_step):
        self.trainer, self.at_step, self.calls = trainer, at_step, 0

    def __getattr__(self, name):
        return getattr(mx, name)

    def eval(self, *arrays):
        mx.eval(*arrays)
        if len(arrays) == 3 and self.trainer._run.step == self.at_step:
            raise RuntimeError("[METAL] Command buffer execution failed: Insufficient Memory (00000008)")


@pytest.mark.parametrize(
    ("full", "optim"), [(False, "adamw"), (True, "adamw"), (False, "muon"), (False, "adafactor"), (False, "lion")]
)
def test_an_update_that_fails_leaves_the_step_before_whole(tiny_folder, rows, monkeypatch, full, optim):
    whole, _ = make(tiny_folder, rows, full=full, optim=optim, output_dir="whole")
    after = {}
    whole.add_step_callback(lambda step, *_: after.__setitem__(step, weights(whole)))
    whole.train()
    trainer, _ = make(tiny_folder, rows, full=full, optim=optim, output_dir="out")
    monkeypatch.setattr(step, "mx", FailingEval(trainer, 3))
    with pytest.raises(MemoryError):
        trainer.train()
    monkeypatch.setattr(step, "mx", mx)
    newest = checkpoint_folders(trainer._run.folder)[-1]
    assert newest.name == "step-00003"
    assert same(weights(trainer), after[3])
    assert same({name: in_numpy(array) for name, array in read_checkpoint(newest).weights.items()}, after[3])
    again, _ = make(tiny_folder, rows, full=full, optim=optim, output_dir="out")
    again.train(resume_from_checkpoint=True)
    assert same(weights(again), after[6])


def test_where_memory_has_no_room_for_both_torn_weights_are_told_and_never_saved(tiny_folder, rows, monkeypatch):
    trainer, notices = make(tiny_folder, rows, full=True)
    monkeypatch.setattr(step, "mx", FailingEval(trainer, 3))
    monkeypatch.setattr(optim.Moment, "nbytes", 10**15)
    with pytest.raises(MemoryError):
        trainer.train()
    assert any("of no step" in text for text in notices)
    assert checkpoint_folders(trainer._run.folder)[-1].name == "step-00003"


@pytest.mark.parametrize("rule", ["adamw", "adafactor", "lion", "sgd", "muon"])
def test_where_there_is_no_room_for_both_the_numbers_are_the_same_and_nothing_spoilt_is_applied(
    tiny_folder, rows, monkeypatch, rule
):
    """The update is computed beforehand, and thrown away."""
    kept, _ = make(tiny_folder, rows, full=True, optim=rule, max_steps=3, output_dir=None)
    kept.train()
    monkeypatch.setattr(optim.Moment, "nbytes", 10**15)
    tried, _ = make(tiny_folder, rows, full=True, optim=rule, max_steps=3, output_dir=None)
    tried.train()
    assert same(weights(tried), weights(kept))
    astray, notices = make(tiny_folder, rows, full=True, optim=rule, learning_rate=1e39, output_dir=None)
    before = weights(astray)
    assert astray.train().reason is EndReason.NOT_FINITE
    assert same(weights(astray), before)
    assert any("Its rows are not to blame" in text for text in notices)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"learning_rate": 1e39}, "learning_rate"),
        ({"learning_rate": 1e30}, "learning_rate"),
        ({"learning_rate": 1e25, "optim": "sgd", "max_grad_norm": None}, "learning_rate"),
        ({"learning_rate": 1e20, "optim": "lion"}, "learning_rate"),
        ({"weight_decay": 1e30}, "weight_decay"),
        ({"neftune_noise_alpha": 1e30}, None),
        ({"lora_plus_ratio": 1e35}, "lora_plus_ratio"),
        ({"adam_epsilon": 1e-37}, None),
    ],
    ids=lambda value: str(value),
)
def test_a_run_that_diverges_ends_with_finite_weights_and_names_the_setting(tiny_folder, rows, settings, named):
    trainer, notices = make(tiny_folder, rows, max_steps=12, **settings)
    result = trainer.train()
    assert all(np.isfinite(array).all() for array in weights(trainer).values())
    if named is None:
        assert result.reason is EndReason.FINISHED
        return
    assert result.reason is EndReason.NOT_FINITE
    assert named in result.message
    assert not any("rows alone give" in text or "training rows" in text for text in notices)
    trainer.eval_rows = trainer.train_rows
    assert math.isfinite(trainer.evaluate().loss)
    for folder in checkpoint_folders(result.run_folder):
        kept = read_checkpoint(folder).weights
        trainer.loaded.module.load_weights(list(kept.items()), strict=False)
        assert math.isfinite(trainer.evaluate().loss), folder.name


def test_weights_that_were_not_finite_before_the_run_are_named(tiny_folder, rows):
    trainer, notices = make(tiny_folder, rows)
    name = next(iter(weights(trainer)))
    trainer.loaded.module.load_weights([(name, mx.array(weights(trainer)[name]) * math.nan)], strict=False)
    assert trainer.train().reason is EndReason.NOT_FINITE
    assert any(f"Before the first step NaN or infinity was in {name}" in text for text in notices)


def test_a_rate_raised_too_far_in_the_middle_is_named_as_it_then_was(tiny_folder, rows):
    trainer, _ = make(tiny_folder, rows, max_steps=12)

    def raises(event):
        if isinstance(event, StepEvent) and event.step == 3:
            trainer.send("learning_rate", 1e30)

    trainer.subscribe(raises)
    result = trainer.train()
    assert "1e+30" in result.message
    assert "step-00003" in [path.name for path in checkpoint_folders(result.run_folder)]


# A warm-up that does not end


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_steps": 1}, "learns nothing"),
        ({"max_steps": 1, "lr_scheduler_type": "cosine"}, "learns nothing"),
        ({"max_steps": 1, "warmup_steps": 1}, "learns nothing"),
        ({"max_steps": 3, "warmup_steps": 50}, "does not end within this run of 3"),
        ({"max_steps": 3, "warmup_ratio": 0.99}, "does not end within this run of 3"),
        ({"max_steps": 3}, "does not end within this run of 3"),
        ({"max_steps": 1, "warmup_steps": 0}, None),
        ({"max_steps": 6}, None),
    ],
    ids=str,
)
def test_a_warmup_that_does_not_end_within_the_run_is_told(settings, said):
    from tunebook.train.optim import said_of_the_warmup

    config = TrainingConfig(**settings)
    told = said_of_the_warmup(config, config.max_steps)
    assert (said is None and told == []) or said in told[0]


@pytest.mark.parametrize("setting", ["learning_rate", "adam_epsilon", "embedding_learning_rate"])
def test_a_number_that_is_zero_in_float32_is_refused(setting):
    with pytest.raises(ValueError, match=rf"{setting} is 1e-320; .* 0 for float32"):
        TrainingConfig(**{setting: 1e-320})
