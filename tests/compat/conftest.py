"""What the notebooks of these tests have at hand."""

import pytest

from tests.makers.tiny import tiny_model_folder
from tunebook.compat import told


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A tiny model with a head of its own."""
    return tiny_model_folder(tmp_path_factory.mktemp("untied") / "llama", tie_word_embeddings=False)


@pytest.fixture(autouse=True)
def _says_all_again(monkeypatch):
    """What is said once in a process is said once in each test."""
    monkeypatch.setattr(told, "_SAID", set())
