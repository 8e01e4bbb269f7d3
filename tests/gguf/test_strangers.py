"""A .gguf of a stranger: nothing leaves its folder, no count is believed, and what is wrong is one sentence."""

import random
import shutil
import struct
import time
import tracemalloc
from pathlib import Path

import gguf
import pytest

from tests.gguf.gguf_files import rewritten
from tests.makers.tiny import tiny_model_folder
from tunebook import FastModel
from tunebook.gguf import read_gguf, write_gguf
from tunebook.gguf.container import open_container
from tunebook.models.fetch import ModelNotFound


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("gguf")
    return write_gguf(tiny_model_folder(folder / "model", "llama"), folder / "model.gguf", "f16").path


def refusal(path: Path, folder: Path) -> str:
    """The sentence it is refused with, nothing being left; empty where it is read."""
    said = ""
    try:
        read_gguf(path, folder)
    except ValueError as error:
        said = str(error)
    assert folder.exists() == (not said)
    assert "\n" not in said
    assert len(said) < 600
    return said


@pytest.mark.parametrize(
    "name",
    [
        "../../../evil",
        "/tmp/evil",
        "..\\evil",
        "a\0b",
        "",
        ".hidden",
        "con",
        "NUL.txt",
        "x" * 4000,
        "a\nb",
        "tool. ",
        "ＤＥＦＡＵＬＴ",
        "Default",
    ],
)
def test_a_template_whose_name_is_no_plain_file_name_is_refused_and_writes_nothing(path, tmp_path, name):
    odd = rewritten(path, tmp_path / "odd.gguf", {f"tokenizer.chat_template.{name}": "{{ 1 }}"})
    before = sorted(tmp_path.rglob("*"))
    assert "chat template called" in refusal(odd, tmp_path / "deep" / "out")
    left = sorted(tmp_path.rglob("*"))
    assert left in (before, sorted([*before, tmp_path / "deep"]))


def test_two_templates_whose_files_would_be_one_are_refused_and_plain_names_are_read(path, tmp_path):
    odd = rewritten(
        path, tmp_path / "odd.gguf", {"tokenizer.chat_template.Rag": "a", "tokenizer.chat_template.rag": "b"}
    )
    assert "chat template called 'rag'" in refusal(odd, tmp_path / "out")
    names = ["rag", "tool_use", "tool use", "v1.2", "größe"]
    good = rewritten(path, tmp_path / "good.gguf", {f"tokenizer.chat_template.{name}": name for name in names})
    assert refusal(good, tmp_path / "good") == ""
    files = (tmp_path / "good" / "additional_chat_templates").iterdir()
    assert sorted(file.stem for file in files) == sorted(names)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"llama.block_count": 2_000_000}, "block_count is 2000000, and the file has 20 tensors"),
        ({"llama.block_count": 1}, "would be lost"),
        ({"llama.block_count": None}, "no llama.block_count"),
        ({"llama.attention.head_count": 0}, "whole number from 1 on"),
        ({"llama.attention.head_count": 3}, "must be a multiple"),
        ({"llama.embedding_length": 1 << 30}, "by the settings in the file"),
        ({"llama.attention.layer_norm_rms_epsilon": float("nan")}, "a number above zero"),
        ({"llama.rope.freq_base": -1.0}, "a number above zero"),
        ({"tokenizer.ggml.bos_token_id": 4_000_000_000}, "bos_token_id"),
        ({"tokenizer.ggml.eos_token_id": 600}, "which has 512 tokens"),
        ({"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.bos_token_id": None}, "names none"),
        ({"tokenizer.ggml.tokens": ["a"] * 512}, "stands 512 times"),
        ({"tokenizer.ggml.tokens": ["a", "b"]}, "has 2 tokens"),
        ({"tokenizer.ggml.merges": ["no such"]}, "does not make one of its tokens"),
        ({"tokenizer.ggml.token_type": [1, 2]}, "there are 512 tokens"),
        ({"llama.expert_count": 7}, "cannot be expressed"),
        ({"split.count": 3}, "one of 3 parts"),
    ],
)
def test_settings_that_the_file_does_not_bear_out_are_named(path, tmp_path, keys, said):
    began = time.process_time()
    tracemalloc.start()
    assert said in refusal(rewritten(path, tmp_path / "odd.gguf", keys), tmp_path / "out")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6
    assert time.process_time() - began < 5


KEY = b"tokenizer.ggml.tokens"


@pytest.mark.parametrize(
    ("place", "number", "said"),
    [
        (8, 1 << 60, "tensors, and"),  # their count
        (16, 1 << 60, "keys, and"),
        (24, 1 << 40, "name of a key"),  # the first name's length
        ("items", 1 << 50, "strings in"),
        ("first", 1 << 50, "a string of"),
    ],
)
def test_counts_and_lengths_are_held_against_the_size_of_the_file(path, tmp_path, place, number, said):
    data = bytearray(path.read_bytes())
    start = data.index(KEY) + len(KEY)  # then: the type, the items' type, their count, the first one's length
    at = {"items": start + 8, "first": start + 16}[place] if isinstance(place, str) else place
    data[at : at + 8] = struct.pack("<Q", number)
    (tmp_path / "odd.gguf").write_bytes(data)
    assert said in refusal(tmp_path / "odd.gguf", tmp_path / "out")


def test_tensors_beyond_the_end_or_over_each_other_and_odd_dimensions_are_named(path, tmp_path):
    data = path.read_bytes()
    name = b"blk.0.attn_q.weight"
    info = data.index(name) + len(name)  # dimensions, two sizes, the type, the place
    for at, kind, number, said in (
        (info, "<I", 1 << 31, "2147483648 dimensions"),
        (info + 4, "<Q", 0, "which F16 has not"),
        (info + 4, "<Q", 1 << 62, "takes"),
        (info + 20, "<I", 77, "of type 77"),
        (info + 24, "<Q", 7, "takes"),
        (info + 24, "<Q", 0, "take the same bytes"),
        (info + 24, "<Q", 1 << 40, "takes"),
    ):
        odd = bytearray(data)
        odd[at : at + struct.calcsize(kind)] = struct.pack(kind, number)
        (tmp_path / "odd.gguf").write_bytes(odd)
        assert said in refusal(tmp_path / "odd.gguf", tmp_path / "out")


def test_a_file_that_was_cut_anywhere_is_one_sentence(path, tmp_path):
    data, dice = path.read_bytes(), random.Random(0)
    for length in [0, 3, 4, 23, 24, 30, *(dice.randrange(len(data)) for _ in range(60)), len(data) - 1]:
        (tmp_path / "cut.gguf").write_bytes(data[:length])
        assert refusal(tmp_path / "cut.gguf", tmp_path / "out")


def test_lists_of_lists_and_a_key_that_stands_twice_are_refused(path, tmp_path):
    data = path.read_bytes()
    (keys,) = struct.unpack_from("<Q", data, 16)
    nested = struct.pack("<Q", 1) + b"x" + struct.pack("<IIQ", 9, 9, 1) + struct.pack("<IQ", 9, 1) * 2000
    twice = struct.pack("<Q", 1) + b"x" + struct.pack("<II", 4, 1)
    for extra, count, said in ((nested, 1, "a list of lists"), (twice * 2, 2, "stands in it twice")):
        (tmp_path / "odd.gguf").write_bytes(data[:16] + struct.pack("<Q", keys + count) + extra + data[24:])
        assert said in refusal(tmp_path / "odd.gguf", tmp_path / "out")


def test_a_token_of_a_megabyte_and_tokens_that_join_in_every_way_take_no_time(path, tmp_path):
    """The scored kind of tokenizer has no merges in the file: they are made, and there could be very many."""
    tokens = [f"t{index}" for index in range(512)]
    common = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.merges": None,
        "tokenizer.ggml.add_space_prefix": None,
    }
    for several in ([*tokens[:-1], "a" * 1_000_000], [*("a" * length for length in range(1, 513))]):
        odd = rewritten(path, tmp_path / "odd.gguf", {**common, "tokenizer.ggml.tokens": several})
        began = time.process_time()
        refusal(odd, tmp_path / f"out-{len(several[-1])}")
        assert time.process_time() - began < 5


def test_what_the_gguf_package_reads_is_what_is_read_here(path):
    reader, here = gguf.GGUFReader(path), open_container(path)
    theirs = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    assert here.keys == theirs
    for tensor in reader.tensors:
        assert here.tensors[tensor.name].data.tobytes() == tensor.data.tobytes()
        assert here.tensors[tensor.name].shape == tuple(tensor.shape[::-1].tolist())


@pytest.mark.parametrize("stem", ["a" * 250, "𝔸" * 62, "é" * 124])
def test_a_file_with_the_longest_name_a_folder_takes_is_loaded(path, tmp_path, stem):
    long = tmp_path / f"{stem}.gguf"
    shutil.copyfile(path, long)
    model, _ = FastModel.from_pretrained(long)
    assert model.loaded.folder.name.startswith(stem[:20])


@pytest.mark.parametrize("name", ["a" * 300 + ".gguf", "b/" * 3000 + "model.gguf", "owner/" + "c" * 400])
def test_a_name_longer_than_any_file_has_is_one_sentence(name):
    with pytest.raises(
        ModelNotFound, match=r"There is no file or folder|neither an existing path nor a hub id"
    ) as caught:
        FastModel.from_pretrained(name)
    assert "\n" not in str(caught.value)
