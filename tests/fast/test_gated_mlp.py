"""The plain form of a gated MLP, through MLX's own gradients, is what every claim here is checked against."""

from importlib import import_module
from importlib.util import find_spec
from inspect import isclass
from types import FunctionType

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten, tree_map_with_path
from mlx_lm.models import llama
from mlx_lm.models.activations import swiglu
from mlx_lm.tuner.lora import LoRALinear

from tests.makers.peaks import peak_bytes
from tests.makers.tiny import tiny_config, tiny_model_folder
from tunebook import FastModel, TrainingConfig
from tunebook.fast.forms import forms_for
from tunebook.fast.gated_mlp import FORMS, has_form, lean_mlps
from tunebook.fast.gradient_checkpointing import recomputed_layers
from tunebook.objectives.next_token import summed_loss, supervised_positions
from tunebook.tokens.encoding import encode_rows
from tunebook.train.step import Stepper

pytestmark = pytest.mark.float32

KINDS = {
    "llama": {},
    "qwen2": {},
    "qwen3": {},
    "gemma3": {},
    "phi3": {},
    "4-bit": {"load_in_4bit": True},
    "full": {"full_finetuning": True},
    "DoRA": {"use_dora": True},
    "other layers": {"target_modules": ["q_proj", "up_proj"]},
}


def tuned_model(folder, kind, **adapters):
    """A tiny model of `kind` whose adapters' B matrices are not zero."""
    architecture = kind if kind in ("llama", "qwen2", "qwen3", "gemma3", "phi3") else "llama"
    loading = {name: value for name, value in KINDS[kind].items() if name in ("load_in_4bit", "full_finetuning")}
    adapters |= {name: value for name, value in KINDS[kind].items() if name not in loading}
    model, _ = FastModel.from_pretrained(tiny_model_folder(folder, architecture), **loading)
    if kind != "full":
        FastModel.get_peft_model(model, r=4, **adapters)
        mx.random.seed(1)
        filled = tree_map_with_path(
            lambda path, array: mx.random.normal(array.shape) * 0.1 if path.endswith("lora_b") else array,
            model.module.trainable_parameters(),
        )
        model.module.update(filled)
    return model


def batch_of(model, rows):
    return model.family.collate(encode_rows(rows[:4], model.loaded, max_seq_length=128).rows, width=65)


def gradients(model, batch):
    step = nn.value_and_grad(model.module, summed_loss(model.family))
    nats, found = step(model.module, batch, supervised_positions(batch))
    mx.eval(nats, found)
    return nats.item(), dict(tree_flatten(found))


def assert_same(ours, plain):
    whole = mx.sqrt(sum((gradient**2).sum() for gradient in plain.values())).item()
    assert ours.keys() == plain.keys()
    for path, gradient in ours.items():
        assert mx.linalg.norm((gradient - plain[path]).reshape(-1)).item() < 1e-6 * whole, path


def assert_same_as_plain(model, batch, **options):
    """With `lean_mlps` and these options, alone and in recomputed layers, loss and gradients are those without."""
    nats, plain = gradients(model, batch)
    with lean_mlps(model.module, **options):
        found, ours = gradients(model, batch)
        with recomputed_layers(model.module):
            again, recomputed = gradients(model, batch)
    assert found == pytest.approx(nats, rel=1e-6)
    assert again == pytest.approx(nats, rel=1e-6)
    assert_same(ours, plain)
    assert_same(recomputed, plain)


@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_gradients_are_those_of_the_plain_form(kind, tmp_path, rows):
    model = tuned_model(tmp_path, kind)
    mlps = {path for path, part in model.module.named_modules() if path.endswith("mlp")}
    kinds = {path: type(part) for path, part in model.module.named_modules()}
    with lean_mlps(model.module):
        assert {path for path, part in model.module.named_modules() if type(part) is not kinds[path]} == mlps
    assert_same_as_plain(model, batch_of(model, rows))


def test_an_mlp_that_drops_something_before_its_last_layer_stays_as_it_is(tmp_path):
    model = tuned_model(tmp_path, "llama", lora_dropout=0.1)
    kinds = [type(part) for part in model.module.modules()]
    with lean_mlps(model.module):
        assert [type(part) for part in model.module.modules()] == kinds


def test_an_mlp_written_otherwise_stays_as_it_is():
    class Parts(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate, self.up, self.down = (nn.Linear(8, 8) for _ in range(3))

    class Scaled(Parts):
        def __call__(self, x):
            return self.down(swiglu(self.gate(x), self.up(x))) * 2

    class OfItsOwn(Parts):
        def __call__(self, x):
            return self.down(gate_first(self.gate(x), self.up(x)))

    for part in (Scaled(), OfItsOwn()):
        with lean_mlps(part):
            assert type(part) in (Scaled, OfItsOwn)


def gate_first(gate, up):
    """A function of mlx-lm's shape that is not mlx-lm's."""
    return gate * up


def test_a_compiled_step_comes_to_the_plain_ones_loss(tmp_path, rows):
    losses = []
    for compiles in (False, True):
        model = tuned_model(tmp_path / str(compiles), "llama")
        encoded = encode_rows(rows[:2], model.loaded, max_seq_length=128).rows
        config = TrainingConfig(
            compile=compiles, per_device_train_batch_size=2, gradient_accumulation_steps=1, learning_rate=1e-2
        )
        stepper = Stepper(model.loaded, config, encoded, total_steps=3, max_seq_length=128)
        for step in (1, 2, 3):
            stepper.begin(step)
            stepper.add(encoded, alone=True)
            losses.append(stepper.finish().loss)
    assert losses[3:] == pytest.approx(losses[:3], rel=1e-4)


def kept_by_an_mlp(forms=None):
    """Bytes that an adapted MLP of 256 tokens and a width of 4096 keeps for its gradient; frozen weights left out."""
    x = mx.random.normal((256, 16))
    arguments = llama.ModelArgs.from_dict(tiny_config("llama", hidden_size=16, intermediate_size=4096, vocab_size=32))

    def stack(depth):
        layers = [llama.MLP(arguments) for _ in range(depth)]
        for layer in layers:
            layer.freeze()
            layer.update_modules(
                {name: LoRALinear.from_base(layer[name], r=2) for name in ("gate_proj", "up_proj", "down_proj")}
            )
        return nn.Sequential(*layers)

    def peak(depth):
        module = stack(depth)
        mx.eval(module.parameters(), x)
        with lean_mlps(module, forms):
            return peak_bytes(lambda: nn.value_and_grad(module, lambda module: module(x).sum())(module))

    return (peak(12) - peak(6)) / 6


def test_three_arrays_of_the_mlps_width_are_kept_and_no_fourth():
    wide = 4 * 256 * 4096  # bytes of one: float32, tokens, width
    assert 2.3 < kept_by_an_mlp(forms_for("cpu")) / wide < 3.4  # MLX frees an array a few operations sooner or later


# Of mlx-lm 0.32.2, by the form their MLPs are written in; models that import one of these MLPs are caught with it.
CAUGHT = {
    "_swiglu_form": """Klear afmoe baichuan_m1 bailing_hybrid bailing_moe bailing_moe_linear bailing_moe_v3 cohere
        cohere2 deepseek dots1 ernie4_5 ernie4_5_moe exaone exaone4 exaone_moe granite granitemoehybrid helium hunyuan
        hunyuan_v1_dense internlm2 internlm3 jamba kimi_linear laguna lfm2 lfm2_moe llama llama4 llama4_text
        longcat_flash mimo minicpm minicpm3 ministral3 nanbeige olmo2 olmo3 plamo qwen2 qwen2_moe qwen3 qwen3_moe
        qwen3_next seed_oss stablelm telechat3 youtu_llm""",
    "_curve_form": "gemma2 gemma3_text muse_glimmer olmo_hybrid talkie",
    "_split_form": "glm openelm phi3",
}


@pytest.mark.parametrize(("form", "name"), [(form, name) for form, names in CAUGHT.items() for name in names.split()])
def test_the_mlps_of_an_architecture_are_known_by_their_form(form, name):
    if find_spec(f"mlx_lm.models.{name}") is None:
        pytest.skip(f"this mlx-lm has no {name}")
    (known,) = [each for each in FORMS if each.call.__name__ == form]
    module = import_module(f"mlx_lm.models.{name}")
    calls = [
        each.__call__
        for each in vars(module).values()
        if isclass(each) and issubclass(each, nn.Module) and each.__module__ == module.__name__
    ]
    assert any(has_form(known, call) for call in calls if isinstance(call, FunctionType))
