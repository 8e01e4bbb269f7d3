"""Every name of the wing is told of with what its arguments mean, and its example runs."""

import doctest
import inspect
import json
import re

import pytest
import yaml

from tunebook.compat import mlx_lm, unsloth
from tunebook.compat.unsloth import FastLanguageModel, SFTConfig, SFTTrainer

PUBLIC = [(package, name) for package in (unsloth, mlx_lm) for name in package.__all__]
OTHERS = [(unsloth.model.Model, "generate"), (unsloth.tokenizer, "Tokenizer")]
PARSER, CHECKER = doctest.DocTestParser(), doctest.OutputChecker()


@pytest.fixture(scope="module")
def held(tiny_folder, rows):
    """A model with adapters, its tokenizer and a trainer, which examples may train."""
    model, tokenizer = FastLanguageModel.from_pretrained(str(tiny_folder), max_seq_length=128, load_in_4bit=False)
    FastLanguageModel.get_peft_model(model, r=4, lora_alpha=8)
    text = [{"text": tokenizer.apply_chat_template(row["messages"], tokenize=False)} for row in rows]
    trainer = SFTTrainer(model=model, tokenizer=tokenizer, train_dataset=text, args=SFTConfig(max_steps=2))
    return {"model": model, "tokenizer": tokenizer, "trainer": trainer, "name": str(tiny_folder), "rows": rows}


@pytest.fixture
def at_hand(held, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in held["rows"]))
    config = {"model": held["name"], "data": str(tmp_path), "train": True, "iters": 2, "batch_size": 2}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({**config, "num_layers": 2, "max_seq_length": 128}))
    pairs = [{"prompt": f"Why {number}?", "chosen": "so", "rejected": "no"} for number in range(4)]
    labelled = [{"prompt": row["prompt"], "completion": "so", "label": True} for row in pairs]
    names = {name: getattr(package, name) for package, name in PUBLIC}
    return {**names, **held, "pairs": pairs, "labelled": labelled}


@pytest.mark.parametrize(
    ("package", "name"), [*PUBLIC, *OTHERS], ids=lambda part: part if isinstance(part, str) else ""
)
def test_the_example_of_a_name_runs_and_shows_what_it_says(package, name, at_hand, capsys):
    said = inspect.getdoc(getattr(package, name)) or ""
    for example in PARSER.get_examples(said):
        capsys.readouterr()
        exec(compile(example.source, name, "single"), at_hand)
        if example.want:
            assert CHECKER.check_output(example.want, capsys.readouterr().out, 0)


@pytest.mark.parametrize(("package", "name"), PUBLIC, ids=lambda part: part if isinstance(part, str) else "")
def test_a_name_has_an_example_and_speaks_of_each_argument(package, name):
    public = getattr(package, name)
    said = inspect.getdoc(public) or ""
    takes = (
        []
        if issubclass(type(public), type) and public.__init__ is object.__init__
        else inspect.signature(public).parameters
    )
    assert not [argument for argument in takes if not re.search(rf"\b{argument}\b", said)]
    assert ">>>" in said or name == "FastVisionModel"
