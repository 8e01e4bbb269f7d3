"""training.py: a job opened elsewhere trains to the weights of `trainer.train()` in the kernel, bit for bit."""

import json
import shutil

import mlx.core as mx
import pytest

from tests.jobs.made_jobs import job_of, result_of
from tests.makers.small_runs import SETTINGS, ignore, make, same, weights
from tests.makers.tiny_vision import FAMILIES, asked, noise_images, tiny_vision_folder
from tunebook import FastModel, Trainer, TrainingConfig
from tunebook.events import StepEvent
from tunebook.jobs.layout import JOB
from tunebook.jobs.opened import OtherModel
from tunebook.jobs.training import train_job
from tunebook.objectives import DPO
from tunebook.runs.folder import read_events

SHORT = {**SETTINGS, "max_steps": 4, "warmup_steps": 1}
PAIRS = [
    {"prompt": f"Say {number}.", "chosen": f"{number} it is, as you say.", "rejected": "No." * (1 + number % 3)}
    for number in range(8)
]


def trainer_of(model, rows, out, objective=None, **settings):
    args = TrainingConfig(**{**SHORT, "output_dir": str(out), **settings})
    trainer = Trainer(model, train_dataset=rows, args=args, objective=objective)
    trainer.subscribe(ignore, shows_progress=True)
    return trainer


def with_dropout(folder, rows, out):
    return make(folder, rows, out, **SHORT)


def packed(folder, rows, out):
    return make(folder, rows, out, **{**SHORT, "neftune_noise_alpha": None, "packing": True})


def full(folder, rows, out):
    model = FastModel.from_pretrained(folder, max_seq_length=128, full_finetuning=True)[0]
    return trainer_of(model, rows, out, learning_rate=1e-4)


def quantized(folder, rows, out):
    model = FastModel.from_pretrained(folder, max_seq_length=128, load_in_4bit=True)[0]
    return trainer_of(FastModel.get_peft_model(model, r=4, use_dora=True, target_modules=["q_proj"]), rows, out)


def tuned_before(folder, rows, out):
    """A model whose adapters have learnt something, and whose reference is a copy of them."""
    model = FastModel.get_peft_model(FastModel.from_pretrained(folder, max_seq_length=128)[0], r=4)
    trainer_of(model, rows, None).train()
    return trainer_of(model, PAIRS, out, DPO(beta=0.2, loss_type=["sigmoid", "sft"], loss_weights=[1.0, 0.5]))


def whole_modules(folder, rows, out):
    model = FastModel.from_pretrained(folder, max_seq_length=128, dtype="bfloat16")[0]
    FastModel.get_peft_model(model, r=4, modules_to_save=["embed_tokens", "input_layernorm"], lora_dropout=0.1)
    return trainer_of(model, rows, out)


@pytest.mark.parametrize("made", [with_dropout, packed, full, quantized, tuned_before, whole_modules])
def test_a_job_trains_to_the_weights_of_the_run_in_the_kernel(made, tiny_folder, rows, tmp_path):
    trainer = made(tiny_folder, rows, tmp_path / "runs")
    job = job_of(trainer, tmp_path / "job")
    here = trainer.train()
    there = train_job(job)
    assert [step.loss for step in there.steps] == [step.loss for step in here.steps]
    assert same(result_of(job), weights(trainer))
    assert [event for event in read_events(job) if isinstance(event, StepEvent)] == list(there.steps)
    assert len(there.evals) == len(here.evals)


def test_a_job_and_its_model_are_moved_together_and_run_from_the_shell(tiny_folder, rows, tmp_path):
    from tunebook.__main__ import main

    (tmp_path / "there").mkdir()
    place = tmp_path / "there" / "model"
    shutil.copytree(tiny_folder, place)
    trainer = make(place, rows, tmp_path / "runs", **SHORT)
    job_of(trainer, tmp_path / "there" / "job")
    trainer.train()
    (tmp_path / "there").rename(tmp_path / "elsewhere")
    assert main(["train", str(tmp_path / "elsewhere" / "job")]) == 0
    assert same(result_of(tmp_path / "elsewhere" / "job"), weights(trainer))


def test_other_weights_in_the_place_of_the_model_are_refused(tiny_folder, rows, tmp_path):
    place = tmp_path / "model"
    shutil.copytree(tiny_folder, place)
    job = job_of(make(place, rows, tmp_path / "runs", **SHORT), tmp_path / "job")
    file = next(place.glob("model*.safetensors"))
    arrays = mx.load(str(file))
    mx.save_safetensors(str(file), {name: array + 0.001 for name, array in arrays.items()}, metadata={"format": "mlx"})
    with pytest.raises(OtherModel, match="base"):
        train_job(job)


def test_a_job_is_data(tiny_folder, rows, tmp_path):
    job = job_of(make(tiny_folder, rows, tmp_path / "runs"), tmp_path / "job")
    files = [path.name for path in (job / JOB).rglob("*") if path.is_file()]
    assert {name.rpartition(".")[2] for name in files} <= {"json", "jinja", "safetensors", "int32", "bool", "npz"}
    assert json.loads((job / JOB / "job.json").read_text())["config"]["max_steps"] == SETTINGS["max_steps"]


def test_images_travel_with_the_rows_from_memory_and_from_files(tmp_path):
    model = FastModel.from_pretrained(tiny_vision_folder(tmp_path / "model", FAMILIES[0]))[0]
    FastModel.get_peft_model(model, r=4)
    held, kept = noise_images(2)
    file = tmp_path / "kept.png"
    kept.save(file)
    rows = [asked("What is it?", [held], "a dog"), asked("And this?", [str(file)], "the quick brown fox")]
    trainer = trainer_of(model, rows, tmp_path / "runs", hold_out=0, neftune_noise_alpha=None)
    job = job_of(trainer, tmp_path / "job")
    here = trainer.train()
    file.unlink()
    there = train_job(job)
    assert [step.loss for step in there.steps] == [step.loss for step in here.steps]
    assert same(result_of(job), weights(trainer))
