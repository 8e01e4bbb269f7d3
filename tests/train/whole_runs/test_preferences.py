"""Training on preferences, whole runs of it: the same loop, and what an objective adds to it."""

import json
import math
import re
import signal

import numpy as np
import pytest

from tests.makers.processes.program import run_program
from tests.makers.small_runs import same, weights
from tests.makers.tiny import tiny_model_folder
from tunebook import FastModel, Trainer, TrainingConfig
from tunebook.events import EvalEvent, Notice, StepEvent
from tunebook.objectives import CPO, DPO, KTO, ORPO, SimPO
from tunebook.runs.folder import read_events
from tunebook.train.passes.compiled import why_not_here
from tunebook_widgets.dashboard.compare import compare
from tunebook_widgets.dashboard.freeze import _table_rows
from tunebook_widgets.dashboard.live import record_of
from tunebook_widgets.dashboard.progress import Progress

WORDS = ["Paris", "a fox", "the sun", "two saves", "June", "a lovely tune"]
PAIRS = [
    {
        "prompt": [{"role": "user", "content": f"What is number {number}?"}],
        "chosen": [{"role": "assistant", "content": f"It is {word}."}],
        "rejected": [{"role": "assistant", "content": f"{word} " * (1 + number % 3)}],
    }
    for number, word in enumerate(WORDS * 2)
]
JUDGED = [
    {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
    for row in PAIRS
    for side in ("chosen", "rejected")
]
STEPS = {"per_device_train_batch_size": 2, "max_steps": 6, "learning_rate": 5e-3, "save_steps": 2, "hold_out": 0.0}


def name_of(objective):
    return type(objective).__name__


EVERY = [DPO(), DPO(loss_type=["sigmoid", "sft"]), DPO(use_weighting=True, ld_alpha=0.5), ORPO(), CPO(), SimPO(), KTO()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_model_folder(tmp_path_factory.mktemp("preferences") / "llama")


def rows_for(objective):
    return JUDGED if objective.rows == "labelled" else PAIRS


def trainer_of(folder, out, objective, rows=None, held_out=None, r=4, load_in_4bit=False, **settings):
    model, _ = FastModel.from_pretrained(folder, max_seq_length=128, load_in_4bit=load_in_4bit)
    if r:
        FastModel.get_peft_model(model, r=r, lora_alpha=8, lora_dropout=0.2)
    args = TrainingConfig(**{**STEPS, "output_dir": out and str(out), **settings})
    rows = rows_for(objective) if rows is None else rows
    trainer = Trainer(model, train_dataset=rows, eval_dataset=held_out, args=args, objective=objective)
    trainer.subscribe(lambda event: None)
    return trainer


@pytest.mark.parametrize("objective", EVERY, ids=name_of)
def test_every_objective_is_trained_and_says_what_trl_does(folder, tmp_path, objective):
    trainer = trainer_of(folder, tmp_path, objective, held_out=rows_for(objective)[:4], max_steps=12)
    seen = []
    trainer.add_step_callback(lambda *values: seen.append(values))
    result = trainer.train()
    assert [len(values) for values in seen] == [9] * 12
    assert {"rewards/chosen", "rewards/rejected", "rewards/margins", "logps/chosen"} <= result.evals[-1].metrics.keys()
    assert result.evals[-1].loss < result.evals[0].loss
    assert result.evals[-1].metrics["rewards/margins"] > result.evals[0].metrics["rewards/margins"]
    assert trainer.evaluate().loss == pytest.approx(result.evals[-1].loss, rel=1e-6)
    told = list(read_events(result.run_folder))
    assert [event.metrics for event in told if isinstance(event, StepEvent)] == [step.metrics for step in result.steps]
    assert [event.metrics for event in told if isinstance(event, EvalEvent)] == [one.metrics for one in result.evals]


def test_a_model_that_is_its_own_reference_has_the_loss_ln_2_and_no_margin(folder):
    first = trainer_of(folder, None, DPO(), max_steps=1).train().steps[0]
    assert first.loss == pytest.approx(math.log(2), rel=1e-6)
    assert first.metrics["rewards/margins"] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.float32
@pytest.mark.parametrize("objective", [DPO(loss_type=["sigmoid", "sft"]), ORPO(), CPO()], ids=name_of)
def test_splitting_a_batch_changes_no_update(folder, objective):
    split = {"max_steps": 3, "gradient_accumulation_steps": 1, "optim": "sgd", "learning_rate": 0.5, "warmup_steps": 0}
    whole = trainer_of(folder, None, objective, per_device_train_batch_size=4, **split)
    parts = trainer_of(
        folder, None, objective, per_device_train_batch_size=1, **split | {"gradient_accumulation_steps": 4}
    )
    losses = [[step.loss for step in trainer.train().steps] for trainer in (whole, parts)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    ours, theirs = weights(whole), weights(parts)
    for name, value in ours.items():
        np.testing.assert_allclose(theirs[name], value, atol=2e-5, err_msg=name)


@pytest.mark.float32
@pytest.mark.parametrize("objective", [DPO(loss_type=["sigmoid", "sft"]), ORPO(), CPO()], ids=name_of)
def test_a_score_does_not_depend_on_how_many_rows_are_measured_together(folder, objective):
    def scored(size):
        trainer = trainer_of(folder, None, objective, held_out=PAIRS[:5], per_device_eval_batch_size=size)
        return trainer.evaluate().loss

    assert scored(1) == pytest.approx(scored(5), rel=1e-5)


CHILD = """
import json, os, signal, sys
from tunebook import FastModel, Trainer, TrainingConfig
from tunebook import objectives
folder, out, settings, rows, name, tuned, kill = json.loads(sys.argv[1])
model, _ = FastModel.from_pretrained(folder, max_seq_length=128, full_finetuning=tuned == "whole")
if tuned != "whole":
    FastModel.get_peft_model(model, r=4, lora_alpha=8, lora_dropout=0.2)
if tuned == "adapters" and kill:  # a run that goes on is not told what the model was before
    text = [{"text": "the quick brown fox"}] * 4
    once = TrainingConfig(max_steps=2, output_dir=None, hold_out=0.0, learning_rate=1e-2)
    Trainer(model, train_dataset=text, args=once).train()
objective = getattr(objectives, name)()
trainer = Trainer(model, train_dataset=rows, args=TrainingConfig(**settings, output_dir=out), objective=objective)
def at(event):
    if kill == "yes" and type(event).__name__ == "Working" and event.what == "training" and event.step == 4:
        os.kill(os.getpid(), signal.SIGKILL)
trainer.subscribe(at)
result = trainer.train(resume_from_checkpoint=kill is None or None)
model.save_pretrained(out + "/lora") if tuned != "whole" else model.save_pretrained_merged(out + "/lora")
print(json.dumps([[step.loss, step.metrics] for step in result.steps]))
"""


def child(folder, out, objective, tuned, kill):
    plain = json.dumps([str(folder), str(out), STEPS, rows_for(objective), type(objective).__name__, tuned, kill])
    return run_program(CHILD, plain)


@pytest.mark.parametrize(
    ("objective", "tuned"),
    [(DPO(), "fresh"), (DPO(), "adapters"), (DPO(), "whole"), (KTO(), "fresh")],
    ids=["DPO", "DPO on a tuned model", "DPO, full tuning", "KTO"],
)
def test_a_killed_run_goes_on_to_the_very_weights_of_an_undisturbed_one(folder, tmp_path, objective, tuned):
    straight = child(folder, tmp_path / "straight", objective, tuned, "no")
    assert straight.returncode == 0, straight.stderr
    killed = child(folder, tmp_path / "killed", objective, tuned, "yes")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed = child(folder, tmp_path / "killed", objective, tuned, None)
    assert resumed.returncode == 0, resumed.stderr
    assert (
        json.loads(resumed.stdout.splitlines()[-1])
        == json.loads(straight.stdout.splitlines()[-1])[-len(json.loads(resumed.stdout.splitlines()[-1])) :]
    )
    files = [next((tmp_path / name / "lora").glob("*.safetensors")) for name in ("straight", "killed")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_run_of_another_objective_is_not_gone_on_with(folder, tmp_path):
    trainer_of(folder, tmp_path, DPO()).train()
    with pytest.raises(ValueError, match=r"beta: 0\.1 there, 0\.2 here"):
        trainer_of(folder, tmp_path, DPO(beta=0.2)).train(resume_from_checkpoint=True)
    with pytest.raises(ValueError, match="objective: 'DPO' there, 'ORPO' here"):
        trainer_of(folder, tmp_path, ORPO()).train(resume_from_checkpoint=True)


@pytest.mark.parametrize("objective", [DPO(), KTO()], ids=name_of)
def test_packing_is_refused_as_such_and_not_as_rows_of_another_kind(folder, objective):
    with pytest.raises(ValueError, match=r"packing is on, and (DPO|KTO) needs each answer as a row of its own"):
        trainer_of(folder, None, objective, packing=True)


def test_rows_of_another_kind_are_refused_in_a_sentence(folder):
    model, _ = FastModel.from_pretrained(folder, max_seq_length=128)
    FastModel.get_peft_model(model, r=2)
    for objective, rows in ((DPO(), JUDGED), (KTO(), PAIRS), (None, PAIRS), (DPO(), [{"text": "the fox"}] * 4)):
        with pytest.raises(ValueError) as refused:  # noqa: PT011
            Trainer(model, train_dataset=rows, objective=objective, args=TrainingConfig(hold_out=0.0))
        assert len(str(refused.value)) < 400


@pytest.mark.parametrize(
    ("rows", "settings"),
    [(JUDGED, {"per_device_train_batch_size": 1}), (JUDGED, {"per_device_eval_batch_size": 1}), (JUDGED[:1], {})],
    ids=["in training", "in measuring", "one row"],
)
def test_an_estimate_of_the_kl_from_a_row_and_itself_is_refused_with_what_asks_for_none(folder, rows, settings):
    with pytest.raises(ValueError, match=r"is 1.*, and KTO takes its KL of the answers") as refused:
        trainer_of(folder, None, KTO(), rows, **settings)
    other = eval(re.search(r"KTO\(.*?\)", str(refused.value))[0])
    assert len(trainer_of(folder, None, other, rows, **{"max_steps": 2, **settings}).train().steps) == 2


def test_a_loss_with_a_kl_is_measured_on_two_rows_at_least(folder):
    trainer = trainer_of(folder, None, KTO(), hold_out=0.05)
    assert len(trainer.eval_rows) == 2
    with pytest.raises(ValueError, match="There is 1 row, and KTO takes its KL"):
        trainer.evaluate(JUDGED[:1])
    with pytest.raises(ValueError, match="There is 1 row, and KTO takes its KL"):
        trainer_of(folder, None, KTO(), held_out=JUDGED[:1])
    assert trainer.evaluate(JUDGED[:2]).loss == pytest.approx(0.5)


@pytest.mark.parametrize("objective", [DPO(), ORPO(), KTO()], ids=name_of)
def test_the_shapes_of_all_batches_are_known_before_a_compiled_run(folder, objective):
    if reason := why_not_here():
        pytest.skip(reason)
    trainer = trainer_of(folder, None, objective, compile=True)
    trainer.train()
    passes = trainer._run._stepper._pass.compiled
    assert passes.compiled
    assert passes.by_themselves == 0


KINDS = [DPO(), ORPO(), CPO(), SimPO(), KTO()]


@pytest.mark.parametrize("objective", KINDS, ids=name_of)
def test_compiled_and_recomputed_passes_take_the_same_steps(folder, objective):
    def losses(**changes):
        return [step.loss for step in trainer_of(folder, None, objective, max_steps=3, **changes).train().steps]

    plain = losses(gradient_checkpointing=False, compile=False)
    np.testing.assert_allclose(losses(gradient_checkpointing=True, compile=False), plain, rtol=1e-5)
    if why_not_here() is None:
        np.testing.assert_allclose(losses(gradient_checkpointing=False, compile=True), plain, rtol=1e-5)


@pytest.fixture(scope="module")
def dequantized(folder, tmp_path_factory):
    """The weights that a base of 4 bits stands for, in float32."""
    model, _ = FastModel.from_pretrained(folder, load_in_4bit=True, dtype="float32")
    FastModel.get_peft_model(model, r=4)
    out = tmp_path_factory.mktemp("dequantized") / "llama"
    model.save_pretrained_merged(out, dtype="float32")
    return out


@pytest.mark.float32
@pytest.mark.parametrize("objective", KINDS, ids=name_of)
def test_on_a_base_of_4_bits_steps_are_those_on_the_weights_it_stands_for(folder, dequantized, objective):
    settings = {"max_steps": 3, "warmup_steps": 0, "gradient_checkpointing": True}
    whole = trainer_of(dequantized, None, objective, **settings)
    small = trainer_of(folder, None, objective, load_in_4bit=True, **settings)
    taken = [[step.loss for step in trainer.train().steps] for trainer in (small, whole)]
    np.testing.assert_allclose(*taken, rtol=1e-4)
    assert taken[0][-1] < taken[0][0]
    ours, theirs = weights(small), weights(whole)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        np.testing.assert_allclose(value, theirs[name], atol=2e-4, err_msg=name)


def test_what_is_looked_at_leaves_the_run_as_it_was(folder, tmp_path):
    plain = trainer_of(folder, tmp_path / "plain", DPO())
    looked = trainer_of(folder, tmp_path / "looked", DPO(), held_out=PAIRS[:3], eval_steps=1, sample_steps=2)
    for trainer in (plain, looked):
        trainer.train()
    assert same(weights(plain), weights(looked))


@pytest.mark.parametrize(("objective", "unit"), [(DPO(), "DPO, per pair"), (KTO(), "KTO, per answer")])
def test_the_page_says_what_the_loss_is_in_and_what_became_of_the_answers(folder, tmp_path, objective, unit):
    held_out = rows_for(objective)[:4]
    result = trainer_of(folder, tmp_path, objective, held_out=held_out, max_steps=8).train()
    run = Progress()
    for event in read_events(result.run_folder):
        run.add(event)
    assert record_of(run)["loss_unit"] == unit
    (said,) = [value for name, value in _table_rows(run) if name == "Held-out answers"]
    assert f"margin {result.evals[-1].metrics['rewards/margins']:.3g}" in said
    assert ("of pairs preferred" in said) is (objective.rows == "pairs")


def test_runs_that_are_compared_show_the_settings_of_their_objectives_that_differ(folder, tmp_path):
    kinds = (DPO(), DPO(beta=0.5, loss_type="ipo"), ORPO())
    both = compare([trainer_of(folder, tmp_path, kind, max_steps=1).train().run_folder for kind in kinds])
    rows = dict(both.rows)
    assert rows["beta"] == ["0.1", "0.5", "0.1"]
    assert rows["objective"] == ["DPO", "DPO", "ORPO"]
    assert "ipo" in rows["loss_type"][1]


def test_a_run_whose_chosen_answers_become_unlikely_says_so_once_where_it_is_stopped_and_gone_on_with(folder, tmp_path):
    objective = DPO(loss_type="apo_down")  # it makes both answers less likely on purpose
    rows = [{"prompt": "the", "chosen": " fox", "rejected": " dog"}, {"prompt": "a", "chosen": " sun", "rejected": "."}]
    settings = {"rows": rows, "max_steps": 60, "save_steps": None, "warmup_steps": 0, "lr_scheduler_type": "constant"}
    first = trainer_of(folder, tmp_path, objective, **settings)
    first.add_step_callback(lambda step, *_: step == 45 and first.stop())
    first.train()
    result = trainer_of(folder, tmp_path, objective, **settings).train(resume_from_checkpoint=True)
    told = list(read_events(result.run_folder))
    [alarm] = [event for event in told if isinstance(event, Notice) and event.alarm]
    steps = {event.step: event.metrics for event in told if isinstance(event, StepEvent)}
    assert sorted(steps) == list(range(1, 61))
    assert alarm.step < 45
    assert steps[alarm.step]["rewards/chosen"] < steps[1]["rewards/chosen"] - 0.1
    assert "take apo_zero for apo_down" in alarm.text
    run = Progress()
    for event in told:
        run.add(event)
    assert record_of(run)["alarms"] == [[alarm.step, alarm.text]]
