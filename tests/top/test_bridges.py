"""bridges.py: what a tracker holds after a run is what the run emitted."""

import json
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from tests.top.trackers import TensorBoardRun, replay_tensorboard, replay_trackio, replay_wandb
from tunebook import FastModel, Trainer, TrainingConfig, bridges, runs
from tunebook.events import (
    CheckpointSaved,
    Command,
    CommandReceived,
    EndReason,
    EvalEvent,
    Notice,
    RunEnded,
    RunStarted,
    ScoreEvent,
    StepEvent,
    Working,
)

STARTED = RunStarted(
    total_steps=3,
    model="m",
    trainable_parameters=1,
    total_parameters=2,
    train_rows=3,
    eval_rows=4,
    awaited=False,
    config={"learning_rate": 2e-4, "output_dir": None, "seed": 7},
)
STEP_1 = StepEvent(
    step=1, total_steps=3, loss=2.5, lr=1e-4, tokens_sec=30.0, peak_gb=1.2, elapsed=3.4, num_tokens=99, grad_norm=0.7
)
STEP_2 = replace(STEP_1, step=2, loss=math.nan, grad_norm=math.inf, num_tokens=180)
STEP_3 = replace(STEP_1, step=3, loss=2.25, num_tokens=250)
EVAL_0 = EvalEvent(step=0, loss=3.0, rows=4, tokens=40, seconds=0.5)
EVAL_3 = EvalEvent(step=3, loss=1e6, rows=4, tokens=40, seconds=0.5)
SCORE_3 = ScoreEvent(step=3, scores={"exact_match": 0.75}, rows=4, seconds=0.5, exam="ab")
ENDED = RunEnded(step=3, total_steps=3, reason=EndReason.FINISHED, message="All done.", elapsed=9.0)
WHOLE_RUN = [
    STARTED,
    Notice(step=0, text="a row was cut"),
    Notice(step=0, text="another was left out"),
    EVAL_0,
    Working(step=1, what="training", done=1, total=1),
    STEP_1,
    STEP_2,
    Notice(step=2, text="Step 2 was not applied."),
    CommandReceived(step=2, command=Command.SAVE),
    CheckpointSaved(step=2, path="run-001/checkpoints/step-00002"),
    STEP_3,
    EVAL_3,
    SCORE_3,
    ENDED,
]

# The same run in every tracker: (step, value) under each name.
NUMBERS = {
    "train/loss": [(1, 2.5), (2, math.nan), (3, 2.25)],
    "train/learning_rate": [(1, 1e-4), (2, 1e-4), (3, 1e-4)],
    "train/grad_norm": [(1, 0.7), (2, math.inf), (3, 0.7)],
    "train/tokens_per_second": [(1, 30.0), (2, 30.0), (3, 30.0)],
    "train/peak_gb": [(1, 1.2), (2, 1.2), (3, 1.2)],
    "train/num_tokens": [(1, 99), (2, 180), (3, 250)],
    "eval/loss": [(0, 3.0), (3, 1e6)],
    "exam/exact_match": [(3, 0.75)],
    "eval/perplexity": [(0, math.exp(3.0)), (3, math.inf)],
}
FACTS = {
    "learning_rate": 2e-4,
    "output_dir": None,
    "seed": 7,
    "model": "m",
    "total_steps": 3,
    "resumed_after_step": 0,
    "trainable_parameters": 1,
    "total_parameters": 2,
    "train_rows": 3,
    "eval_rows": 4,
    "exam_rows": 0,
    "ranks": 1,
    "padding_share": 0.0,
    "awaited": False,
    "loss_unit": "nats per trained token",
    "memory_limit_gb": None,
}
WITH_CONFIG = "'p', config={'team': 'red', 'seed': 8}, name='mine'"
# As `runs.rewind` leaves a log, and the resumed run writes on: the steps before come first, the start after them.
RESUMED_LOG = [EVAL_0, STEP_1, replace(STARTED, step=1), STEP_2, STEP_3, EVAL_3, ENDED]

REPLAYS = pytest.mark.parametrize("replay", [replay_tensorboard, replay_wandb, replay_trackio])


@pytest.fixture(scope="module")
def in_tensorboard(tmp_path_factory):
    return replay_tensorboard(tmp_path_factory.mktemp("tensorboard"), *WHOLE_RUN)[0]


@pytest.fixture(scope="module")
def in_wandb(tmp_path_factory):
    return replay_wandb(tmp_path_factory.mktemp("wandb"), *WHOLE_RUN, arguments=WITH_CONFIG)[0]


@pytest.fixture(scope="module")
def in_trackio(tmp_path_factory):
    return replay_trackio(tmp_path_factory.mktemp("trackio"), *WHOLE_RUN, arguments=WITH_CONFIG)[0]


@pytest.fixture(params=["in_tensorboard", "in_wandb", "in_trackio"])
def whole_run(request):
    return request.getfixturevalue(request.param)


def test_every_number_stands_at_its_step_under_its_name_nan_and_infinity_too(whole_run):
    precision = np.float32 if isinstance(whole_run, TensorBoardRun) else np.float64
    expected = {name: [(step, float(precision(value))) for step, value in pairs] for name, pairs in NUMBERS.items()}
    # As text, where NaN is equal to itself.
    assert {name: str(pairs) for name, pairs in whole_run.numbers.items()} == {
        name: str(pairs) for name, pairs in expected.items()
    }


def test_notices_and_checkpoints_are_noted_at_their_step(whole_run):
    notices = [(step, line) for step, text in whole_run.texts["notice"] for line in text.splitlines()]
    assert notices == [(0, "a row was cut"), (0, "another was left out"), (2, "Step 2 was not applied.")]
    assert whole_run.texts["checkpoint"] == [(2, "run-001/checkpoints/step-00002")]


def test_tensorboard_shows_the_settings_and_the_counts_of_a_run(in_tensorboard):
    ((step, text),) = in_tensorboard.texts["config"]
    assert step == 0
    assert json.loads(text) == FACTS
    assert all(line.startswith("    ") for line in text.splitlines())  # a block of code to Markdown


@pytest.mark.parametrize("tracker", ["in_wandb", "in_trackio"])
def test_the_settings_of_a_run_are_its_config_and_the_user_has_the_last_word(tracker, request):
    facts = request.getfixturevalue(tracker).facts
    for name, value in {**FACTS, "team": "red", "seed": 8}.items():
        assert facts[name] == value


@pytest.mark.parametrize("tracker", ["in_tensorboard", "in_trackio"])
def test_the_end_of_a_run_stands_at_its_last_step_with_the_reason_and_the_message(tracker, request):
    assert request.getfixturevalue(tracker).texts["end"] == [(3, "finished: All done.")]


def test_wandb_shows_a_run_that_went_wrong_as_failed(tmp_path):
    exit_codes = {EndReason.FINISHED: 0, EndReason.STOPPED: 0, EndReason.FAILED: 1, EndReason.NOT_FINITE: 1}
    events = [event for reason in exit_codes for event in (STARTED, STEP_1, replace(ENDED, step=1, reason=reason))]
    found = replay_wandb(tmp_path, *events)
    assert {run.summary["end_reason"]: run.exit_code for run in found} == exit_codes
    for run in found:
        assert run.project == "p"
        assert run.summary["end_message"] == "All done."
        assert run.summary["elapsed_seconds"] == 9.0


def test_wandb_leaves_alone_a_run_the_user_has_open(tmp_path):
    around = "import wandb\nmine = wandb.init(project='mine')\n{}mine.log({{'x': 1}})\nmine.finish()"
    found = {run.project: run for run in replay_wandb(tmp_path, *WHOLE_RUN, around=around)}
    assert sorted(found) == ["mine", "p"]
    assert [row["x"] for _, row in found["mine"].rows] == [1]
    assert not found["mine"].numbers["train/loss"]
    assert len(found["p"].numbers["train/loss"]) == 3


@REPLAYS
def test_the_log_of_a_resumed_run_is_one_run_with_all_its_steps(replay, tmp_path):
    (run,) = replay(tmp_path, *RESUMED_LOG)
    assert [step for step, _ in run.numbers["train/loss"]] == [1, 2, 3]
    assert [step for step, _ in run.numbers["eval/loss"]] == [0, 3]


@REPLAYS
def test_every_start_opens_a_run_of_its_own(replay, tmp_path):
    first, second = replay(tmp_path, *WHOLE_RUN, replace(STARTED, step=2), STEP_3, ENDED)
    assert [step for step, _ in first.numbers["train/loss"]] == [1, 2, 3]
    assert second.numbers["train/loss"] == [(3, 2.25)]
    if replay is not replay_tensorboard:
        assert (first.facts["resumed_after_step"], second.facts["resumed_after_step"]) == (0, 2)


@REPLAYS
def test_a_run_whose_end_was_never_told_is_closed_when_the_next_one_starts(replay, tmp_path):
    killed, whole = replay(tmp_path, STARTED, STEP_1, *WHOLE_RUN)
    assert killed.numbers["train/loss"] == [(1, 2.5)]
    assert len(whole.numbers["train/loss"]) == 3
    if replay is replay_wandb:
        assert (killed.exit_code, whole.exit_code) == (1, 0)


def test_an_end_without_a_start_is_refused(tmp_path):
    pytest.importorskip("tensorboardX")
    bridge = bridges.tensorboard(tmp_path)
    bridge(STEP_1)
    with pytest.raises(ValueError, match=r"bridges\.tensorboard was told the end of a run .step 3. and not its"):
        bridge(ENDED)


def test_a_trainer_fills_tensorboard_while_it_trains_and_a_resumed_run_goes_on_at_its_steps(
    tiny_folder, rows, tmp_path
):
    pytest.importorskip("tensorboardX")

    def trainer():
        model, _ = FastModel.from_pretrained(tiny_folder, max_seq_length=128)
        FastModel.get_peft_model(model, r=4)
        # The folder of TensorBoard is the trainer's own: neither must take the other's for its own.
        args = TrainingConfig(max_steps=4, eval_steps=2, output_dir=str(tmp_path))
        made = Trainer(model, train_dataset=rows, eval_dataset=rows[:2], args=args)
        made.subscribe(bridges.tensorboard(tmp_path))
        return made

    first = trainer()
    first.add_step_callback(lambda step, *_: first.stop() if step == 2 else None)
    first.train()
    result = trainer().train(resume_from_checkpoint=True)
    assert result.run_folder is not None
    assert [path.name for path in runs.run_folders(tmp_path)] == ["run-001"]

    before, after = [TensorBoardRun(path) for path in sorted(tmp_path.iterdir()) if path.name != "run-001"]
    losses = [(event.step, float(np.float32(event.loss))) for event in result.steps]
    assert before.numbers["train/loss"] + after.numbers["train/loss"] == losses
    assert [step for step, _ in losses] == [1, 2, 3, 4]
    assert "stopped" in before.texts["end"][0][1]
    assert before.texts["checkpoint"][0][0] == 2

    (replayed,) = replay_tensorboard(tmp_path / "replayed", *runs.read_events(result.run_folder))
    assert replayed.numbers["train/loss"] == losses
    assert replayed.numbers["eval/loss"] == [(event.step, float(np.float32(event.loss))) for event in result.evals]


def test_what_became_of_the_answers_is_told_by_trls_names_and_no_perplexity_of_a_loss_that_is_no_nats(tmp_path):
    metrics = {"rewards/margins": 0.5, "rewards/accuracies": 0.75}
    events = STARTED, replace(EVAL_0, metrics=metrics), replace(STEP_1, metrics=metrics), replace(ENDED, step=1)
    (run,) = replay_tensorboard(tmp_path, *events)
    assert run.numbers["train/rewards/margins"] == [(1, 0.5)]
    assert run.numbers["eval/rewards/accuracies"] == [(0, 0.75)]
    assert run.numbers["eval/loss"] == [(0, 3.0)]
    assert "eval/perplexity" not in run.numbers


def test_no_tracker_is_imported_before_it_is_asked_for():
    program = "import sys; from tunebook import bridges; print({'tensorboardX', 'wandb', 'trackio'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize(
    ("package", "ask"),
    [
        ("tensorboardX", lambda: bridges.tensorboard("logs")),
        ("wandb", lambda: bridges.wandb("p")),
        ("trackio", lambda: bridges.trackio("p")),
    ],
)
def test_a_missing_package_is_refused_with_the_command_that_installs_it(package, ask, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=f"pip install {package}"):
        ask()
