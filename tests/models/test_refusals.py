"""What cannot be loaded is refused with the file, what is wrong and the next move, and that move is made here."""

import json
import re

import mlx.core as mx
import pytest

from tests.makers.tiny import tiny_model_folder
from tests.makers.tiny_vision import tiny_vision_folder
from tunebook import FastModel
from tunebook.models.adapters import adapter_paths, load_adapters


def changed(folder, change, **config):
    """A model folder whose weights are what `change` makes of its matrices, and whose config says so."""
    settings = json.loads((folder / "config.json").read_text()) | config
    (folder / "config.json").write_text(json.dumps(settings))
    weights = {name: mx.array(array) for name, array in mx.load(str(folder / "model.safetensors")).items()}
    made = {}
    for name, array in weights.items():
        made |= change(name, array) if name.endswith("proj.weight") else {name: array}
    mx.eval(made)
    (folder / "model.safetensors").unlink()
    mx.save_safetensors(str(folder / "model.safetensors"), made)
    return folder


def bitsandbytes_4(name, array):
    return {name: mx.zeros((array.size // 2, 1), dtype=mx.uint8), f"{name}.absmax": mx.zeros((array.size // 64,))}


def bitsandbytes_8(name, array):
    scales = name.replace(".weight", ".SCB")
    return {name: mx.zeros(array.shape, dtype=mx.int8), scales: mx.ones((array.shape[0],))}


def fp8(name, array):
    return {name: mx.to_fp8(array), f"{name}_scale_inv": mx.ones((1, 1))}


def gptq(name, array):
    path, (out, into) = name.removesuffix(".weight"), array.shape
    return {
        f"{path}.qweight": mx.zeros((into // 8, out), dtype=mx.int32),
        f"{path}.scales": mx.ones((1, out), dtype=mx.float16),
        f"{path}.g_idx": mx.zeros((into,), dtype=mx.int32),
    }


def as_it_was(name, array):
    return {name: array}


@pytest.mark.parametrize(
    ("quantization", "change", "by"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, bitsandbytes_4, "by 'bitsandbytes'"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, bitsandbytes_8, "by 'bitsandbytes'"),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, fp8, "by 'fp8'"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 64, "desc_act": True}, gptq, "by 'gptq'"),
        ({"quant_method": "hqq", "quant_config": {}}, gptq, "by 'hqq'"),
        ({"quant_method": "compressed-tensors", "format": "float-quantized"}, fp8, "by 'compressed-tensors'"),
        ({"bits": 4, "group_size": 64}, as_it_was, "by a method that it does not name"),
    ],
)
def test_a_model_quantized_for_other_programs_is_refused_in_favour_of_the_one_it_was_made_from(
    quantization, change, by, tmp_path, tiny_folder
):
    folder = changed(tiny_model_folder(tmp_path / "quantized"), change, quantization_config=quantization)
    with pytest.raises(ValueError, match=rf"config\.json says .* quantized {by}") as refused:
        FastModel.from_pretrained(folder)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 450
    assert "{" not in str(refused.value)
    assert "load_in_4bit=True" in str(refused.value)
    model, _ = FastModel.from_pretrained(tiny_folder, load_in_4bit=True)
    assert adapter_paths(FastModel.get_peft_model(model, r=4).module)


def test_a_kind_of_model_that_mlx_lm_does_not_have_is_named(tmp_path):
    folder = changed(tiny_model_folder(tmp_path / "odd"), as_it_was, model_type="perceptron")
    with pytest.raises(ValueError, match=r"config\.json has model_type 'perceptron', .* Take another model"):
        FastModel.from_pretrained(folder)


def test_text_alone_of_a_model_that_only_mlx_vlm_has_is_answered_with_what_opens_it(tmp_path):
    folder = tiny_vision_folder(tmp_path / "smolvlm", "smolvlm")
    with pytest.raises(ValueError, match=r"model_type 'smolvlm'.*Leave out text_only=True"):
        FastModel.from_pretrained(folder, text_only=True)
    assert FastModel.from_pretrained(folder)[0].family.placeholder is not None


@pytest.mark.parametrize(("family", "alone"), [("gemma3", True), ("smolvlm", False)])
def test_text_alone_is_advised_only_where_it_can_be_had(family, alone, tmp_path):
    folder = tiny_vision_folder(tmp_path / family, family)
    for file in folder.glob("*processor_config.json"):
        file.unlink()
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - the message is what is checked
        FastModel.from_pretrained(folder)
    assert ("text_only=True" in str(refused.value)) is alone
    if alone:
        assert FastModel.from_pretrained(folder, text_only=True)[0].family.placeholder is None


@pytest.mark.parametrize("family", ["gemma3", "qwen2_5_vl"])
@pytest.mark.parametrize("text_only", [None, True])
def test_a_gguf_of_a_model_that_sees_is_refused_with_exports_that_are_possible(family, text_only, tmp_path):
    folder = tiny_vision_folder(tmp_path / family, family)
    model = FastModel.get_peft_model(FastModel.from_pretrained(folder, text_only=text_only)[0], r=4)
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - the message is what is checked
        model.save_pretrained_gguf(tmp_path / "gguf")
    assert "text_only" not in str(refused.value)
    for name in re.findall(r"save_pretrained\w*", str(refused.value)):
        vars(FastModel)[name](model, tmp_path / name)
        assert any((tmp_path / name).iterdir())


def test_weights_in_a_pickle_are_answered_with_the_line_that_writes_them_anew(tmp_path):
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM

    folder = tiny_model_folder(tmp_path / "pickled")
    torch.save(AutoModelForCausalLM.from_pretrained(folder).state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"pytorch_model\.bin is a pickle") as refused:
        FastModel.from_pretrained(folder)
    (code,) = re.findall(r"are: (.*)\.$", str(refused.value))
    exec(code, {"AutoModelForCausalLM": AutoModelForCausalLM})
    assert FastModel.from_pretrained(folder)


def test_weights_of_another_name_are_answered_with_the_name_they_need(tmp_path):
    folder = tiny_model_folder(tmp_path / "named")
    (folder / "model.safetensors").rename(folder / "weights.safetensors")
    with pytest.raises(FileNotFoundError, match=r"rename it to model\.safetensors"):
        FastModel.from_pretrained(folder)
    (folder / "weights.safetensors").rename(folder / "model.safetensors")
    assert FastModel.from_pretrained(folder)


def test_adapters_that_name_no_base_open_by_either_of_the_two_ways_that_are_advised(tuned, tiny_folder, tmp_path):
    tuned.save_pretrained(tmp_path / "lora")
    file = tmp_path / "lora" / "adapter_config.json"
    settings = {
        key: value
        for key, value in json.loads(file.read_text()).items()
        if key not in ("model", "base_model_name_or_path")
    }
    file.write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=r"write its name as base_model_name_or_path .* call load_adapters"):
        FastModel.from_pretrained(tmp_path / "lora")
    model, _ = FastModel.from_pretrained(tiny_folder)
    load_adapters(model.module, tmp_path / "lora")
    assert adapter_paths(model.module) == adapter_paths(tuned.module)
    file.write_text(json.dumps(settings | {"base_model_name_or_path": str(tiny_folder)}))
    assert adapter_paths(FastModel.from_pretrained(tmp_path / "lora")[0].module) == adapter_paths(tuned.module)
