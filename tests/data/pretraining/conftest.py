"""A model that reads images, a folder of three, and a cache of the test's own."""

import pytest

from tests.makers.tiny_vision import noise_images, tiny_vision_folder
from tunebook import FastModel
from tunebook.tokens import encoding, token_cache


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    model, _ = FastModel.from_pretrained(tiny_vision_folder(tmp_path_factory.mktemp("smol"), "smolvlm"))
    return FastModel.get_peft_model(model, r=2, lora_alpha=4)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number, image in enumerate(noise_images(3)):
        image.save(folder / f"{number}.png")
    return folder


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache folder of the test's own, used for sets of three rows already."""
    monkeypatch.setenv("TUNEBOOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(encoding, "CACHED_ROWS", 3)
    return tmp_path / "cache" / token_cache.FOLDER
