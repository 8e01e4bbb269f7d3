"""gguf/architectures/rope.py: scaled positions mean the same to llama.cpp and after the way back."""

import json

import numpy as np
import pytest

from tests.makers.gguf_facts import PROBE, YARN, ids_of, log_probs, logits
from tests.makers.tiny import tiny_model_folder
from tunebook.export.readback import llama_cpp
from tunebook.gguf import read_gguf, write_gguf


@pytest.mark.parametrize(
    "scaling",
    [
        {"rope_type": "linear", "type": "linear", "factor": 4.0},
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
        YARN,
    ],
    ids=lambda scaling: scaling["rope_type"],
)
def test_scaled_rope_is_the_same_in_llama_cpp_and_after_the_way_back(tmp_path, scaling):
    pytest.importorskip("xllamacpp")
    folder = tiny_model_folder(tmp_path / "model", "llama", rope_scaling=scaling)
    plain = tiny_model_folder(tmp_path / "plain", "llama")
    ids = ids_of(folder, PROBE)
    assert np.abs(log_probs(folder, ids) - log_probs(plain, ids)).max() > 0.05  # the scaling can be seen at all
    path = write_gguf(folder, tmp_path / "model.gguf", "f32").path
    np.testing.assert_allclose(llama_cpp.target_log_probs(path, ids), log_probs(folder, ids), atol=1e-3)
    back = read_gguf(path, tmp_path / "back")
    np.testing.assert_allclose(logits(back, ids), logits(folder, ids), atol=1e-4)
    assert json.loads((back / "config.json").read_text())["rope_scaling"] == scaling


def test_settings_nested_as_transformers_5_writes_them_are_understood(tmp_path):
    pytest.importorskip("xllamacpp")
    folder = tiny_model_folder(tmp_path / "model", "qwen3", rope_theta=50_000.0)
    config = json.loads((folder / "config.json").read_text())
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": config.pop("rope_theta")}
    (folder / "config.json").write_text(json.dumps(config))
    ids = ids_of(folder, PROBE)
    path = write_gguf(folder, tmp_path / "model.gguf", "f32").path
    np.testing.assert_allclose(llama_cpp.target_log_probs(path, ids), log_probs(folder, ids), atol=1e-3)
