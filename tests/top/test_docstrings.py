"""Every public name says what its arguments are, with an example that is run here on a tiny model."""

import doctest
import inspect
import json
import re
from pathlib import Path

import pytest

import tunebook
import tunebook_widgets
from tests.makers.small_runs import ignore
from tunebook import FastModel, Trainer, TrainingConfig

PUBLIC = [(package, name) for package in (tunebook, tunebook_widgets) for name in package.__all__]
PARSER, CHECKER = doctest.DocTestParser(), doctest.OutputChecker()


@pytest.fixture
def at_hand(adapted, rows, tiny_folder, tmp_path, monkeypatch):
    """What the examples speak of: names, and files in the folder a person works in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TUNEBOOK_UI", "off")
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "documents.jsonl").write_text(json.dumps({"text": "A tune.", "images": []}) + "\n")
    (tmp_path / "pictures").mkdir()
    for _ in range(2):
        trainer = Trainer(adapted, train_dataset=rows, args=TrainingConfig(max_steps=2, warmup_steps=0))
        trainer.subscribe(ignore, shows_progress=True)
        trainer.train()
    names = {name: getattr(package, name) for package, name in PUBLIC}
    given = {"model": adapted, "tokenizer": adapted.loaded.tokenizer, "trainer": trainer, "name": str(tiny_folder)}
    return {**names, **given, "rows": rows, "held_out_rows": rows[:2]}


@pytest.mark.parametrize(("package", "name"), PUBLIC, ids=lambda part: part if isinstance(part, str) else "")
def test_the_example_of_a_public_name_runs_and_shows_what_it_says(package, name, at_hand, capsys):
    examples = PARSER.get_examples(inspect.getdoc(getattr(package, name)) or "")
    assert examples, f"{name} has no example"
    for example in examples:
        capsys.readouterr()
        exec(compile(example.source, name, "single"), at_hand)
        if example.want:
            assert CHECKER.check_output(example.want, capsys.readouterr().out, 0)


@pytest.mark.parametrize(("package", "name"), PUBLIC, ids=lambda part: part if isinstance(part, str) else "")
def test_the_docstring_of_a_public_name_speaks_of_each_argument(package, name):
    public = getattr(package, name)
    if not inspect.ismodule(public):
        said = inspect.getdoc(public) or ""
        missing = [
            argument for argument in inspect.signature(public).parameters if not re.search(rf"\b{argument}\b", said)
        ]
        assert not missing


@pytest.mark.parametrize("name", [name for name in vars(FastModel) if not name.startswith("_")])
def test_every_method_of_a_model_says_what_it_does(name):
    assert inspect.getdoc(getattr(FastModel, name)) or name in FastModel.__dataclass_fields__


def test_the_readme_leads_to_the_settings_and_every_link_in_it_that_is_a_path_leads_somewhere():
    root = Path(__file__).parents[2]
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", (root / "README.md").read_text(encoding="utf-8"))
    assert "kit/tunebook/config.py" in links
    assert not [link for link in links if not (root / link).exists()]
