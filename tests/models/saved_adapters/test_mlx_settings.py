"""saved_adapters/mlx_settings.py: each form of mlx-lm is opened as it was made; what is not understood is refused."""

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.tuner.utils import load_adapters as stock_load_adapters
from mlx_lm.utils import load_model

from tests.makers.arrays import in_numpy
from tests.makers.other_adapters import FORMS, LORA, Q_AND_V, TOKENS, of_mlx_lm, opened
from tunebook import FastModel

NUMBERED = "0000100_adapters.safetensors"


@pytest.mark.parametrize("kind", FORMS)
@pytest.mark.float32
def test_every_form_of_mlx_lm_is_opened_as_it_was_made(bases, tmp_path, kind):
    made = kind.split()[0].strip(",") if kind.split()[0].strip(",") in ("full", "dora") else "lora"
    folder, expected = of_mlx_lm(bases["tied"], tmp_path / "mlx", FORMS[kind], kind=made)
    assert np.abs(opened(folder) - expected).max() < 1e-5
    if kind in ("now", "more layers than there are", "all layers", "dora", "full", "its command line"):
        stock, _ = load_model(bases["tied"])
        theirs = stock_load_adapters(stock, str(folder)).eval()(mx.array(TOKENS))
        assert np.abs(opened(folder) - np.array(theirs)).max() < 1e-5


@pytest.mark.float32
def test_of_numbered_checkpoints_alone_the_newest_is_taken(bases, tmp_path):
    folder, expected = of_mlx_lm(bases["tied"], tmp_path / "mlx", FORMS["now"], file=NUMBERED)
    older = {name: array * 2 for name, array in mx.load(str(folder / NUMBERED)).items()}
    mx.save_safetensors(str(folder / "0000020_adapters.safetensors"), older)
    assert np.abs(opened(folder) - expected).max() < 1e-5
    model, _ = FastModel.from_pretrained(folder)
    assert f"(from {NUMBERED}, of 2 numbered ones)" in model.source


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rank": 4, "alpha": 40.0, "dropout": 0.0}, r"older ones multiply with it.*40.0 \(alpha\) or 10.0"),
        ({"lora_parameters": {"rank": 4, "alpha": 8, "keys": None}}, "an alpha of 8 and no scale"),
        ({"lora_parameters": {**Q_AND_V, "use_rslora": True}}, "use_rslora is True, which is not known here"),
        ({"lora_parameters": Q_AND_V, "rank_pattern": {"q": 3}}, "rank_pattern is {'q': 3}, which is not known here"),
        ({"lora_parameters": None}, "lora_parameters is None"),
        ({"lora_parameters": {**Q_AND_V, "rank": -1}}, "rank is -1"),
        ({"lora_parameters": {**Q_AND_V, "scale": "10"}}, "scale is '10'"),
        ({"lora_parameters": {**Q_AND_V, "keys": "q_proj"}}, "keys is 'q_proj'"),
        ({"lora_parameters": Q_AND_V, "num_layers": "all"}, "num_layers is 'all'"),
        ({"lora_parameters": Q_AND_V, "fine_tune_type": "ia3"}, "fine_tune_type is 'ia3'"),
        ({"lora_parameters": {**LORA, "keys": ["mlp.up_proj", *Q_AND_V["keys"]]}}, "up_proj.lora_a not in the file"),
    ],
)
def test_settings_of_mlx_programs_that_are_not_understood_are_refused(bases, tmp_path, settings, said):
    folder, _ = of_mlx_lm(bases["tied"], tmp_path / "mlx", settings)
    with pytest.raises(ValueError, match=said):
        FastModel.from_pretrained(folder)


@pytest.mark.float32
def test_adapters_of_mlx_vlm_with_its_old_names_are_opened_once_their_scale_is_written(bases, tmp_path):
    folder, expected = of_mlx_lm(bases["tied"], tmp_path / "mlx", FORMS["now"])
    path, leaves = folder / "adapters.safetensors", {"lora_a": "A", "lora_b": "B"}
    named = {f"{name[:-6]}{leaves[name[-6:]]}": array for name, array in mx.load(str(path)).items()}
    mx.save_safetensors(str(path), named)
    assert np.abs(opened(folder) - expected).max() < 1e-5


def test_a_scale_may_be_a_whole_number_of_any_size(bases, tmp_path):
    folder, _ = of_mlx_lm(bases["tied"], tmp_path / "mlx", {"lora_parameters": {**Q_AND_V, "scale": 2**63}})
    model, _ = FastModel.from_pretrained(folder)
    assert np.isfinite(in_numpy(model.module(mx.array(TOKENS)))).all()
