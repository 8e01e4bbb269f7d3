"""Whether a model can become a GGUF is known when the trainer is made, and the export refuses for the same reason."""

import json

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.tiny import tiny_model_folder
from tunebook import FastModel, Trainer, TrainingConfig

ROWS = [{"text": f"the cat sat on mat {number}"} for number in range(4)]


def odd_folder(folder, kind):
    if kind == "rope":
        scaling = {"rope_type": "linear", "type": "linear", "factor": 2.0}
        return tiny_model_folder(folder, "qwen3_moe", rope_scaling=scaling)
    tiny_model_folder(folder, "llama")
    spec = json.loads((folder / "tokenizer.json").read_text())
    if kind == "splitting":
        spec["pre_tokenizer"] = {"type": "Whitespace"}
        (folder / "tokenizer.json").write_text(json.dumps(spec))
    if kind == "words":
        tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "the": 1, "cat": 2}, unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # pyright: ignore[reportAttributeAccessIssue]
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<unk>").save_pretrained(
            folder
        )
    return folder


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("rope", "rope scaling 'linear'"), ("splitting", "has no name in GGUF"), ("words", "only BPE can be written")],
)
def test_a_model_without_a_gguf_says_so_when_its_trainer_is_made(tmp_path, kind, reason):
    model, tokenizer = FastModel.from_pretrained(odd_folder(tmp_path / "model", kind))
    FastModel.get_peft_model(model, r=2)
    trainer = Trainer(model, tokenizer, train_dataset=ROWS, args=TrainingConfig(max_steps=1, hold_out=0))
    [said] = [notice for notice in trainer.data.notices if notice.startswith("GGUF export: not possible")]
    assert reason in said
    with pytest.raises(ValueError, match=reason):
        model.save_pretrained_gguf(tmp_path / "gguf")
    assert not (tmp_path / "gguf").exists()


def test_a_model_that_has_one_says_nothing(tmp_path):
    model, tokenizer = FastModel.from_pretrained(tiny_model_folder(tmp_path / "model", "gemma3"))
    FastModel.get_peft_model(model, r=2)
    trainer = Trainer(model, tokenizer, train_dataset=ROWS, args=TrainingConfig(max_steps=1, hold_out=0))
    assert not [notice for notice in trainer.data.notices if "GGUF" in notice]
