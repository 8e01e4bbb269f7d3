"""Bases for adapters, with a head of their own and without, and adapters in PEFT's form on one of them."""

import pytest

from tests.makers.other_adapters import Q_AND_UP, rewritten
from tests.makers.tiny import tiny_model_folder
from tunebook import FastModel


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases")
    return {
        "tied": tiny_model_folder(folder / "tied"),
        "untied": tiny_model_folder(folder / "untied", tie_word_embeddings=False),
    }


@pytest.fixture
def peft_folder(bases, tmp_path):
    """Adapters in PEFT's form on the untied base, small and made here."""
    model, _ = FastModel.from_pretrained(bases["untied"])
    FastModel.get_peft_model(model, r=4, lora_alpha=8, target_modules=Q_AND_UP)
    model.save_pretrained(tmp_path / "peft", format="peft")
    return rewritten(tmp_path / "peft", target_modules=Q_AND_UP)
