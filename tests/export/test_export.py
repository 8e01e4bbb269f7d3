"""Each export is opened by a program that shares no code with its writer, and must give the live model's logits."""

import json
import subprocess
import sys

import mlx.core as mx
import mlx_lm
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map

from tests.makers.arrays import in_numpy
from tests.makers.tiny import tiny_model_folder
from tunebook import ExportTable, FastModel
from tunebook.export.merged import save_merged
from tunebook.export.readback.verify import verify_export
from tunebook.gguf import read_gguf

TOKENS = [[5, 17, 99, 4, 250, 301, 7]]


@pytest.fixture
def logits(tuned):
    return in_numpy(tuned.module(mx.array(TOKENS)))


def snapshot(model):
    return {name: in_numpy(array) for name, array in tree_flatten(model.module.parameters())}


def difference(module, logits):
    return np.abs(in_numpy(module(mx.array(TOKENS))) - logits).max()


@pytest.mark.float32
def test_stock_mlx_lm_loads_the_lora(tuned, logits, tmp_path, tiny_folder):
    tuned.save_pretrained(tmp_path / "lora")
    module, _ = mlx_lm.load(str(tiny_folder), adapter_path=str(tmp_path / "lora"))
    assert difference(module, logits) < 1e-5
    assert difference(mlx_lm.load(str(tiny_folder))[0], logits) > 0.1  # without it, another model


@pytest.mark.parametrize(
    "choice",
    [
        {"target_modules": ["q_proj", "down_proj"], "finetune_last_n_layers": 1},
        {"use_dora": True},
        {"use_rslora": True, "lora_dropout": 0.25},
        {"target_modules": ["v_proj", "embed_tokens"]},
    ],
)
@pytest.mark.float32
def test_every_kind_of_adapter_comes_back_as_it_was(model, tmp_path, tiny_folder, choice):
    FastModel.get_peft_model(model, r=4, lora_alpha=16, **choice)
    mx.random.seed(3)
    for path, layer in model.module.named_modules():
        if "lora_b" in layer:
            layer.lora_b = mx.random.normal(layer.lora_b.shape) * 0.1
            assert path
    expected = in_numpy(model.module(mx.array(TOKENS)))
    model.save_pretrained(tmp_path / "lora")
    module, _ = mlx_lm.load(str(tiny_folder), adapter_path=str(tmp_path / "lora"))
    assert difference(module, expected) < 1e-5
    save_merged(model.loaded, tmp_path / "merged", mx.float32)
    assert difference(mlx_lm.load(str(tmp_path / "merged"))[0], expected) < 1e-4


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "gemma3"])
@pytest.mark.float32
def test_transformers_reads_the_merged_model(architecture, tmp_path):
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM

    model, _ = FastModel.from_pretrained(tiny_model_folder(tmp_path / "base", architecture))
    FastModel.get_peft_model(model, r=4)
    mx.random.seed(5)
    for _, layer in model.module.named_modules():
        if "lora_b" in layer:
            layer.lora_b = mx.random.normal(layer.lora_b.shape) * 0.1
    save_merged(model.loaded, tmp_path / "merged", mx.float32)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    with torch.no_grad():
        expected = theirs(torch.tensor(TOKENS)).logits.numpy()
    assert difference(model.module, expected) < 1e-3


@pytest.mark.float32
def test_a_merge_of_a_quantized_model_has_no_quantized_weights_left(tiny_folder, tmp_path):
    model, _ = FastModel.from_pretrained(tiny_folder, load_in_8bit=True)
    FastModel.get_peft_model(model, r=4)
    expected = in_numpy(model.module(mx.array(TOKENS)))
    model.save_pretrained_merged(tmp_path / "merged")
    assert "quantization" not in json.loads((tmp_path / "merged" / "config.json").read_text())
    module, _ = mlx_lm.load(str(tmp_path / "merged"))
    module.set_dtype(mx.float32)
    assert difference(module, expected) < 0.1


@pytest.mark.float32
def test_a_large_merge_is_written_in_shards_that_load_as_one(tuned, logits, tmp_path, monkeypatch):
    monkeypatch.setattr("tunebook.export.merged.SHARD_BYTES", 40_000)
    save_merged(tuned.loaded, tmp_path / "merged", mx.float32)
    files = sorted((tmp_path / "merged").glob("model*.safetensors"))
    index = json.loads((tmp_path / "merged" / "model.safetensors.index.json").read_text())
    assert len(files) > 3
    assert set(index["weight_map"].values()) == {file.name for file in files}
    assert difference(mlx_lm.load(str(tmp_path / "merged"))[0], logits) < 1e-5


def test_each_export_is_verified_by_another_program_and_none_changes_the_live_model(tuned, tmp_path, rows):
    pytest.importorskip("xllamacpp")
    before, structure = snapshot(tuned), str(tuned.module)
    exports = [
        tuned.save_pretrained(tmp_path / "lora", verify_with=rows[:3]),
        tuned.save_pretrained_merged(tmp_path / "merged", verify_with=rows[:3]),
        *tuned.save_pretrained_gguf(tmp_path, quantization_method=["f16", "q8_0"], verify_with=rows[:3]),
    ]
    assert [export.verification.passed for export in exports] == [True] * 4
    assert [export.verification.reader.split()[0] for export in exports] == [
        "mlx-lm",
        "mlx-lm",
        "llama.cpp",
        "llama.cpp",
    ]
    assert str(ExportTable(exports)).count("PASS") == 4
    after = snapshot(tuned)
    assert str(tuned.module) == structure
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_whole_modules_go_with_the_adapters_and_no_program_can_lose_them(model, tmp_path, rows, tiny_folder):
    FastModel.get_peft_model(model, r=4, modules_to_save=["embed_tokens", "norm"])
    mx.random.seed(3)
    trained = model.module.trainable_parameters()
    model.module.update(tree_map(lambda array: array + 0.1 * mx.random.normal(array.shape, array.dtype), trained))
    lora = model.save_pretrained(tmp_path / "lora", verify_with=rows[:2])
    merged = model.save_pretrained_merged(tmp_path / "merged", verify_with=rows[:2])
    gguf = model.save_pretrained_gguf(tmp_path / "gguf", quantization_method="f32", verify_with=rows[:2])[0]
    for export in (lora, merged, gguf):
        assert export.verification.passed, export
    assert "2 tensors of modules_to_save" in lora.notes[0]
    assert lora.verification.reader.startswith("tunebook")
    with pytest.raises(ValueError, match=r"model.embed_tokens.weight: not an adapter parameter"):
        mlx_lm.load(str(tiny_folder), adapter_path=str(tmp_path / "lora"))


def test_an_export_of_another_model_fails_its_verification(tuned, tmp_path, rows, tiny_folder):
    tuned.save_pretrained_merged(tmp_path / "merged")
    for _, layer in tuned.module.named_modules():
        if "lora_b" in layer:
            layer.lora_b = layer.lora_b * -1
    assert not verify_export(tmp_path / "merged", tuned, rows[:3]).passed


def test_a_gguf_file_is_read_back_without_llama_cpp_too(tuned, tmp_path, rows, monkeypatch):
    from tunebook.export.readback import llama_cpp

    [export] = tuned.save_pretrained_gguf(tmp_path, quantization_method="f16")
    monkeypatch.setattr(llama_cpp, "is_installed", lambda: False)
    check = verify_export(export.path, tuned, rows[:3])
    assert check.passed
    assert check.reader.startswith("our reader")


def test_several_gguf_types_come_from_one_merge_and_the_scratch_folder_is_gone(tuned, tmp_path):
    exports = tuned.save_pretrained_gguf(tmp_path / "gguf", quantization_method=["F16", "q8_0", "Q4_K_M"])
    names = ["llama.f16.gguf", "llama.q4_k_m.gguf", "llama.q8_0.gguf"]
    assert sorted(path.name for path in (tmp_path / "gguf").glob("*.gguf")) == names
    assert not [path for path in (tmp_path / "gguf").iterdir() if path.is_dir()]
    assert exports[2].bytes < exports[1].bytes < exports[0].bytes


@pytest.mark.parametrize(
    ("architecture", "base", "choice"),
    [
        ("llama", {"load_in_4bit": True}, {}),
        ("qwen3_moe", {}, {}),
        ("llama", {}, {"use_dora": True, "target_modules": ["q_proj", "down_proj"]}),
        ("llama", {}, {"use_rslora": True, "target_modules": ["v_proj", "embed_tokens"]}),
    ],
)
@pytest.mark.float32
def test_every_kind_of_tuned_model_becomes_a_gguf_with_its_logits(tmp_path, architecture, base, choice):
    model, _ = FastModel.from_pretrained(tiny_model_folder(tmp_path / "base", architecture), **base)
    FastModel.get_peft_model(model, r=4, lora_alpha=16, **choice)
    mx.random.seed(3)
    for _, layer in model.module.named_modules():
        if "lora_b" in layer:
            layer.lora_b = mx.random.normal(layer.lora_b.shape) * 0.1
    expected = in_numpy(model.module(mx.array(TOKENS)))
    [export] = model.save_pretrained_gguf(tmp_path / "gguf", quantization_method="f32")
    module, _ = mlx_lm.load(str(read_gguf(export.path, tmp_path / "back")))
    assert difference(module, expected) < 1e-4


def test_a_tensor_that_cannot_be_quantized_as_asked_is_reported(tmp_path):
    folder = tiny_model_folder(tmp_path / "base", hidden_size=48, head_dim=12, intermediate_size=96)
    model, _ = FastModel.from_pretrained(folder)
    [export] = model.save_pretrained_gguf(tmp_path / "gguf", quantization_method="q8_0")
    assert "stored as f16" in str(export)
    assert "stored as f16" in str(ExportTable([export]))


def test_an_unknown_gguf_type_is_refused_before_anything_is_written(tuned, tmp_path):
    with pytest.raises(ValueError, match=r"q9_x; choose from .*q8_0"):
        tuned.save_pretrained_gguf(tmp_path / "gguf", quantization_method=["f16", "q9_x"])
    assert not (tmp_path / "gguf").exists()


def test_a_model_without_adapters_has_no_lora_to_save(model, tmp_path):
    with pytest.raises(ValueError, match="no adapters"):
        model.save_pretrained(tmp_path / "lora")


def test_a_chat_template_that_was_given_goes_with_the_merged_model(tiny_folder, tmp_path):
    template = "{{ messages[0].content }}!"
    model, _ = FastModel.from_pretrained(tiny_folder, chat_template=template)
    model.save_pretrained_merged(tmp_path / "merged")
    _, tokenizer = mlx_lm.load(str(tmp_path / "merged"))
    assert tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False) == "Hi!"


def test_a_full_disk_leaves_the_older_export_as_it_was(tuned, tmp_path):
    """In a child whose files may not grow past a size: the limit a quota or a full disk sets, without being root."""
    child = f"""
import resource, signal
from pathlib import Path
from tunebook import FastModel
model, _ = FastModel.from_pretrained({str(tuned.loaded.folder)!r})
FastModel.get_peft_model(model, r=4)
place = Path({str(tmp_path)!r})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
for name, limit, save in (
    ("merged", 60_000, model.save_pretrained_merged),
    ("few", 60_000, lambda folder: model.save_pretrained_merged(folder, save_method="merged_8bit")),
    ("gguf", 60_000, model.save_pretrained_gguf),
    ("gguf adapter", 20_000, lambda folder: model.save_pretrained(folder, format="gguf")),
    ("lora", 20_000, model.save_pretrained),
    ("peft", 20_000, lambda folder: model.save_pretrained(folder, format="peft")),
    ("card", 800, model.save_pretrained),
):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        save(place / name)
    except OSError as error:
        print(name, type(error).__name__)
"""
    names = ("merged", "few", "gguf", "gguf adapter", "lora", "peft", "card")
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "older.Modelfile").write_text("precious")
    done = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[1:] == [f"{name} DiskFull" for name in names], done.stderr
    for name in names:
        assert [path.name for path in (tmp_path / name).iterdir()] == ["older.Modelfile"]
        assert (tmp_path / name / "older.Modelfile").read_text() == "precious"
