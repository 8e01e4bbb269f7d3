"""Whether a model can become a GGUF is known when the trainer is made, and the export refuses for the same reason."""

import json

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.makers.scored_tokenizers import folder_of
from tests.makers.tiny import tiny_model_folder
from tunebook import FastModel, Trainer, TrainingConfig
from tunebook.export.gguf.feasibility import check_gguf

ROWS = [{"text": f"the cat sat on mat {number}"} for number in range(4)]


def odd_folder(folder, kind):
    if kind == "routing":
        return tiny_model_folder(folder, "qwen3_moe", norm_topk_prob=False)
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
    [
        pytest.param("routing", "norm_topk_prob is False", marks=pytest.mark.float32),
        ("splitting", "has no name in GGUF"),
        ("words", "only BPE can be written"),
    ],
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


@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        ({"target_modules": ["q_proj", "embed_tokens"]}, "on a tied embedding changes the head too"),
        ({"use_dora": True}, "the magnitudes of DoRA"),
        ({"modules_to_save": ["norm"]}, r"trained 1 tensors whole"),
    ],
)
def test_adapters_that_cannot_be_a_gguf_of_their_own_are_named_when_the_trainer_is_made(tmp_path, choice, reason):
    model, tokenizer = FastModel.from_pretrained(tiny_model_folder(tmp_path / "model", "llama"))
    FastModel.get_peft_model(model, r=2, **choice)
    trainer = Trainer(model, tokenizer, train_dataset=ROWS, args=TrainingConfig(max_steps=1, hold_out=0))
    [said] = [notice for notice in trainer.data.notices if "GGUF" in notice]
    assert reason in said
    with pytest.raises(ValueError, match=reason):
        model.save_pretrained(tmp_path / "lora", format="gguf")


def test_all_weights_trained_are_no_adapter_and_nothing_is_said_of_one(tmp_path):
    model, tokenizer = FastModel.from_pretrained(tiny_model_folder(tmp_path / "model", "llama"), full_finetuning=True)
    trainer = Trainer(model, tokenizer, train_dataset=ROWS, args=TrainingConfig(max_steps=1, hold_out=0))
    assert not [notice for notice in trainer.data.notices if "GGUF" in notice]


def test_a_tokenizer_changed_after_it_was_found_fit_is_looked_at_again(tmp_path):
    model, tokenizer = FastModel.from_pretrained(folder_of(tmp_path / "model", {"▁the": -1.0, "the": -2.0}))
    check_gguf(model.loaded)
    tokens = ["a", "b", "bb", "bbb", "bbbbb"]
    merges = [("bb", "bbb"), ("bb", "b"), ("bbb", "bb"), ("b", "b"), ("b", "bb")]  # no scores say them in this order
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer.backend_tokenizer.model = models.BPE(vocab=vocabulary, merges=merges, byte_fallback=True)
    for _ in range(2):  # a refusal is no less one the second time
        with pytest.raises(ValueError, match="no scores of GGUF express"):
            check_gguf(model.loaded)
    tokenizer.backend_tokenizer.model = models.BPE(vocab=vocabulary, merges=merges[-2:], byte_fallback=True)
    check_gguf(model.loaded)
