import json
import shutil

import mlx.core as mx
import mlx_lm
import pytest
from mlx.utils import tree_flatten

from tests.makers.failing_gpu import pending
from tests.makers.tiny import tiny_model_folder
from tunebook import FastModel
from tunebook.gguf import UnsupportedArchitecture, write_gguf
from tunebook.models.fetch import ModelNotFound
from tunebook.models.loader import load

TOKENS = mx.array([[5, 17, 99, 4, 250]])


@pytest.mark.float32
def test_a_folder_gives_the_model_stock_mlx_lm_gives(model, tiny_folder):
    stock, _ = mlx_lm.load(str(tiny_folder))
    assert mx.array_equal(model.module(TOKENS), stock(TOKENS))
    assert str(tiny_folder) in model.source


@pytest.mark.parametrize("options", [{"full_finetuning": True}, {}, {"load_in_4bit": True}])
def test_no_weight_of_an_open_model_waits_to_be_computed(tiny_folder, options):
    """One that does is lost with the first evaluation that fails on a GPU."""
    model, _ = FastModel.from_pretrained(tiny_folder, dtype="bfloat16", **options)
    if "full_finetuning" not in options:
        FastModel.get_peft_model(model, r=4, use_dora=True)
    assert [name for name, array in tree_flatten(model.module.parameters()) if pending(array)] == []


def test_a_gguf_file_gives_the_model_it_was_written_from_with_its_tokenizer_and_template(
    model, tiny_folder, tmp_path, monkeypatch
):
    monkeypatch.setenv("TUNEBOOK_CACHE", str(tmp_path / "cache"))
    write_gguf(tiny_folder, tmp_path / "tiny.gguf", "f32")
    read, tokenizer = FastModel.from_pretrained(tmp_path / "tiny.gguf")
    turns = [{"role": "user", "content": "Où est l'été en 2024?"}]
    assert mx.allclose(read.module(TOKENS), model.module(TOKENS), atol=1e-5)
    assert tokenizer.apply_chat_template(turns) == model.loaded.tokenizer.apply_chat_template(turns)
    assert tokenizer.eos_token_ids == model.loaded.tokenizer.eos_token_ids


@pytest.mark.float32
def test_a_gguf_file_is_converted_once_and_again_when_it_changes(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TUNEBOOK_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "tiny.gguf"
    write_gguf(tiny_folder, path, "f32")
    first, again = (FastModel.from_pretrained(path)[0].loaded.folder for _ in range(2))
    other = tiny_model_folder(tmp_path / "other", seed=1)
    write_gguf(other, path, "f32")
    changed, _ = FastModel.from_pretrained(path)
    assert first == again != changed.loaded.folder
    assert mx.allclose(changed.module(TOKENS), mlx_lm.load(str(other))[0](TOKENS), atol=1e-5)


@pytest.mark.parametrize("damage", ["a bit", "cut", "gone", "a folder", "planted", "no seal"])
def test_a_converted_file_that_was_damaged_is_converted_again(model, tiny_folder, tmp_path, monkeypatch, damage):
    monkeypatch.setenv("TUNEBOOK_CACHE", str(tmp_path / "cache"))
    write_gguf(tiny_folder, tmp_path / "tiny.gguf", "f32")
    folder = FastModel.from_pretrained(tmp_path / "tiny.gguf")[0].loaded.folder
    [weights] = folder.glob("model*.safetensors")
    content = weights.read_bytes()
    match damage:
        case "a bit":
            weights.write_bytes(content[:-9] + bytes([content[-9] ^ 64]) + content[-8:])
        case "cut":
            weights.write_bytes(content[:-4000])
        case "gone":
            (folder / "tokenizer.json").unlink()
        case "a folder":
            (folder / "config.json").unlink()
            (folder / "config.json").mkdir()
        case "planted":
            mx.save_safetensors(str(folder / "model-2.safetensors"), {"model.norm.weight": mx.zeros(32)})
        case _:
            (folder / "seal.json").unlink()
    read, _ = FastModel.from_pretrained(tmp_path / "tiny.gguf")
    assert mx.allclose(read.module(TOKENS), model.module(TOKENS), atol=1e-5)
    assert sorted(path.name for path in folder.parent.iterdir()) == [folder.name]


def test_a_model_comes_frozen_unless_all_of_it_is_to_be_tuned(tiny_folder):
    frozen, _ = FastModel.from_pretrained(tiny_folder)
    whole, _ = FastModel.from_pretrained(tiny_folder, full_finetuning=True)
    assert not tree_flatten(frozen.module.trainable_parameters())
    assert len(tree_flatten(whole.module.trainable_parameters())) == len(tree_flatten(whole.module.parameters()))


@pytest.mark.cpu
def test_half_precision_weights_are_computed_in_float32_on_the_cpu_and_remembered_as_they_were(tmp_path):
    if mx.default_device().type != mx.DeviceType.cpu:
        pytest.skip("on a GPU the checkpoint's own type is kept")
    folder = tiny_model_folder(tmp_path / "half")
    weights = {name: array.astype(mx.bfloat16) for name, array in mx.load(str(folder / "model.safetensors")).items()}
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    model, _ = FastModel.from_pretrained(folder)
    assert (model.loaded.dtype, model.loaded.checkpoint_dtype) == (mx.float32, mx.bfloat16)
    assert {array.dtype for _, array in tree_flatten(model.module.parameters())} == {mx.float32}
    asked, _ = FastModel.from_pretrained(folder, dtype="float16")
    assert {array.dtype for _, array in tree_flatten(asked.module.parameters())} == {mx.float16}


def test_a_model_can_be_quantized_while_loading_and_still_learns(tiny_folder, rows):
    from tunebook import Trainer, TrainingConfig

    model, _ = FastModel.from_pretrained(tiny_folder, load_in_4bit=True, max_seq_length=128)
    kinds = {type(layer).__name__ for layer in model.module.leaf_modules()["model"]["layers"][0]["mlp"].values()}
    assert "QuantizedLinear" in kinds
    FastModel.get_peft_model(model, r=4)
    args = TrainingConfig(max_steps=8, learning_rate=1e-2, warmup_steps=0, gradient_accumulation_steps=1)
    trainer = Trainer(model, train_dataset=rows[:2], args=args)
    trainer.subscribe(lambda event: None)
    steps = trainer.train().steps
    assert steps[-1].loss < steps[0].loss


def test_a_chat_template_that_is_given_is_used(tiny_folder):
    model, tokenizer = FastModel.from_pretrained(tiny_folder, chat_template="{{ messages[0].content }}!")
    assert tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False) == "Hi!"
    assert "Hi!" not in model.generate("Hi", max_tokens=2)


def test_an_unknown_name_is_one_clear_sentence():
    with pytest.raises(ModelNotFound, match="no-such-owner/no-such-model"):
        FastModel.from_pretrained("no-such-owner/no-such-model")


def test_a_folder_without_weights_says_what_is_missing_and_what_is_there(tiny_folder, tmp_path):
    shutil.copy(tiny_folder / "config.json", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"model\*\.safetensors missing in .*it holds config\.json"):
        FastModel.from_pretrained(tmp_path)


def test_adapters_that_do_not_say_what_they_are_for_are_refused(tuned, tmp_path):
    tuned.save_pretrained(tmp_path / "lora")
    settings = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())
    del settings["base_model_name_or_path"]
    (tmp_path / "lora" / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="does not say what model its adapters are for"):
        FastModel.from_pretrained(tmp_path / "lora")


def test_a_folder_of_adapters_alone_is_no_model(tuned, tmp_path):
    tuned.save_pretrained(tmp_path / "lora")
    with pytest.raises(FileNotFoundError, match="looks like an adapter"):
        load(tmp_path / "lora")


def test_a_gguf_of_an_architecture_without_a_rule_is_refused_with_those_that_have_one(tmp_path):
    import gguf

    writer = gguf.GGUFWriter(tmp_path / "odd.gguf", "rwkv7")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(UnsupportedArchitecture, match=r"rwkv7.*llama"):
        FastModel.from_pretrained(tmp_path / "odd.gguf")


def test_a_model_with_a_vision_tower_is_refused_unless_only_its_text_is_wanted(tiny_folder, tmp_path):
    folder = shutil.copytree(tiny_folder, tmp_path / "vl")
    config = json.loads((folder / "config.json").read_text()) | {"vision_config": {}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="text_only=True"):
        FastModel.from_pretrained(folder)
    FastModel.from_pretrained(folder, text_only=True)


@pytest.mark.parametrize(
    ("choice", "complaint"),
    [
        ({"load_in_4bit": True, "load_in_8bit": True}, "choose one"),
        ({"dtype": "float8"}, "'float8'; choose one of float32"),
        ({"full_finetuning": True, "load_in_4bit": True}, "leave out"),
    ],
)
def test_choices_that_cannot_be_had_together_are_refused(tiny_folder, choice, complaint):
    with pytest.raises(ValueError, match=complaint):
        FastModel.from_pretrained(tiny_folder, **choice)
