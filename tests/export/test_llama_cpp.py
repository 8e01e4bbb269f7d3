"""export/readback/llama_cpp.py: what llama.cpp itself is asked, and that it answers in silence."""

import numpy as np
import pytest

from tests.makers.gguf_facts import ids_of, log_probs
from tests.makers.tiny import tiny_model_folder
from tunebook.export.readback import llama_cpp
from tunebook.gguf import write_gguf


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_a_token_beyond_the_first_candidates_gets_its_true_probability(tmp_path):
    pytest.importorskip("xllamacpp")
    folder = tiny_model_folder(tmp_path / "model", "llama")
    path = write_gguf(folder, tmp_path / "model.gguf", "f32").path
    prefix = ids_of(folder, "the fox")
    # Rare tokens are far outside the first candidates asked for.
    tokens = range(0, 512, 101)
    expected = [log_probs(folder, [*prefix, token])[-1] for token in tokens]
    got = [llama_cpp.target_log_probs(path, [*prefix, token], [len(prefix)])[0] for token in tokens]
    np.testing.assert_allclose(got, expected, atol=1e-3)


def test_a_file_llama_cpp_cannot_load_is_named(tmp_path):
    pytest.importorskip("xllamacpp")
    (tmp_path / "no.gguf").write_bytes(b"GGUF, but not really")
    with pytest.raises(RuntimeError, match=r"llama\.cpp does not read .*no\.gguf"):
        llama_cpp.tokenize(tmp_path / "no.gguf", "the fox")


def test_llama_cpp_is_asked_about_positions_that_exist(tmp_path):
    with pytest.raises(ValueError, match="they must be 1 to 2"):
        llama_cpp.target_log_probs(tmp_path / "none.gguf", [1, 2, 3], [0, 3])


def test_llama_cpp_prints_nothing(tmp_path, capfd):
    pytest.importorskip("xllamacpp")
    folder = tiny_model_folder(tmp_path / "model", "llama")
    path = write_gguf(folder, tmp_path / "model.gguf", "f32").path
    capfd.readouterr()
    llama_cpp.target_log_probs(path, [1, 5, 9])
    assert capfd.readouterr() == ("", "")
