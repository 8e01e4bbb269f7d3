"""Training on preferences whose prompts hold images: the same runs, on models that read them."""

import json
import math
import signal
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest

from tests.makers.processes.program import run_program
from tests.makers.small_runs import same, weights
from tests.makers.tiny_vision import noise_images, tiny_vision_folder
from tests.memory.test_memory import measured
from tunebook import FastModel, Trainer, TrainingConfig, memory
from tunebook.data.encoded import Unreadable
from tunebook.data.opened import ReadingOptions, opened
from tunebook.events import SampleEvent
from tunebook.models.families import image_rows, language_model
from tunebook.objectives import CPO, DPO, KTO
from tunebook.objectives.next_token import NextToken
from tunebook.objectives.reference import Reference, with_what_is_known
from tunebook.tokens import encoding
from tunebook.tokens.collation import collated
from tunebook.tokens.encoding import encode
from tunebook.tokens.stored_rows import EncodedRows

SIZES = [(40, 40), (90, 60), (56, 84), (60, 60), (120, 30), (28, 28)]
STEPS = {"per_device_train_batch_size": 2, "max_steps": 6, "learning_rate": 5e-3, "save_steps": 2, "hold_out": 0.0}


def said(role, content):
    return {"role": role, "content": content}


def pair(images, number):
    return {
        "images": images,
        "prompt": [said("user", f"What is {number}?")],
        "chosen": [said("assistant", f"number {number} is a dog")],
        "rejected": [said("assistant", "a fox " * (1 + number % 3))],
    }


def judged(rows):
    return [
        {"images": row["images"], "prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
        for row in rows
        for side in ("chosen", "rejected")
    ]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root, made = tmp_path_factory.mktemp("vision"), {}

    def folder(family):
        if family not in made:
            made[family] = tiny_vision_folder(root / family, family)
        return made[family]

    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Paths of images."""
    folder = tmp_path_factory.mktemp("images")
    for number, size in enumerate(SIZES):
        noise_images(number + 1, size=size)[number].save(folder / f"{number}.png")
    return [str(path) for path in sorted(folder.glob("*.png"))]


@pytest.fixture(scope="module")
def pairs(files):
    """With one image, with two, and with none."""
    rows = [pair([file], number) for number, file in enumerate(files)]
    return [*rows, pair(files[1:3], 6), pair([], 7)]


def trainer_of(folder, rows, objective, out=None, tower=False, **settings):
    model, _ = FastModel.from_pretrained(folder)
    FastModel.get_peft_model(model, r=4, lora_alpha=8, finetune_vision_layers=tower)
    args = TrainingConfig(**{**STEPS, "output_dir": out and str(out), **settings})
    return Trainer(model, train_dataset=rows, args=args, objective=objective)


def encoded_pairs(model, rows, kind="pairs"):
    return encode(opened(rows, ReadingOptions(answers=kind)), model.loaded, max_seq_length=400)


@pytest.mark.parametrize("family", ["gemma3", "qwen3_vl"])
@pytest.mark.parametrize("objective", [DPO(), KTO()], ids=["DPO", "KTO"])
def test_a_preference_about_images_is_learnt_and_its_prompts_are_sampled(folders, pairs, family, objective):
    rows = pairs if objective.rows == "pairs" else judged(pairs)
    trainer = trainer_of(folders(family), rows, objective, max_steps=12, hold_out=0.2, eval_steps=6, sample_steps=12)
    prompts = []
    trainer.subscribe(lambda event: prompts.append(event.prompt) if isinstance(event, SampleEvent) else None)
    result = trainer.train()
    margins = [score.metrics["rewards/margins"] for score in result.evals if "rewards/margins" in score.metrics]
    assert result.evals[-1].loss < result.evals[0].loss
    assert margins[-1:] > margins[:1]
    assert any(prompt.startswith("(image)What is ") for prompt in prompts)


def test_with_adapters_on_the_vision_tower_the_reference_sees_what_it_saw_before(folders, pairs):
    trainer = trainer_of(folders("qwen2_5_vl"), pairs, DPO(), tower=True, max_steps=2, warmup_steps=0)
    first, second = trainer.train().steps
    assert first.metrics["rewards/margins"] == pytest.approx(0.0, abs=1e-5)
    assert second.metrics["rewards/margins"] != 0.0


@pytest.mark.parametrize(("tower", "times"), [(False, 1), (True, 2)], ids=["frozen", "adapted"])
def test_images_are_seen_once_for_the_model_and_its_reference_unless_what_sees_them_is_trained(
    folders, pairs, monkeypatch, tower, times
):
    model, _ = FastModel.from_pretrained(folders("qwen2_5_vl"))
    FastModel.get_peft_model(model, r=4, finetune_vision_layers=tower)
    module, family, seen = model.loaded.module, model.loaded.family, []
    plain = language_model.features
    monkeypatch.setattr(language_model, "features", lambda *given: seen.append(given) or plain(*given))
    batch, _ = collated(family, encoded_pairs(model, pairs[:2]).rows, 400)
    reference = Reference(module, DPO())
    reference.settle()
    loss, _ = DPO().measured(family, module, with_what_is_known(DPO(), batch, family, module, reference))
    assert loss == pytest.approx(2 * math.log(2), rel=1e-5)
    assert len(seen) == times


@pytest.mark.parametrize("kind", [DPO, KTO], ids=["DPO", "KTO"])
def test_a_reference_that_is_asked_beforehand_says_what_it_would_say_in_the_step(folders, pairs, kind):
    rows = pairs if kind is DPO else judged(pairs)
    live, before = (
        trainer_of(
            folders("qwen3_vl"),
            rows,
            kind(precompute_ref_log_probs=asked),
            max_steps=3,
            dataset_order="sequential",
        )
        .train()
        .steps
        for asked in (False, True)
    )
    np.testing.assert_allclose([step.loss for step in before], [step.loss for step in live], rtol=1e-4)


@pytest.mark.float32
@pytest.mark.parametrize("objective", [DPO(loss_type=["sigmoid", "sft"]), CPO()], ids=["DPO", "CPO"])
def test_splitting_a_batch_changes_no_update(folders, pairs, objective):
    split = {"max_steps": 2, "gradient_accumulation_steps": 1, "optim": "sgd", "learning_rate": 0.5, "warmup_steps": 0}
    whole = trainer_of(folders("smolvlm"), pairs, objective, per_device_train_batch_size=4, **split)
    parts = trainer_of(
        folders("smolvlm"),
        pairs,
        objective,
        per_device_train_batch_size=1,
        **split | {"gradient_accumulation_steps": 4},
    )
    losses = [[step.loss for step in trainer.train().steps] for trainer in (whole, parts)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    ours, theirs = weights(whole), weights(parts)
    for name, value in ours.items():
        np.testing.assert_allclose(theirs[name], value, atol=2e-5, err_msg=name)


CHILD = """
import json, os, signal, sys
from tunebook import FastModel, Trainer, TrainingConfig, objectives
folder, out, settings, rows, name, kill = json.loads(sys.argv[1])
model, _ = FastModel.from_pretrained(folder)
FastModel.get_peft_model(model, r=4, lora_alpha=8, lora_dropout=0.2)
args = TrainingConfig(**settings, output_dir=out)
trainer = Trainer(model, train_dataset=rows, args=args, objective=getattr(objectives, name)())
def at(event):
    if kill == "yes" and type(event).__name__ == "Working" and event.what == "training" and event.step == 4:
        os.kill(os.getpid(), signal.SIGKILL)
trainer.subscribe(at)
trainer.train(resume_from_checkpoint=kill is None or None)
model.save_pretrained(out + "/lora")
"""


def child(folder, out, rows, objective, kill):
    plain = json.dumps([str(folder), str(out), STEPS, rows, objective, kill])
    return run_program(CHILD, plain)


def test_a_killed_run_goes_on_to_the_very_weights_of_an_undisturbed_one(folders, pairs, tmp_path):
    folder, rows, objective = folders("qwen2_vl"), judged(pairs), "KTO"
    straight = child(folder, tmp_path / "straight", rows, objective, "no")
    assert straight.returncode == 0, straight.stderr
    killed = child(folder, tmp_path / "killed", rows, objective, "yes")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed = child(folder, tmp_path / "killed", rows, objective, None)
    assert resumed.returncode == 0, resumed.stderr
    files = [next((tmp_path / name / "lora").glob("*.safetensors")) for name in ("straight", "killed")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_pairs_that_are_kept_on_the_disk_are_those_that_were_read(folders, pairs, tmp_path, monkeypatch):
    monkeypatch.setenv("TUNEBOOK_CACHE", str(tmp_path))
    monkeypatch.setattr(encoding, "CACHED_ROWS", 1_000)
    model, _ = FastModel.from_pretrained(folders("qwen2_vl"))
    read = encoded_pairs(model, pairs).rows
    monkeypatch.setattr(encoding, "CACHED_ROWS", 1)
    kept = [encoded_pairs(model, pairs).rows for _ in range(2)]
    for rows in kept:
        assert isinstance(rows, EncodedRows)
        assert [row.digest for row in rows] == [row.digest for row in read]
        assert [[len(side.images) for side in row.sequences] for row in rows] == [[1, 1]] * 6 + [[2, 2], [0, 0]]
    batches = [collated(model.family, rows[:4], 400)[0] for rows in (read, kept[1])]
    assert same(*({name: np.array(value) for name, value in batch.items()} for batch in batches))


def test_an_image_is_opened_once_for_all_that_see_it_in_a_batch(folders, files, monkeypatch):
    model, _ = FastModel.from_pretrained(folders("gemma3"))
    looked = []
    monkeypatch.setattr(image_rows, "opened", lambda image: looked.append(image.name) or real(image))
    rows = [pair(files[:1], 0), pair(files[1:3], 1)]
    for kind, some in (("pairs", rows), ("labelled", judged(rows))):
        looked.clear()
        batch, _ = collated(model.family, encoded_pairs(model, some, kind).rows, 400)
        assert len(looked) == 3
        assert batch["pixel_values"].shape[0] == 6
    assert mx.array_equal(batch["mismatched"]["pixel_values"], batch["pixel_values"])


real = image_rows.opened


def test_both_sides_of_a_pair_go_where_its_image_cannot_be_opened(folders, pairs, tmp_path):
    model, _ = FastModel.from_pretrained(folders("smolvlm"))
    gone = tmp_path / "gone.png"
    noise_images(1)[0].save(gone)
    rows = encoded_pairs(model, [pairs[0], pair([str(gone)], 1), pairs[2]]).rows
    gone.unlink()
    with pytest.raises(Unreadable, match="Row 1"):
        collated(model.family, rows, 400)
    batch, left_out = collated(model.family, rows, 400, skip_unreadable=True)
    (said,) = left_out
    assert "gone.png" in said
    assert batch["tokens"].shape[0] == 4
    assert same({"": batch["pixel_values"][:2]}, {"": batch["pixel_values"][2:]})


def test_no_pair_is_cut_before_its_last_image(folders, files):
    model, _ = FastModel.from_pretrained(folders("qwen2_vl"))
    rows = [pair(files * 2, 0), pair(files[:1], 1)]
    whole = encoded_pairs(model, rows).rows
    length = whole[1].longest + 2
    assert length < whole[0].images_end
    short = encode(opened(rows, ReadingOptions(answers="pairs")), model.loaded, max_seq_length=length)
    assert [row.number for row in short.rows] == [1]
    assert short.account.images_beyond == [0]
    assert "their images reach beyond" in short.notices[0]
    cut = encode(opened(rows, ReadingOptions(answers="pairs")), model.loaded, max_seq_length=whole[0].longest - 1)
    assert [row.cut for row in cut.rows] == [1, 0]


# What reads the images, where it is not trained, keeps nothing of them and takes the most while it is at work.
@pytest.mark.parametrize(("tower", "pixels"), [(False, 56), (False, 224), (True, 56)])
@pytest.mark.cpu("a GPU's forms are measured in the CPU build's stand-ins for its kernels, which hold other arrays")
def test_the_estimate_is_within_a_fifth_of_the_measured_peak(tmp_path, tower, pixels):
    folder = tiny_vision_folder(tmp_path, "qwen2_vl", width=64)
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    settings |= {"min_pixels": pixels**2 // 2, "max_pixels": pixels**2}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    model, _ = FastModel.from_pretrained(folder)
    FastModel.get_peft_model(model, r=16, finetune_vision_layers=tower)
    rows = encoded_pairs(model, [pair(noise_images(1, size=(pixels + n, pixels)), n) for n in range(2)]).rows
    config = TrainingConfig(per_device_train_batch_size=2, gradient_accumulation_steps=1, gradient_checkpointing=False)
    for objective, some in ((DPO(), rows), (NextToken(), [side for row in rows for side in row.sequences][:2])):
        estimate = memory.estimate(model, config, rows=some, objective=objective)
        found = min(measured(model, config, list(some), objective) for _ in range(3))
        assert estimate.total == pytest.approx(found, rel=0.2), estimate


@pytest.mark.parametrize(("objective", "tower"), [(DPO(), True), (KTO(), False)], ids=["DPO, tower trained", "KTO"])
def test_a_reference_that_is_asked_of_all_images_beforehand_gives_the_same_run(
    folders, pairs, tmp_path, monkeypatch, objective, tower
):
    monkeypatch.setenv("TUNEBOOK_CACHE", str(tmp_path / "cache"))
    rows = judged(pairs[:4]) if objective.rows == "labelled" else pairs
    runs = []
    for kind in (objective, replace(objective, precompute_ref_log_probs=True)):
        trainer = trainer_of(folders("qwen3_vl"), rows, kind, tower=tower, max_steps=4, gradient_accumulation_steps=1)
        runs.append(([step.loss for step in trainer.train().steps], weights(trainer)))
    assert runs[0][0] == runs[1][0]
    assert same(runs[0][1], runs[1][1])
