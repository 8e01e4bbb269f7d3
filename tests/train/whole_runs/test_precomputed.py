"""A reference that is asked of all rows before the first step: the same run, with less in memory and in checkpoints."""

import json
import shutil
import signal
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_map

from tests.makers.processes.program import run_program
from tests.makers.small_runs import recorded, same, weights
from tests.makers.tiny import tiny_model_folder
from tests.train.whole_runs.test_preferences import JUDGED, PAIRS, STEPS, rows_for, trainer_of
from tunebook import FastModel, Trainer, TrainingConfig
from tunebook.events import Working
from tunebook.models.adapters import adapter_paths
from tunebook.objectives import DPO, KTO
from tunebook.objectives import reference as references
from tunebook.objectives.reference import ReferenceGone
from tunebook.train.kept.checkpoint import REFERENCE, SAID, checkpoint_folders

EPOCH = {"max_steps": 3, "gradient_accumulation_steps": 2, "save_steps": 1}  # 12 pairs, 2 at a time
HELD_OUT = 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_model_folder(tmp_path_factory.mktemp("precomputed") / "llama")


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TUNEBOOK_CACHE", str(tmp_path / "cache"))


def beforehand(objective, size=None):
    return replace(objective, precompute_ref_log_probs=True, precompute_ref_batch_size=size)


def ran(folder, objective, **settings):
    """(trainer, result) of a run that is measured on other rows too."""
    held_out = rows_for(objective)[:HELD_OUT]
    trainer = trainer_of(folder, None, objective, held_out=held_out, **{**EPOCH, "eval_steps": 2, **settings})
    return trainer, trainer.train()


def numbers(result):
    return [[step.loss, step.grad_norm, step.metrics] for step in result.steps], [
        [one.loss, one.metrics] for one in result.evals
    ]


SAME_BATCHES = {
    "one epoch": (DPO(), {}),
    "more epochs in order": (DPO(), {"max_steps": 7, "dataset_order": "sequential"}),
    "KTO": (KTO(), {"max_steps": 6}),
    "KTO, more epochs by length": (KTO(), {"max_steps": 8, "dataset_order": "length_sorted"}),
}


@pytest.mark.parametrize("kind", SAME_BATCHES)
def test_in_the_batches_of_the_first_epoch_a_run_is_bit_for_bit_that_of_a_live_reference(folder, kind):
    objective, settings = SAME_BATCHES[kind]
    live, first = ran(folder, objective, **settings)
    asked, second = ran(folder, beforehand(objective), **settings)
    assert numbers(first) == numbers(second)
    assert same(weights(live), weights(asked))
    assert asked.evaluate().metrics == second.evals[-1].metrics


def ragged():
    """Pairs of many widths, so that rows meet others of another width in each epoch."""
    return [
        {**row, "chosen": [{**row["chosen"][0], "content": "a fox " * (1 + 3 * index)}]}
        for index, row in enumerate(PAIRS)
    ]


@pytest.mark.float32
@pytest.mark.parametrize("size", [None, 5])
def test_in_other_batches_it_differs_by_the_rounding_of_float32(folder, size):
    settings = {"max_steps": 9, "rows": ragged()}
    live, first = ran(folder, DPO(), **settings)
    asked, second = ran(folder, beforehand(DPO(), size), **settings)
    np.testing.assert_allclose([s.loss for s in second.steps], [s.loss for s in first.steps], rtol=1e-5)
    theirs = weights(live)
    for name, value in weights(asked).items():
        np.testing.assert_allclose(value, theirs[name], atol=1e-5, err_msg=name)


def test_the_reference_is_asked_of_each_row_once_and_never_in_a_step(folder, monkeypatch):
    calls, real = [], references._row_logps
    monkeypatch.setattr(references, "_row_logps", lambda *args: calls.append(args[1]["tokens"].shape[0]) or real(*args))
    trainer = trainer_of(folder, None, beforehand(DPO()), held_out=PAIRS[:HELD_OUT], eval_steps=1, max_steps=9)
    events = recorded(trainer)
    trainer.train()
    assert sum(calls) == 2 * (len(PAIRS) + HELD_OUT)
    working = [(event.done, event.total) for event in events if getattr(event, "what", "") == "precomputing"]
    assert working == [(done, total) for total in (3, 6) for done in range(1, total + 1)]


def test_only_rows_that_a_short_run_comes_to_are_asked_of(folder):
    trainer = trainer_of(folder, None, beforehand(DPO()), max_steps=1, gradient_accumulation_steps=2)
    events = recorded(trainer)
    trainer.train()
    assert [event.total for event in events if getattr(event, "what", "") == "precomputing"] == [2, 2]


# What the reference is, and what is left of it


def moved(model):
    """Adapters as steps would have them."""
    if not adapter_paths(model.module):
        FastModel.get_peft_model(model, r=4)
    trained = model.module.trainable_parameters()
    mx.random.seed(7)
    model.module.update(tree_map(lambda value: value + 0.1 * mx.random.normal(value.shape), trained))
    return model


TUNED = {
    "adapters": lambda model: FastModel.get_peft_model(model, r=4, lora_dropout=0.1),
    "adapters tuned before": moved,
    "DoRA": lambda model: FastModel.get_peft_model(model, r=4, use_dora=True),
    "4-bit weights": lambda model: FastModel.get_peft_model(model, r=4),
    "everything": lambda model: model,
}


def tuned(folder, kind, objective, out=None, rows=PAIRS, times=1, **settings):
    model, _ = FastModel.from_pretrained(
        folder, max_seq_length=128, full_finetuning=kind == "everything", load_in_4bit=kind == "4-bit weights"
    )
    for _ in range(times):
        TUNED[kind](model)
    args = TrainingConfig(**{**STEPS, "output_dir": out and str(out), **EPOCH, **settings})
    trainer = Trainer(model, train_dataset=rows, eval_dataset=rows[:HELD_OUT], args=args, objective=objective)
    trainer.subscribe(lambda event: None)
    return trainer


@pytest.mark.parametrize("kind", TUNED)
def test_whatever_is_tuned_takes_the_steps_it_takes_with_a_live_reference(folder, tmp_path, kind):
    live, asked = tuned(folder, kind, DPO()), tuned(folder, kind, beforehand(DPO()), tmp_path / "out")
    result = asked.train()
    assert numbers(live.train()) == numbers(result)
    assert same(weights(live), weights(asked))
    is_base = kind in ("adapters", "4-bit weights")
    assert live._run.reference.kept is None if is_base else live._run.reference.kept
    assert asked._run.reference.kept is None
    for checkpoint in checkpoint_folders(result.run_folder):
        assert (checkpoint / SAID).stat().st_size < 3000
        assert not (checkpoint / REFERENCE).exists()
    assert asked.evaluate().metrics == result.evals[-1].metrics
    if is_base:
        assert asked.evaluate(PAIRS[:3]).loss == pytest.approx(live.evaluate(PAIRS[:3]).loss, rel=1e-6)
    else:
        with pytest.raises(ReferenceGone, match="Pass them as eval_dataset before the run"):
            asked.evaluate(PAIRS[:3])


def test_before_a_run_other_rows_are_measured_against_the_model_as_it_is(folder):
    trainer = tuned(folder, "everything", beforehand(DPO()))
    assert trainer.evaluate(PAIRS[:3]).metrics["rewards/margins"] == 0.0


# Ended in the middle, and gone on with

CHILD = """
import tunebook  # before MLX: it loads the fast BLAS, whose numbers the runs in this process have
import json, os, signal, sys
from tests.train.whole_runs.test_precomputed import beforehand, of_kind
folder, out, kind, what, step = json.loads(sys.argv[1])
def at(event):
    if type(event).__name__ == "Working" and event.what == what and event.step == step and event.done == 2:
        os.kill(os.getpid(), signal.SIGKILL)
trainer = of_kind(folder, out, kind)
trainer.subscribe(at)
trainer.train()
"""


def of_kind(folder, out, kind):
    if kind == "KTO, everything":
        return tuned(folder, "everything", beforehand(KTO()), out, rows=JUDGED, max_steps=6, eval_steps=2)
    return tuned(folder, kind, beforehand(DPO()), out, max_steps=6, eval_steps=2)


def killed(folder, out, kind, what, step):
    plain = json.dumps([str(folder), str(out), kind, what, step])
    ended = run_program(CHILD, plain)
    assert ended.returncode == -signal.SIGKILL, ended.stderr


@pytest.mark.parametrize("kind", ["adapters", "KTO, everything"])
def test_killed_and_gone_on_with_it_has_the_very_weights_of_an_undisturbed_run(folder, tmp_path, kind):
    straight = of_kind(folder, tmp_path / "straight", kind)
    result = straight.train()
    killed(folder, tmp_path / "killed", kind, "training", 4)
    shutil.rmtree(tmp_path / "cache")
    resumed = of_kind(folder, tmp_path / "killed", kind)
    events = recorded(resumed)
    assert numbers(resumed.train(resume_from_checkpoint=True)) == numbers(result)
    assert events[0].step == 3
    assert not any(isinstance(event, Working) and event.what == "precomputing" for event in events)
    assert same(weights(straight), weights(resumed))


def test_killed_while_the_reference_is_asked_a_run_begins_anew_to_the_same_weights(folder, tmp_path):
    straight = of_kind(folder, tmp_path / "straight", "everything")
    result = straight.train()
    shutil.rmtree(tmp_path / "cache")
    killed(folder, tmp_path / "killed", "everything", "precomputing", 0)
    again = of_kind(folder, tmp_path / "killed", "everything")
    assert numbers(again.train()) == numbers(result)
    assert same(weights(straight), weights(again))


@pytest.mark.parametrize("kind", ["adapters", "everything"])
@pytest.mark.parametrize("asked", [1, 5], ids=["held-out rows", "training rows"])
def test_stopped_while_the_reference_is_asked_a_run_goes_on_to_the_same_weights(folder, tmp_path, kind, asked):
    whole = tuned(folder, kind, beforehand(DPO()))
    whole.train()
    shutil.rmtree(tmp_path / "cache")
    stopped = tuned(folder, kind, beforehand(DPO()), tmp_path / "out")
    seen = []

    def stop(event):
        if isinstance(event, Working) and event.what == "precomputing":
            seen.append(event)
            if len(seen) == asked:
                stopped.stop()

    stopped.subscribe(stop)
    assert not stopped.train().steps
    assert len(seen) == asked
    again = tuned(folder, kind, beforehand(DPO()), tmp_path / "out")
    again.train(resume_from_checkpoint=True)
    assert same(weights(whole), weights(again))


def test_a_run_goes_on_with_other_held_out_rows_where_its_reference_can_still_be_asked(folder, tmp_path):
    others = PAIRS[6:9]
    for kind in ("adapters", "everything"):
        tuned(folder, kind, beforehand(DPO()), tmp_path / kind, max_steps=3).train()
        again = tuned(folder, kind, beforehand(DPO()), tmp_path / kind, max_steps=3)
        again.prepare(replace(again.datasets, held_out=others))
        before = checkpoint_folders(next((tmp_path / kind).glob("run-*")))[0]
        if kind == "everything":
            with pytest.raises(ReferenceGone, match="held-out rows are not those this run began with"):
                again.train(resume_from_checkpoint=before)
        else:
            assert again.train(resume_from_checkpoint=before).evals[-1].rows == 3


# What cannot be asked beforehand


def test_mismatched_answers_of_later_epochs_are_refused_with_the_orders_that_have_none(folder):
    with pytest.raises(ValueError, match="Train for one epoch, or set dataset_order to 'sequential' or"):
        trainer_of(folder, None, beforehand(KTO()), max_steps=60)
    for order in ("sequential", "length_sorted"):
        trainer_of(folder, None, beforehand(KTO()), max_steps=60, dataset_order=order)
    trainer_of(folder, None, beforehand(KTO(loss_type="apo_zero_unpaired")), max_steps=60)


def test_a_stream_is_refused_as_its_rows_are_not_known(folder, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    with pytest.raises(ValueError, match="the rows of a stream are not known before the first step"):
        trainer_of(folder, None, beforehand(DPO()), str(file), streaming=True)


def test_a_size_of_batches_nobody_asks_in_is_refused():
    with pytest.raises(ValueError, match="precompute_ref_batch_size is 4, which is read with"):
        DPO(precompute_ref_batch_size=4)


def test_a_run_is_not_gone_on_with_as_one_whose_reference_was_asked_otherwise(folder, tmp_path):
    trainer_of(folder, tmp_path, DPO()).train()
    with pytest.raises(ValueError, match="precompute_ref_log_probs: False there, True here"):
        trainer_of(folder, tmp_path, beforehand(DPO())).train(resume_from_checkpoint=True)
