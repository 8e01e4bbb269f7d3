"""What goes with a merge from beside the base model: what makes a model, and nothing that only lies there."""

import json
import shutil

import pytest

from tests.makers.tiny import tiny_model_folder
from tunebook import FastModel
from tunebook.machine.sealed import SEAL, seal

MINE = (
    *("customers.json", "train.jsonl", "passwords.txt", "notes.txt", "wandb_config.json", "secret.model", "run.py"),
    *("trainer_state.json", "my.jinja", "data.tiktoken", "license_keys.json", "id.pem"),
)
MODEL = ("special_tokens_map.json", "merges.txt", "preprocessor_config.json", "LICENSE", "Notice.txt", "USE_POLICY.md")


@pytest.fixture
def folder(tmp_path):
    folder = tiny_model_folder(tmp_path / "base")
    for name in (*MINE, *MODEL):
        (folder / name).write_text("{}")
    (folder / "rows").mkdir()
    (folder / "rows" / "tokenizer.json").write_text("{}")
    return folder


def tuned(folder, **options):
    model, _ = FastModel.from_pretrained(folder, **options)
    return FastModel.get_peft_model(model, r=2, target_modules=["q_proj"])


def test_a_persons_own_files_stay_where_they_are_and_are_named(folder, tmp_path):
    export = tuned(folder).save_pretrained_merged(tmp_path / "merged")
    written = {path.name for path in (tmp_path / "merged").rglob("*")}
    assert not written & set(MINE)
    assert set(MODEL) <= written
    [note] = [note for note in export.notes if note.startswith("Not copied")]
    said = [name for name in MINE if name in note]
    assert len(said) == 4
    assert f"and {len(MINE) - 4} more" in note


def test_nothing_is_said_of_the_seal_the_kit_put_on_a_folder_from_a_package(tmp_path):
    folder = tiny_model_folder(tmp_path / "base")
    seal(folder)
    export = tuned(folder).save_pretrained_merged(tmp_path / "merged")
    assert not (tmp_path / "merged" / SEAL).exists()
    assert not [note for note in export.notes if note.startswith("Not copied")]


def code(folder):
    (folder / "outer.py").write_text("from .inner import x\n")
    (folder / "inner.py").write_text("x = 1\n")
    for name in ("config.json", "tokenizer_config.json"):
        settings = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(settings | {"auto_map": {"AutoProcessor": "outer.Mine"}}))


def test_code_comes_along_where_it_is_trusted_and_named_with_what_it_imports(folder, tmp_path):
    code(folder)
    tuned(folder, trust_remote_code=True).save_pretrained_merged(tmp_path / "merged")
    assert {path.name for path in (tmp_path / "merged").glob("*.py")} == {"outer.py", "inner.py"}
    assert "auto_map" in (tmp_path / "merged" / "config.json").read_text()


def test_without_trust_no_code_comes_along_and_none_is_named(folder, tmp_path):
    code(folder)
    tuned(folder).save_pretrained_merged(tmp_path / "merged")
    assert not list((tmp_path / "merged").glob("*.py"))
    for path in (tmp_path / "merged").glob("*.json"):
        assert "auto_map" not in path.read_text()


def test_a_licence_of_the_persons_project_is_no_hindrance_and_stays(folder, tmp_path):
    project = tmp_path / "project"
    project.mkdir()
    for name in ("LICENSE", "Notice.txt"):
        (project / name).write_text("mine")
    notes = tuned(folder).save_pretrained_merged(project).notes
    assert [(project / name).read_text() for name in ("LICENSE", "Notice.txt")] == ["mine", "mine"]
    assert any(note.startswith("LICENSE in ") for note in notes)


def test_a_plain_model_folder_leaves_nothing_to_say(tmp_path):
    folder = tiny_model_folder(tmp_path / "base")
    shutil.copyfile(folder / "config.json", folder / "README.md")
    (folder / ".gitattributes").write_text("")
    assert not tuned(folder).save_pretrained_merged(tmp_path / "merged").notes
