"""K-quant files: the type of every tensor is llama.cpp's own choice, the numbers are what llama.cpp computes with."""

import json
import tracemalloc

import gguf
import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.utils import load_model

from tests.frozen.k_quants import CASES, FILE, LETTERS, words
from tests.makers.tiny import tiny_config, tiny_model_folder
from tunebook import FastModel
from tunebook.export.gguf.files import notes_on
from tunebook.export.readback import llama_cpp
from tunebook.gguf import encode, read_gguf, write_gguf
from tunebook.gguf.architectures.lookup import architecture_of_config, completed
from tunebook.gguf.experts import gathered
from tunebook.gguf.plan import planned
from tunebook.gguf.quantizations import KINDS, build_of, is_k_quant, stored_type, wanted_type
from tunebook.gguf.tensor_files import stored_tensors

K_QUANTS = [kind for kind in KINDS if is_k_quant(kind)]
IDS = [5, 17, 99, 4, 250, 301, 7, 60, 61, 62]


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A model whose rows divide into blocks of 256; of eight layers, the first few that the mixtures tell apart."""
    folder = tmp_path_factory.mktemp("wide")
    return tiny_model_folder(folder, hidden_size=256, head_dim=64, intermediate_size=256, num_hidden_layers=8)


def log_probs(folder):
    """Log p of IDS[1:] under mlx-lm, in nats."""
    module, _ = load_model(folder)
    module.set_dtype(mx.float32)
    scores = np.array(module(mx.array([IDS]))[0, :-1]).astype(np.float64)
    scores -= np.log(np.exp(scores).sum(axis=-1, keepdims=True))
    return scores[np.arange(len(IDS) - 1), IDS[1:]]


def width_of(module, config):
    if module.startswith("ffn_down"):
        return config["moe_intermediate_size" if module.endswith("exps") else "intermediate_size"]
    if module == "attn_output":
        return config["num_attention_heads"] * config["head_dim"]
    return config["hidden_size"]


@pytest.mark.parametrize("case", CASES)
def test_every_tensor_has_the_type_llama_cpp_gives_it(case):
    frozen = json.loads(FILE.read_text())[case]
    architecture, settings = CASES[case]
    config = tiny_config(architecture, **settings)
    row = architecture_of_config(config)
    build = build_of(row, completed(config, row), tied=config["tie_word_embeddings"])
    assert list(frozen) == K_QUANTS
    for kind, expected in frozen.items():
        for module, word in expected.items():
            ends = module in ("token_embd", "output")
            names = [f"{module}.weight" if ends else f"blk.{layer}.{module}.weight" for layer in range(len(word))]
            width = width_of(module, config)
            ours = [stored_type(width, wanted_type(name, kind, build)).name for name in names]
            assert "".join(LETTERS[name] for name in ours) == word, (kind, module)


def test_the_types_chosen_are_the_types_written(wide, tmp_path):
    pytest.importorskip("libgguf")
    written = write_gguf(wide, tmp_path / "wide.gguf", "q4_k_m")
    found = words(written.path)
    # The first and the last eighth, and every third between.
    assert found["attn_v"] == found["ffn_down"] == "64464466"
    assert (found["attn_q"], found["token_embd"]) == ("44444444", "6")
    assert gguf.GGUFReader(written.path).fields["general.file_type"].contents() == gguf.LlamaFileType.MOSTLY_Q4_K_M
    assert written.fallbacks == {}


@pytest.mark.parametrize("kind", ["q2_k", "q3_k_m"])  # all five types are in these two
def test_llama_cpp_and_our_reader_agree_on_what_a_k_quant_file_holds(wide, tmp_path, kind):
    pytest.importorskip("libgguf")
    pytest.importorskip("xllamacpp")
    path = write_gguf(wide, tmp_path / "wide.gguf", kind).path
    # llama.cpp rounds the other factor of such a product to 8 bits.
    error = llama_cpp.target_log_probs(path, IDS) - log_probs(read_gguf(path, tmp_path / "back"))
    assert np.abs(error).max() < 0.2


def test_files_of_more_bits_are_larger(wide):
    config = json.loads((wide / "config.json").read_text())
    row = architecture_of_config(config)
    config, stored = completed(config, row), gathered(stored_tensors(wide))

    def size(kind):
        plan, _ = planned(row, config, stored, kind)
        return sum(tensor.streamed(config).size_bytes for tensor in plan)

    sizes = [size(kind) for kind in (*K_QUANTS, "q8_0", "f16", "f32")]
    assert sizes == sorted(set(sizes))


def test_a_file_is_written_in_the_memory_of_a_few_matrices(wide, tmp_path):
    write_gguf(wide, tmp_path / "first.gguf", "f16")  # what is imported and cached stays out of the count
    matrix = 4 * 512 * 256  # bytes of the largest tensor, the embedding, in fp32
    tracemalloc.start()
    try:
        size = write_gguf(wide, tmp_path / "second.gguf", "f16").size_bytes
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6 * matrix < size


def test_more_bits_keep_more_of_a_matrix():
    pytest.importorskip("libgguf")
    array = np.random.default_rng(0).normal(size=(16, 512)).astype(np.float32)
    kinds = [KINDS[kind].type for kind in ("q2_k", "q3_k_m", "q4_k_m", "q5_k_m", "q6_k", "q8_0")]
    lost = [np.square(gguf.dequantize(encode.encode(array, kind), kind) - array).mean() for kind in kinds]
    assert lost == sorted(lost, reverse=True)
    assert lost[0] < 0.15  # of a variance of 1


def test_rows_that_do_not_divide_into_256_get_the_type_llama_cpp_falls_back_to_and_are_named(tmp_path):
    pytest.importorskip("libgguf")
    folder = tiny_model_folder(tmp_path / "model", intermediate_size=72)
    written = write_gguf(folder, tmp_path / "model.gguf", "q4_k_s")
    assert written.fallbacks["blk.0.attn_q.weight"] == "q5_0"
    assert written.fallbacks["blk.1.ffn_down.weight"] == "f16"
    assert written.fallbacks["token_embd.weight"] == "q8_0"
    assert any("10 tensors are stored as q5_0" in note for note in notes_on(written))


def test_without_libgguf_a_k_quant_is_refused_before_anything_is_merged(tmp_path, monkeypatch):
    model, _ = FastModel.from_pretrained(tiny_model_folder(tmp_path / "model"))
    monkeypatch.setattr(encode, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install libgguf"):
        model.save_pretrained_gguf(tmp_path / "gguf", quantization_method=["f16", "q4_k_m"])
    assert not (tmp_path / "gguf").exists()
