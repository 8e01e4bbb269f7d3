"""Fixtures the tests of every wing share: a tiny model on disk, and the same model loaded afresh for each test."""

import os
from pathlib import Path

import pytest

import tunebook  # before anything imports MLX: it loads the fast BLAS
from tests.makers.tiny import tiny_model_folder

assert tunebook
pytest_plugins = ["tests.spread", "tests.as_gpu"]


CHECKOUT = str(Path(__file__).parents[1])


@pytest.fixture(scope="session", autouse=True)
def _away_from_the_checkout(tmp_path_factory):
    """Runs are kept in `runs` beside the notebook: fixtures that train leave none in the checkout.

    Children still find `tests` and the kit.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), CHECKOUT])))
        patch.chdir(tmp_path_factory.mktemp("here"))
        yield


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(_away_from_the_checkout, tmp_path_factory, monkeypatch):
    """Each test begins where no run has been yet; `tmp_path` itself stays empty."""
    monkeypatch.chdir(tmp_path_factory.mktemp("here"))


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    """A random two-layer Llama with a ChatML tokenizer, fp32, as `mlx_lm.load` and transformers open it."""
    return tiny_model_folder(tmp_path_factory.mktemp("tiny") / "llama")


@pytest.fixture
def model(tiny_folder):
    """That model, loaded and frozen."""
    from tunebook import FastModel

    return FastModel.from_pretrained(tiny_folder, max_seq_length=128)[0]


@pytest.fixture
def adapted(model):
    """That model with adapters as they begin."""
    from tunebook import FastModel

    return FastModel.get_peft_model(model, r=4, lora_alpha=8)


@pytest.fixture
def tuned(model):
    """That model with adapters whose B matrices are not zero, so that a lost adapter shows."""
    import mlx.core as mx
    from mlx.utils import tree_map_with_path

    from tunebook import FastModel

    FastModel.get_peft_model(model, r=4, lora_alpha=8)
    mx.random.seed(1)
    fill = tree_map_with_path(
        lambda path, array: mx.random.normal(array.shape) * 0.1 if path.endswith("lora_b") else array,
        model.module.trainable_parameters(),
    )
    model.module.update(fill)
    return model


@pytest.fixture(scope="session")
def vision_models(tmp_path_factory):
    """family of `tests.makers.tiny_vision` -> a tiny model of it, loaded once and not to be changed."""
    import mlx.core as mx

    from tests.makers.tiny_vision import tiny_vision_folder
    from tunebook import FastModel
    from tunebook.machine import runtime

    folder, made = tmp_path_factory.mktemp("vision"), {}

    def model(family: str) -> FastModel:
        key = (family, runtime.default_dtype(mx.float32))
        if key not in made:
            made[key] = FastModel.from_pretrained(tiny_vision_folder(folder / family, family))[0]
        return made[key]

    return model


@pytest.fixture(scope="session")
def rows() -> list[dict]:
    """Twelve short conversations whose answers are of very unequal length."""
    words = [
        "the",
        "quick",
        "brown",
        "fox",
        "jumps",
        "over",
        "the",
        "lazy",
        "dog",
        "and",
        "sleeps",
        "in",
        "the",
        "warm",
        "sun",
        "until",
        "noon",
    ]
    return [
        {
            "messages": [
                {"role": "user", "content": f"Say {number} words."},
                {"role": "assistant", "content": " ".join(words[: 1 + (number * 5) % 16])},
            ]
        }
        for number in range(12)
    ]
