"""What a row is looked up in: ids beyond the embedding and rows beyond a table of positions never reach MLX."""

import json

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.utils import load_model

from tests.makers.tiny import tiny_model_folder, tiny_tokenizer
from tests.makers.tiny_vision import tiny_vision_folder
from tunebook import FastModel, Trainer, TrainingConfig
from tunebook.data.encoded import Encoded
from tunebook.tokens.collation import collated

ROW = {"messages": [{"role": "user", "content": "Say it"}, {"role": "assistant", "content": "the dog sleeps"}]}
STEPS = TrainingConfig(max_steps=1, hold_out=0)


def model_of(folder, config):
    """A folder with a tokenizer and random weights for a config of mlx-lm."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = tiny_tokenizer(folder, style="gpt2")
    config = {"vocab_size": len(tokenizer), "bos_token_id": 1, "eos_token_id": 2, **config}
    (folder / "config.json").write_text(json.dumps(config))
    bare, _ = load_model(folder, lazy=True, strict=False)
    mx.random.seed(0)
    arrays = {name: 0.1 * mx.random.normal(value.shape) for name, value in tree_flatten(bare.parameters())}
    mx.save_safetensors(str(folder / "model.safetensors"), arrays)
    return folder


GPT2 = {"model_type": "gpt2", "n_ctx": 48, "n_positions": 48, "n_embd": 32, "n_head": 2, "n_layer": 1}
GPT2 |= {"layer_norm_epsilon": 1e-5}
BIGCODE = {"model_type": "gpt_bigcode", "n_positions": 48, "n_embd": 32, "n_head": 2, "n_layer": 1, "n_inner": 64}
BIGCODE |= {"layer_norm_epsilon": 1e-5, "attention_softmax_in_fp32": True, "multi_query": True}


@pytest.mark.parametrize("config", [GPT2, BIGCODE], ids=["gpt2", "gpt_bigcode"])
def test_a_table_of_positions_limits_rows_and_says_so(tmp_path, config):
    model, tokenizer = FastModel.from_pretrained(model_of(tmp_path / "m", config))
    assert model.family.tables.positions == 48
    long = [{"text": "the quick brown fox jumps over the lazy dog " * 30}] * 2
    trainer = Trainer(model, tokenizer, train_dataset=long, args=STEPS)
    assert max(len(row.tokens) for row in trainer.train_rows) == 48
    assert any("table of 48 positions" in notice for notice in trainer.data.notices)


def test_an_answer_ends_where_the_positions_do(tmp_path):
    model, tokenizer = FastModel.from_pretrained(model_of(tmp_path / "m", GPT2))
    prompt = "the quick brown fox"
    written = sum(1 for _ in model.stream(prompt, max_tokens=500))
    assert written <= 48 - len(tokenizer.encode(prompt)) + 1
    with pytest.raises(ValueError, match="table of 48 positions"):
        model.generate("the quick brown fox jumps over the lazy dog " * 30)


def test_rows_beyond_what_rotary_positions_were_made_for_are_said(tmp_path):
    model, _ = FastModel.from_pretrained(tiny_model_folder(tmp_path / "m"))
    assert model.family.tables.positions is None
    FastModel.get_peft_model(model, r=2)
    rows = [{"text": "the quick brown fox " * 200}]
    trainer = Trainer(model, train_dataset=rows, args=TrainingConfig(max_steps=1, hold_out=0, max_seq_length=2048))
    assert any("512 positions" in notice and "1 rows" in notice for notice in trainer.data.notices)


@pytest.mark.parametrize("bits", [None, 4, 8])
def test_a_new_token_without_a_row_is_refused_by_its_name(tmp_path, bits):
    options = {f"load_in_{bits}bit": True} if bits else {}
    model, tokenizer = FastModel.from_pretrained(tiny_model_folder(tmp_path / "m"), **options)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|turn|>"]})
    rows = [ROW, {"messages": [*ROW["messages"][:1], {"role": "assistant", "content": "a <|turn|>"}]}]
    with pytest.raises(ValueError, match=r"1 of 2 rows .*\(rows? 1\b.*'<\|turn\|>' \(512\).*resize_embeddings"):
        Trainer(model, tokenizer, train_dataset=rows, args=STEPS)


def test_prompts_are_held_against_the_tables(tmp_path):
    model, tokenizer = FastModel.from_pretrained(tiny_model_folder(tmp_path / "m"))
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|turn|>"]})
    with pytest.raises(ValueError, match="the prompt holds the token"):
        model.generate("Say <|turn|>", max_tokens=2)
    config = TrainingConfig(max_steps=1, hold_out=0, sample_prompts=("Say it", "Say <|turn|>"))
    with pytest.raises(ValueError, match="Prompt 1 of sample_prompts"):
        Trainer(model, tokenizer, train_dataset=[ROW], args=config)


@pytest.mark.parametrize("token", [-1, 512, 2**31 - 1])
def test_a_batch_is_held_against_the_tables_wherever_its_rows_came_from(tmp_path, token):
    model, _ = FastModel.from_pretrained(tiny_model_folder(tmp_path / "m"))
    rows = [
        Encoded(np.array(ids, np.int32), np.ones(3, bool), number=number)
        for number, ids in enumerate([[1, 2, 3], [1, token, 3]])
    ]
    with pytest.raises(ValueError, match=f"Row 1 holds the token {token}"):
        collated(model.family, rows, 64)


def test_evaluation_rows_and_those_of_a_stream_are_checked(tmp_path):
    model, tokenizer = FastModel.from_pretrained(tiny_model_folder(tmp_path / "m"))
    FastModel.get_peft_model(model, r=2)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|turn|>"]})
    bad = [{"text": "a <|turn|>"}]
    with pytest.raises(ValueError, match="cannot be trained on"):
        Trainer(model, tokenizer, train_dataset=[{"text": "a dog"}], eval_dataset=bad, args=STEPS)
    streaming = TrainingConfig(max_steps=1, streaming=True)
    with pytest.raises(ValueError, match="cannot be trained on"):
        Trainer(model, tokenizer, train_dataset=iter([{"text": "a dog"}, *bad]), args=streaming)


def test_a_vocabulary_padded_beyond_the_tokenizer_is_as_good_as_any(tmp_path):
    folder = tiny_model_folder(tmp_path / "m")
    weights = mx.load(str(folder / "model.safetensors"))
    rows = mx.concatenate([weights["model.embed_tokens.weight"], mx.zeros((64, 64))])
    mx.save_safetensors(str(folder / "model.safetensors"), {**weights, "model.embed_tokens.weight": rows})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 576}))
    model, tokenizer = FastModel.from_pretrained(folder)
    assert model.family.tables.tokens == 576
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|turn|>"]})
    Trainer(model, tokenizer, train_dataset=[{"text": "a <|turn|>"}], args=STEPS)


def test_a_model_that_sees_has_tables_too(tmp_path):
    model, tokenizer = FastModel.from_pretrained(tiny_vision_folder(tmp_path / "v", "smolvlm"))
    assert model.family.tables.tokens == model.module["language_model"].embed_tokens.weight.shape[0]
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|turn|>"]})
    with pytest.raises(ValueError, match=r"<\|turn\|>"):
        Trainer(model, tokenizer, train_dataset=[{"text": "a <|turn|>"}], args=STEPS)
