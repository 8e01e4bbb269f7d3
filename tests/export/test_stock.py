"""What mlx-lm by itself does otherwise with an export, or with the base of one, is said in its notes."""

import json
from pathlib import Path

import pytest

from tests.makers.tiny import tiny_model_folder
from tunebook import FastModel

LONG = {"type": "longrope", "short_factor": [1.0] * 8, "long_factor": [3.0] * 8}


def tuned(folder: Path) -> FastModel:
    model, _ = FastModel.from_pretrained(folder, max_seq_length=64)
    return FastModel.get_peft_model(model, r=2)


def notes_of(exports) -> str:
    return " ".join(exports.notes)


@pytest.mark.parametrize(
    ("kind", "entries", "said"),
    [
        ("gemma2", {"sliding_window": 24}, "see 24 tokens and no further"),
        ("phi3", {"sliding_window": 48}, "see 48 tokens and no further"),
        ("phi3", {"rope_scaling": LONG, "original_max_position_embeddings": 128}, "Up to 128 tokens"),
    ],
)
def test_an_export_says_what_mlx_lm_ignores_and_from_which_length_on(tmp_path, kind, entries, said):
    model = tuned(tiny_model_folder(tmp_path / "model", kind, **entries))
    assert said in notes_of(model.save_pretrained_merged(tmp_path / "merged", dtype="float32"))
    assert said in notes_of(model.save_pretrained(tmp_path / "lora"))


@pytest.mark.parametrize("kind", ["llama", "smollm3"])
def test_adapters_say_that_mlx_lm_misreads_a_base_of_transformers_5(tmp_path, kind):
    folder = tiny_model_folder(tmp_path / "model", kind)
    config = json.loads((folder / "config.json").read_text())
    del config["rope_theta"]
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": 500_000.0}
    (folder / "config.json").write_text(json.dumps(config))
    model = tuned(folder)
    assert "rope_parameters" in notes_of(model.save_pretrained(tmp_path / "lora"))
    assert not notes_of(model.save_pretrained_merged(tmp_path / "merged", dtype="float32"))


def test_a_model_that_mlx_lm_reads_as_it_is_has_no_such_note(tmp_path):
    model = tuned(tiny_model_folder(tmp_path / "model"))
    assert not notes_of(model.save_pretrained(tmp_path / "lora"))
