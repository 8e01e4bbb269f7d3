"""With trust_remote_code off no Python of a stranger runs, whichever door it is planted at; with it on it does.

Every planted file leaves a mark when it is run. What a loader says of the folder is told apart from what it did.
"""

import json
import os
import pickle
import shutil
from pathlib import Path

import mlx.core as mx
import pytest

from tests.makers.tiny import CHAT_TEMPLATE, tiny_model_folder
from tests.makers.tiny_vision import FAMILIES, tiny_vision_folder
from tunebook import FastModel
from tunebook.data.sources import read_rows
from tunebook.export.readback.verify import verify_export
from tunebook.model_files.trusted import CodeNotTrusted, openable
from tunebook.models.loader import load

AUTO = (
    "AutoConfig",
    "AutoModel",
    "AutoModelForCausalLM",
    "AutoProcessor",
    "AutoImageProcessor",
    "AutoFeatureExtractor",
)
AUTO = (*AUTO, "AutoVideoProcessor", "AutoModelForImageTextToText", "AutoTokenizer")
FILES = ("config.json", "tokenizer_config.json", "processor_config.json", "preprocessor_config.json")
FILES = (*FILES, "video_preprocessor_config.json", "generation_config.json", "special_tokens_map.json")
REFERENCES = ("planted.T", "sub.planted.T", "../planted.T", "owner/name--planted.T")
CLASSES = ("tokenizer_class", "processor_class", "image_processor_type", "feature_extractor_type", "model_type")
ROWS = [{"messages": [{"role": "user", "content": "the dog"}, {"role": "assistant", "content": "sleeps in the sun"}]}]


class Payload:
    """A pickle that leaves a mark when it is opened."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return Path.write_text, (self.mark, "ran")


@pytest.fixture
def mark(tmp_path):
    return tmp_path / "ran"


def plant(folder: Path, mark: Path, body: str = "class T: pass") -> None:
    """Put code beside a model in every shape it comes in."""
    code = f"import pathlib\npathlib.Path({str(mark)!r}).write_text('ran')\n{body}\n"
    places = ("planted.py", "sub/planted.py", "sub/__init__.py", "../planted.py", "custom_generate/generate.py")
    for place in (*places, f"{folder.name}.py", "__init__.py", "modeling_planted.py"):
        (folder / place).parent.mkdir(exist_ok=True)
        (folder / place).write_text(code)
    for name in ("pytorch_model.bin", "adapter_model.bin", "model.pt", "consolidated.pth", "tokenizer.pkl"):
        (folder / name).write_bytes(pickle.dumps(Payload(mark)))


def change(file: Path, **entries) -> None:
    document = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(document | entries))


def opened(folder: Path, **options) -> str:
    """Whether the folder was loaded, or the error in its place: always a sentence, of a kind that people are told."""
    try:
        FastModel.from_pretrained(folder, max_seq_length=64, **options)
    except (ValueError, OSError) as error:
        return str(error)
    return "loaded"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """kind -> a folder of a model of it, to be copied."""
    made, folder = {}, tmp_path_factory.mktemp("models")

    def model(kind: str) -> Path:
        if kind not in made:
            write = tiny_vision_folder if kind in FAMILIES else tiny_model_folder
            made[kind] = write(folder / kind, kind)
        return made[kind]

    return model


@pytest.mark.parametrize("kind", ["llama", "qwen2", "phi3", *FAMILIES])
def test_a_known_model_that_ships_code_is_opened_without_it(models, tmp_path, mark, kind):
    folder = shutil.copytree(models(kind), tmp_path / "model")
    plant(folder, mark)
    for reference in REFERENCES:
        for name in FILES:
            if (folder / name).exists():
                change(folder / name, auto_map=dict.fromkeys(AUTO, reference))
        assert opened(folder) == "loaded", reference
        assert not mark.exists(), reference


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", ["llama", *FAMILIES])
def test_classes_nobody_knows_run_no_code_either(models, tmp_path, mark, kind, name):
    folder = shutil.copytree(models(kind), tmp_path / "model")
    plant(folder, mark)
    for reference in ("planted.T", ["planted.T", "planted.T"]):
        entries = dict.fromkeys(CLASSES, "T") | {"auto_map": dict.fromkeys(AUTO, reference)}
        change(folder / name, **entries)
        said = opened(folder)
        assert not mark.exists()
        assert said == "loaded" or "planted.py" in said or "T" in said


@pytest.mark.parametrize("key", ["model_file", "model_type", "chat_template_type", "tool_parser_type"])
@pytest.mark.parametrize("value", ["planted.py", "../planted.py", "planted", "../planted", "os.path", "/tmp/planted"])
def test_a_module_named_by_a_setting_is_not_imported(models, tmp_path, mark, monkeypatch, key, value):
    kind = "smolvlm" if key == "model_file" else "llama"
    folder = shutil.copytree(models(kind), tmp_path / "model")
    plant(folder, mark)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))  # as Jupyter has the folder of the notebook
    change(folder / ("config.json" if key.startswith("model") else "tokenizer_config.json"), **{key: value})
    said = opened(folder)
    assert not mark.exists()
    assert value in said


def test_what_needs_its_own_code_says_which_file_and_what_to_pass(models, tmp_path, mark):
    folder = shutil.copytree(models("llama"), tmp_path / "model")
    plant(folder, mark)
    change(folder / "config.json", model_file="planted.py")
    with pytest.raises(CodeNotTrusted, match=r"needs its own code \(file planted\.py\); read it and pass trust_remote"):
        load(folder, say=lambda _: None)
    change(folder / "config.json", model_file=None, model_type="unheard_of")
    change(folder / "tokenizer_config.json", tokenizer_class="T", auto_map={"AutoTokenizer": ["planted.T", None]})
    with pytest.raises(CodeNotTrusted, match=r"planted\.py"):
        load(folder, say=lambda _: None)
    assert not mark.exists()


def test_pickles_in_place_of_weights_are_not_opened(models, tmp_path, mark):
    folder = shutil.copytree(models("llama"), tmp_path / "model")
    plant(folder, mark)
    (folder / "model.safetensors").write_bytes(pickle.dumps(Payload(mark)))
    assert f"{folder / 'model.safetensors'} is no whole .safetensors file" in opened(folder)
    (folder / "model.safetensors").unlink()
    assert "model*.safetensors missing" in opened(folder)
    assert not mark.exists()


def test_an_escaped_key_names_code_as_well_as_a_plain_one(models, tmp_path):
    folder = shutil.copytree(models("smolvlm"), tmp_path / "model")
    text = (folder / "preprocessor_config.json").read_text()
    (folder / "preprocessor_config.json").write_text(text[:-1] + r', "auto\u005fmap": {"AutoProcessor": "planted.T"}}')
    shown = openable(folder, trust_remote_code=False)
    assert "auto_map" not in json.loads((shown / "preprocessor_config.json").read_text())
    assert "auto_map" in json.loads((folder / "preprocessor_config.json").read_text())  # which is left as it was


def test_nothing_but_data_is_shown_to_the_libraries(models, tmp_path, mark):
    folder = shutil.copytree(models("llama"), tmp_path / "model")
    plant(folder, mark)
    (folder / "config.yaml").write_text("!!python/object/apply:os.system ['true']")
    names = {path.suffix for path in openable(folder, trust_remote_code=False).rglob("*") if path.is_file()}
    assert names <= {".json", ".jinja", ".safetensors", ".txt", ".model"}


@pytest.mark.parametrize("form", ["mlx", "peft"])
def test_adapters_bring_no_code(tuned, tmp_path, mark, monkeypatch, form):
    folder = tmp_path / "adapters"
    tuned.save_pretrained(folder, format=form)
    plant(folder, mark)
    monkeypatch.chdir(folder)
    change(
        folder / "adapter_config.json",
        auto_mapping={"base_model_class": "T", "parent_library": "planted"},
        auto_map=dict.fromkeys(AUTO, "planted.T"),
        megatron_core="planted",
        model_file="planted.py",
    )
    assert "cannot be" in opened(folder)  # by name: what these entries change is not known
    assert not mark.exists()
    names = ("auto_map", "auto_mapping", "megatron_core", "model_file")
    change(folder / "adapter_config.json", **dict.fromkeys(names))
    assert opened(folder) == "loaded"
    assert not mark.exists()


def test_a_gguf_file_brings_no_code(tuned, tmp_path, mark, monkeypatch):
    [export] = tuned.save_pretrained_gguf(tmp_path / "gguf", quantization_method="f16")
    plant(tmp_path / "gguf", mark)
    monkeypatch.chdir(tmp_path / "gguf")
    FastModel.from_pretrained(export.path, max_seq_length=64)
    assert not mark.exists()


@pytest.mark.parametrize(("reader", "form"), [("mlx-lm", "merged"), ("transformers", "peft")])
def test_a_program_that_reads_an_export_back_runs_no_code(models, tmp_path, mark, monkeypatch, reader, form):
    base = shutil.copytree(models("llama"), tmp_path / "base")
    plant(base, mark)
    change(base / "config.json", auto_map=dict.fromkeys(AUTO, "planted.T"))
    change(base / "tokenizer_config.json", auto_map={"AutoTokenizer": ["planted.T", "planted.T"]})
    model, _ = FastModel.from_pretrained(base, max_seq_length=64)
    FastModel.get_peft_model(model, r=2)
    folder = tmp_path / "export"
    model.save_pretrained_merged(folder, dtype="float32") if form == "merged" else model.save_pretrained(
        folder, format="peft"
    )
    plant(folder, mark)
    for name in ("numpy", "torch", "json", "transformers", "mlx_lm", "peft"):
        shutil.copyfile(folder / "planted.py", folder / f"{name}.py")
    if form == "peft":
        change(folder / "adapter_config.json", auto_mapping={"base_model_class": "T", "parent_library": "planted"})
    monkeypatch.chdir(folder)  # where a child would look for its modules first
    assert verify_export(folder, model, ROWS, reader=reader).passed
    assert not mark.exists()


def test_a_vision_export_is_read_back_without_its_code(models, tmp_path, mark, monkeypatch):
    base = shutil.copytree(models("smolvlm"), tmp_path / "base")
    model, _ = FastModel.from_pretrained(base, max_seq_length=64)
    FastModel.get_peft_model(model, r=2)
    folder = tmp_path / "export"
    model.save_pretrained_merged(folder, dtype="float32")
    plant(folder, mark)
    for name in FILES:
        change(folder / name, auto_map=dict.fromkeys(AUTO, "planted.T"))
    shutil.copyfile(folder / "planted.py", folder / "mlx_vlm.py")
    monkeypatch.chdir(folder)
    assert verify_export(folder, model, ROWS).passed
    assert not mark.exists()


def test_a_set_of_rows_brings_no_code(tmp_path, mark, monkeypatch):
    import datasets

    folder = tmp_path / "owner" / "rows"
    folder.mkdir(parents=True)
    (folder / "rows.jsonl").write_text(json.dumps({"text": "the dog"}) + "\n")
    datasets.Dataset.from_list([{"text": "the dog"}]).save_to_disk(tmp_path / "saved")
    for place in (folder, tmp_path / "saved"):
        plant(place, mark)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="scripts are no longer supported"):
        read_rows("owner/rows.py")
    assert list(read_rows(tmp_path / "saved")) == [{"text": "the dog"}]
    assert list(read_rows(folder / "rows.jsonl")) == [{"text": "the dog"}]
    assert not mark.exists()


def test_a_template_reaches_nothing_but_its_messages(tiny_folder, mark):
    for reach in (
        f"cycler.__init__.__globals__.os.system('touch {mark}')",
        f"''.__class__.__mro__[1].__subclasses__() and lipsum.__globals__['os'].popen('touch {mark}')",
        f"strftime_now.__globals__['__builtins__']['open']('{mark}', 'w')",
    ):
        _, tokenizer = FastModel.from_pretrained(tiny_folder, chat_template="{{ " + reach + " }}" + CHAT_TEMPLATE)
        with pytest.raises(Exception, match=r"unsafe|undefined"):
            tokenizer.apply_chat_template(ROWS[0]["messages"], tokenize=False)
    assert not mark.exists()


def test_code_that_is_trusted_runs(models, tmp_path, mark):
    folder = shutil.copytree(models("llama"), tmp_path / "trusted_model")
    plant(folder, mark, "from mlx_lm.models.llama import Model, ModelArgs")
    change(folder / "config.json", model_file="planted.py")
    assert opened(folder, trust_remote_code=True) == "loaded"
    assert mark.exists()
    mark.unlink()
    plant(folder, mark, "from transformers import PreTrainedTokenizerFast\nclass T(PreTrainedTokenizerFast): pass")
    change(folder / "config.json", model_file=None)
    change(folder / "tokenizer_config.json", tokenizer_class="T", auto_map={"AutoTokenizer": [None, "planted.T"]})
    assert opened(folder, trust_remote_code=True) == "loaded"
    assert mark.exists()


def test_an_opened_tokenizer_is_known_by_its_own_folder_and_can_be_saved(tiny_folder, tmp_path):
    _, tokenizer = FastModel.from_pretrained(tiny_folder)
    assert tokenizer.name_or_path == str(tiny_folder)
    tokenizer.save_pretrained(tmp_path / "saved")
    assert os.listdir(tmp_path / "saved")
    assert mx.load(str(tiny_folder / "model.safetensors"))
