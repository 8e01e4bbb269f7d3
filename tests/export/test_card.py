"""The model card: the facts the run itself told, nothing that is not known, nothing of this machine, code that runs."""

import re
from pathlib import Path

import pytest

from tests.makers.tiny import tiny_model_folder
from tunebook import FastModel, Trainer, TrainingConfig, scores
from tunebook.events import RunStarted, ScoreEvent
from tunebook.export.card import hub_id, model_card

STARTED = RunStarted(
    total_steps=4,
    model="m",
    trainable_parameters=1,
    total_parameters=2,
    train_rows=3,
    eval_rows=0,
    awaited=False,
    config={},
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, rows):
    """(model, result) of three steps with held-out rows."""
    folder = tiny_model_folder(tmp_path_factory.mktemp("secret-place") / "little-llama")
    model, _ = FastModel.from_pretrained(folder, max_seq_length=128)
    FastModel.get_peft_model(model, r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"])
    args = TrainingConfig(max_steps=3, eval_steps=1, learning_rate=2e-3, sample_prompts=["the secret prompt"])
    trainer = Trainer(model, train_dataset=rows[:8], eval_dataset=rows[8:], args=args)
    trainer.subscribe(lambda event: None, shows_progress=True)
    return model, trainer.train()


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    model, _ = trained
    model.save_pretrained(folder / "lora")
    model.save_pretrained(folder / "peft", format="peft")
    model.save_pretrained_merged(folder / "merged")
    model.save_pretrained_merged(folder / "merged-4bit", save_method="merged_4bit")
    model.save_pretrained_gguf(folder / "gguf", quantization_method="f16")
    return folder


def facts(path: Path) -> dict[str, str]:
    return dict(re.findall(r"^\| ([a-z][^|]*) \| ([^|]*) \|$", path.read_text(), re.MULTILINE))


@pytest.mark.parametrize("name", ["lora", "peft", "merged", "merged-4bit", "gguf"])
def test_every_export_has_a_card_with_what_the_run_said_of_itself(trained, exported, name):
    _, result = trained
    card = facts(exported / name / "README.md")
    assert card["base model"] == "`little-llama`"
    assert card["method"] == "LoRA, rank 4, alpha 8 (over the rank), dropout 0"
    assert card["adapted"] == "4 layers: q_proj, v_proj"
    assert card["data"] == "8 rows to train on, 4 held out"
    assert card["steps"] == f"3 of 3, {result.steps[-1].num_tokens} supervised tokens"
    assert f"{result.steps[0].loss:.4f}" in card["training loss"]
    assert f"{result.steps[-1].loss:.4f}" in card["training loss"]
    best = min(result.evals, key=lambda event: event.loss)
    assert card["held-out loss"].endswith(f"the lowest was {best.loss:.4f} at step {best.step}")
    assert "mlx-lm 0." in card["made with"]


def test_a_card_names_no_folder_of_this_machine_no_prompt_and_no_row(exported):
    for path in exported.rglob("README.md"):
        text = path.read_text()
        assert "secret" not in text
        assert "quick brown" not in text
        assert str(exported) not in text


def test_what_is_not_known_is_left_out(model):
    card = model_card(model.loaded, (), "merged", place="merged")
    for unknown in ("method", "data", "steps", "loss", "run", "adapted", "base_model:"):
        assert unknown not in card, unknown
    assert "None" not in card


def test_an_export_in_the_middle_of_a_run_tells_of_the_steps_so_far(tiny_folder, tmp_path, rows):
    model, _ = FastModel.from_pretrained(tiny_folder, max_seq_length=128)
    FastModel.get_peft_model(model, r=4)
    trainer = Trainer(model, train_dataset=rows, args=TrainingConfig(max_steps=3, hold_out=0))
    trainer.subscribe(lambda event: None, shows_progress=True)
    trainer.add_step_callback(lambda step, *_: model.save_pretrained(tmp_path / f"step-{step}"))
    trainer.train()
    assert facts(tmp_path / "step-2" / "README.md")["steps"].startswith("2 of 3, ")
    assert "run" not in facts(tmp_path / "step-2" / "README.md")


def test_a_name_is_a_hub_id_unless_it_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "some" / "model").mkdir(parents=True)
    assert hub_id("HuggingFaceTB/SmolLM2-135M-Instruct") == "HuggingFaceTB/SmolLM2-135M-Instruct"
    for path in ("some/model", "/home/ada/model", "./x", "../x/y", "a/b/c", "model.gguf", "~/model"):
        assert hub_id(path) is None, path


def test_the_readme_of_somebody_else_is_left_as_it_is(tuned, tmp_path):
    (tmp_path / "README.md").write_text("My notes.\n")
    [export] = tuned.save_pretrained_gguf(tmp_path, quantization_method="f16")
    assert (tmp_path / "README.md").read_text() == "My notes.\n"
    assert "is not a card of ours and was left as it was" in str(export)
    (tmp_path / "README.md").unlink()
    for _ in range(2):  # ours is replaced
        [export] = tuned.save_pretrained_gguf(tmp_path, quantization_method="f16")
        assert "not a card of ours" not in str(export)


@pytest.mark.parametrize("name", ["lora", "peft", "merged", "merged-4bit"])
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_the_code_on_a_card_runs_beside_the_folder(trained, exported, monkeypatch, capsys, name):
    model, _ = trained
    if name in ("peft", "merged"):
        pytest.importorskip("peft")
    monkeypatch.chdir(exported)
    blocks = re.findall(r"```python\n(.*?)```", (exported / name / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == (2 if name == "merged" else 1)
    for block in blocks:
        # A base model from a folder is called by its last name on the card; its place is put in for it here.
        code = block.replace("'little-llama'", repr(str(model.loaded.folder))).replace("max_tokens=200", "max_tokens=2")
        exec(compile(code, name, "exec"), {})


def test_a_card_tells_what_the_exam_of_the_run_came_to_with_rows_and_interval(tiny_folder, tmp_path, rows):
    exam = scores.Exam(rows[:6], metrics=["exact_match", "perplexity"], max_tokens=4)
    model, _ = FastModel.from_pretrained(tiny_folder, max_seq_length=128)
    FastModel.get_peft_model(model, r=4)
    args = TrainingConfig(
        max_steps=4, score_steps=2, learning_rate=2e-2, hold_out=0, metric_for_best_model="perplexity"
    )
    trainer = Trainer(model, train_dataset=rows[6:], args=args, exam=exam)
    trainer.subscribe(lambda event: None, shows_progress=True)
    result = trainer.train()
    model.save_pretrained(tmp_path / "lora")
    card, marks = facts(tmp_path / "lora" / "README.md"), exam.take(model)
    best = min(result.scores, key=lambda event: event.scores["perplexity"])
    interval = marks.interval("exact_match")
    said = f"at step 4: {marks['exact_match']:.3g} over 6 rows, 95% interval {interval.low:.3g} to {interval.high:.3g}"
    assert card["exam, `exact_match`"].startswith(said)
    assert ", the best" not in card["exam, `exact_match`"]
    assert f"at step {best.step}, the best: {best.scores['perplexity']:.3g} over 6 rows, " in card["exam, `perplexity`"]
    assert card["exam, `perplexity`"].startswith("at step 4")


def test_a_card_of_a_run_without_an_exam_speaks_of_none(exported):
    assert not any("exam" in name for name in facts(exported / "lora" / "README.md"))


def test_names_of_metrics_stay_within_their_cell(model):
    score = ScoreEvent(step=3, scores={"a|b`<i>": 0.5}, not_scored={"a|b`<i>": 1}, rows=4, seconds=1.0, exam="ab")
    card = model_card(model.loaded, (STARTED, score), "merged", place="merged")
    assert "| exam, `` a\\|b`<i> `` | at step 3: 0.5 over 3 rows |" in card
