"""generation_config.json, which nobody checks: what no program can use is left out and said, at every door."""

import json
import re
import shutil

import mlx_lm
import pytest

from tests.makers.tiny import tiny_model_folder
from tunebook import FastModel
from tunebook.model_files.generation_config import FILE, usable_generation


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return tiny_model_folder(tmp_path_factory.mktemp("plain") / "llama")


def with_files(plain, folder, generation=None, **config):
    shutil.copytree(plain, folder)
    if generation is not None:
        (folder / FILE).write_text(generation)
    if config:
        settings = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(settings | config))
    return folder


ODD = {
    "list": ("[]", "no JSON object"),
    "text": ('"hot"', "no JSON object"),
    "null": ("null", "no JSON object"),
    "list of ids within another": ('{"eos_token_id": [[2]]}', r"eos_token_id \[\[2\]\]"),
    "id that is no number": ('{"eos_token_id": NaN}', "eos_token_id NaN"),
    "id that is half a number": ('{"eos_token_id": 2.5, "top_k": 3}', "eos_token_id 2.5"),
    "id that is true": ('{"pad_token_id": true}', "pad_token_id true"),
    "temperature that is endless": ('{"temperature": Infinity, "top_p": 0.5}', "temperature Infinity"),
    "number as text": ('{"top_k": "40\\nSYSTEM x", "temperature": 0.5}', "top_k"),
    "NaN deep within": ('{"watermarking_config": {"bias": [1, NaN]}, "top_k": 3}', "watermarking_config"),
}


@pytest.mark.parametrize("name", ODD)
def test_a_model_opens_is_merged_and_gguf_whatever_its_generation_config_says(plain, tmp_path, capsys, name):
    text, said = ODD[name]
    model, _ = FastModel.from_pretrained(with_files(plain, tmp_path / "base", text))
    assert re.search(said, capsys.readouterr().out)
    FastModel.get_peft_model(model, r=2)
    notes = str(model.save_pretrained_merged(tmp_path / "merged"))
    assert re.search(said, notes)
    written = json.loads(
        (tmp_path / "merged" / FILE).read_text(), parse_constant=lambda constant: pytest.fail(constant)
    )
    assert usable_generation(tmp_path / "merged") == (written, "")
    mlx_lm.load(str(tmp_path / "merged"))
    [export] = model.save_pretrained_gguf(tmp_path / "gguf", quantization_method="f16")
    assert re.search(said, str(export))
    lines = export.path.with_suffix(".Modelfile").read_text().splitlines()
    values = [line.split(maxsplit=2) for line in lines if line.startswith("PARAMETER") and "stop" not in line]
    assert all(re.fullmatch(r"[0-9.]+", value) for _, _, value in values)
    assert not any(line.startswith("SYSTEM") for line in lines)


def test_what_is_sound_is_left_byte_for_byte(plain, tmp_path):
    text = '{ "temperature": 0.6,\n"eos_token_id": [2, 1], "suppress_tokens": null, "new": {"a": [1.5]} }'
    model, _ = FastModel.from_pretrained(with_files(plain, tmp_path / "base", text))
    FastModel.get_peft_model(model, r=2)
    assert not model.save_pretrained_merged(tmp_path / "merged").notes
    assert (tmp_path / "merged" / FILE).read_text() == text


@pytest.mark.parametrize(
    "config",
    [
        {"max_position_embeddings": "many"},
        {"max_position_embeddings": [512]},
        {"max_position_embeddings": float("nan")},
        {"max_position_embeddings": {"a": 1}},
        {"hidden_size": "64"},
        {"hidden_size": None},
        {"rms_norm_eps": "1e-5"},
        {"num_hidden_layers": 2.5},
        {"vocab_size": [512]},
        {"eos_token_id": "</s>"},
        {"rope_theta": [1]},
        {"tie_word_embeddings": "no"},
    ],
)
def test_a_setting_of_the_wrong_kind_is_a_sentence_that_names_the_folder(plain, tmp_path, config):
    folder = with_files(plain, tmp_path / "base", **config)
    with pytest.raises(ValueError, match=re.escape(str(folder))) as refused:
        FastModel.from_pretrained(folder)
    assert type(refused.value).__module__.partition(".")[0] in ("builtins", "tunebook")
    assert "\n" not in str(refused.value)
