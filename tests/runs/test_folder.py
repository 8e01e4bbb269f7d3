"""A run read back from its folder is the run that was told."""

import json
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest

import tunebook
from tunebook import FastModel, Trainer, TrainingConfig, runs
from tunebook.events import EndReason, Notice, RunEnded, RunStarted, StepEvent, to_json

STARTED = RunStarted(
    total_steps=2, model="m", trainable_parameters=1, total_parameters=2, train_rows=3, eval_rows=0, awaited=False
)
STEP = StepEvent(
    step=1, total_steps=2, loss=2.5, lr=1e-4, tokens_sec=30.0, peak_gb=1.2, elapsed=3.4, num_tokens=99, grad_norm=0.7
)
NOTICE = Notice(step=1, text="a row was cut")
ENDED = RunEnded(step=2, total_steps=2, reason=EndReason.EARLY_STOPPED, message="done", elapsed=9.0)


def written(folder, *events, torn=""):
    (folder / runs.EVENTS_FILE).write_text("".join(to_json(event) + "\n" for event in events) + torn)
    return folder


def trainer_in(folder, tiny_folder, rows, **settings):
    model, _ = FastModel.from_pretrained(tiny_folder, max_seq_length=128)
    FastModel.get_peft_model(model, r=4)
    args = TrainingConfig(max_steps=4, eval_steps=2, output_dir=str(folder), **settings)
    trainer = Trainer(model, train_dataset=rows, eval_dataset=rows[:2], args=args)
    trainer.subscribe(lambda event: None)
    return trainer


def test_the_columns_of_a_trained_run_are_its_result(tiny_folder, rows, tmp_path):
    result = trainer_in(tmp_path, tiny_folder, rows).train()
    assert result.run_folder is not None
    history = runs.load(result.run_folder)
    for name in ("step", "loss", "lr", "tokens_sec", "peak_gb", "elapsed", "num_tokens", "grad_norm"):
        column = vars(history)[name]
        assert column.dtype == np.float64
        assert column.tolist() == [asdict(step)[name] for step in result.steps]
    assert history.eval_step.tolist() == [score.step for score in result.evals]
    assert history.eval_loss.tolist() == [score.loss for score in result.evals]
    assert history.ended is not None
    assert history.ended.reason is EndReason.FINISHED
    assert tunebook.load_run(result.run_folder / runs.EVENTS_FILE).loss.tolist() == history.loss.tolist()


def test_the_settings_of_a_run_are_in_its_folder_and_a_resume_leaves_them(tiny_folder, rows, tmp_path):
    first = trainer_in(tmp_path, tiny_folder, rows)
    first.add_step_callback(lambda step, *_: first.stop() if step == 2 else None)
    first.train()
    file = runs.run_folders(tmp_path)[0] / runs.CONFIG_FILE
    kept = file.read_bytes()
    assert json.loads(kept)["config"] == first.config.as_plain() | {"gradient_checkpointing": False}  # "auto", settled
    assert json.loads(kept)["identity"]["model"] == first.loaded.name
    trainer_in(tmp_path, tiny_folder, rows, save_steps=1).train(resume_from_checkpoint=True)
    assert file.read_bytes() == kept


def test_a_run_that_was_killed_has_no_end_and_its_torn_line_is_left_out(tmp_path):
    history = runs.load(written(tmp_path, STARTED, NOTICE, STEP, torn=to_json(ENDED)[:20]))
    assert history.ended is None
    assert history.notices == (NOTICE,)
    assert history.loss.tolist() == [2.5]
    assert repr(history) == "A run of m: step 1 of 2, last loss 2.5000; its end is not in the log."
    assert repr(runs.load(written(tmp_path, STARTED, ENDED))) == "A run of m: step 0 of 2; ended: early stopped."


def test_what_is_no_run_is_refused_with_its_place(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no run at .*nowhere"):
        runs.load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no run has begun"):
        runs.load(written(tmp_path, STEP))
    with pytest.raises(ValueError, match=r"no run has begun.* 1 line is damaged and left out \(the first: line 1\)"):
        runs.load(written(tmp_path, torn="half\n"))


@pytest.mark.parametrize("line", ["3", '{"event": "step", "loss": 1}', '{"event": "later"}', "half", ""])
def test_a_line_that_tells_nothing_is_left_out_of_a_history_and_counted(tmp_path, line):
    history = runs.load(written(tmp_path, STARTED, torn=f"{line}\n{to_json(STEP)}\n"))
    assert history.loss.tolist() == [2.5]
    [notice] = history.notices
    assert "1 is of a newer version" in notice.text if "later" in line else "(the first: line 2)" in notice.text


def test_a_run_can_be_read_where_mlx_is_not_installed(tmp_path):
    written(tmp_path, STARTED, STEP)
    program = (
        "import sys; sys.modules.update({'mlx': None, 'mlx.core': None, 'mlx_lm': None})\n"
        f"import tunebook; print(tunebook.load_run({str(tmp_path)!r}).loss.tolist())"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout == "[2.5]\n"
