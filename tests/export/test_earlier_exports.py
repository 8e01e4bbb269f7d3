"""Exports from before there was a list of their files: known by what they hold, replaced as one, and nothing else is.

`frozen/earlier_exports.json` is what such exports of a tiny model wrote, as text; weights are put in as small ones.
"""

import json
from pathlib import Path

import mlx.core as mx
import pytest

from tests.makers.tiny import tiny_model_folder
from tunebook import FastModel
from tunebook.export.target.earlier import earlier_export

FROZEN = json.loads((Path(__file__).parents[1] / "frozen" / "earlier_exports.json").read_text())

AGAIN = {
    "lora": lambda model, folder: model.save_pretrained(folder),
    "peft": lambda model, folder: model.save_pretrained(folder, format="peft"),
    "merged": lambda model, folder: model.save_pretrained_merged(folder),
    "merged-4bit": lambda model, folder: model.save_pretrained_merged(folder, save_method="merged_4bit"),
    "gguf": lambda model, folder: model.save_pretrained_gguf(folder, quantization_method=["f16", "q8_0"]),
}


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    model, _ = FastModel.from_pretrained(tiny_model_folder(tmp_path_factory.mktemp("base") / "little-llama"))
    return FastModel.get_peft_model(model, r=2, target_modules=["q_proj"])


def lay_out(folder: Path, form: str, without: tuple[str, ...] = ()) -> Path:
    """An export as the kit once left it."""
    for name, text in FROZEN[form].items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name in without:
            continue
        if text is not None:
            path.write_text(text)
        elif name.endswith(".safetensors"):
            mx.save_safetensors(str(path), {"weight": mx.ones((2, 2))}, metadata={"format": "mlx"})
        else:
            path.write_bytes(b"GGUF" if name.endswith(".gguf") else b"{}")
    return folder


@pytest.mark.parametrize("form", AGAIN)
def test_an_earlier_export_is_known_whole_and_replaced_as_one_beside_what_is_not_of_it(tuned, tmp_path, form):
    folder = lay_out(tmp_path / "out", form)
    mine = {"notes.md": "mine", "train.json": "[]", "data.safetensors.bak": "mine", "other.txt": "mine"}
    for name, text in mine.items():
        (folder / name).write_text(text)
    assert set(earlier_export(folder)) == set(FROZEN[form])
    weights = [path for path in folder.iterdir() if path.suffix in (".safetensors", ".gguf")]
    before = {path: path.read_bytes() for path in weights}
    for _ in range(2):
        AGAIN[form](tuned, folder)
        assert {name: (folder / name).read_text() for name in mine} == mine
    assert not [path for path in weights if path.exists() and path.read_bytes() == before[path]]
    if form.startswith("merged"):
        assert [path.name for path in folder.glob("*.safetensors")] == ["model.safetensors"]


@pytest.mark.parametrize("form", ["lora", "peft"])
def test_adapters_without_their_card_are_known_by_their_settings(tuned, tmp_path, form):
    folder = lay_out(tmp_path / "out", form, without=("README.md",))
    AGAIN[form](tuned, folder)
    assert (folder / "README.md").exists()


def other_adapters(folder: Path) -> None:
    """As mlx-lm's own training leaves them."""
    settings = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(settings | {"batch_size": 4, "model": "x"}))
    (folder / "README.md").unlink(missing_ok=True)


def other_peft(folder: Path) -> None:
    weights = folder / "adapter_model.safetensors"
    mx.save_safetensors(str(weights), {"weight": mx.ones((2, 2))}, metadata={"format": "pt"})


def own_card(folder: Path) -> None:
    (folder / "README.md").write_text("# My model\n\n- tunebook\n")


def own_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"mine")


def own_gguf(folder: Path) -> None:
    (folder / "README.md").write_text(FROZEN["gguf"]["README.md"].replace("little-llama.f16", "another.f16"))


def linked(folder: Path) -> None:
    elsewhere = folder.parent / "elsewhere"
    (folder / "adapters.safetensors").rename(elsewhere)
    (folder / "adapters.safetensors").symlink_to(elsewhere)


@pytest.mark.parametrize(
    ("form", "change", "named"),
    [
        ("lora", other_adapters, "adapter"),
        ("peft", other_peft, "adapter"),
        ("merged", own_card, "config.json"),
        ("merged-4bit", own_weights, "model.safetensors"),
        ("gguf", own_gguf, "little-llama.f16"),
        ("lora", linked, "adapter"),
    ],
)
def test_what_only_looks_like_an_earlier_export_is_refused_by_name_and_stays(tuned, tmp_path, form, change, named):
    folder = lay_out(tmp_path / "out", form)
    change(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(FileExistsError, match=named):
        AGAIN[form](tuned, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_words_a_person_wrote_on_an_earlier_card_stay(tuned, tmp_path):
    folder = lay_out(tmp_path / "out", "lora")
    card = folder / "README.md"
    card.write_text(card.read_text() + "\nIt speaks like a pirate.\n")
    assert "README.md" in str(AGAIN["lora"](tuned, folder))
    assert card.read_text().endswith("\nIt speaks like a pirate.\n")


def test_an_earlier_export_of_another_form_is_refused(tuned, tmp_path):
    folder = lay_out(tmp_path / "out", "lora")
    with pytest.raises(FileExistsError, match=r"an export of another form \(lora\)"):
        AGAIN["merged"](tuned, folder)


def test_an_earlier_export_is_still_known_after_another_came_beside_it(tuned, tmp_path):
    folder = lay_out(tmp_path / "out", "lora")
    AGAIN["gguf"](tuned, folder)
    AGAIN["lora"](tuned, folder)
    assert len(list(folder.glob("*.gguf"))) == 2


def test_the_usual_ways_to_save_and_save_again_work(tuned, tmp_path):
    tokenizer = tuned.loaded.tokenizer
    for form in ("lora", "merged", "peft"):
        folder = tmp_path / form
        for _ in range(2):
            AGAIN[form](tuned, folder)
        tokenizer.save_pretrained(str(folder))
        AGAIN[form](tuned, folder)
        tuned.module.update({"model": {"norm": {"weight": tuned.module.model.norm.weight + 0.01}}})
        AGAIN[form](tuned, folder)
    FastModel.from_pretrained(tmp_path / "merged")
    FastModel.from_pretrained(tmp_path / "lora")
