import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models import activations as upstream
from mlx_lm.tuner.lora import LoRALinear

from tests.makers.peaks import peak_bytes
from tests.makers.tiny import ARCHITECTURES, tiny_model_folder
from tunebook import FastModel
from tunebook.fast.activations import adapted, gelu_approx, lean_activations, rms_norm, swiglu
from tunebook.fast.forms import forms_for
from tunebook.fast.normed_inputs import LastNormed
from tunebook.objectives.next_token import summed_loss, supervised_positions
from tunebook.tokens.encoding import encode_rows

pytestmark = pytest.mark.float32


def wide(seed, shape=(3, 5, 64)):
    """Values from tiny to far out, with signs."""
    mx.random.seed(seed)
    return mx.random.normal(shape) * mx.exp(3 * mx.random.normal(shape))


FORMS = {
    "swiglu": (swiglu, upstream.swiglu, lambda: (wide(0), wide(1))),
    "gelu": (gelu_approx, nn.gelu_approx, lambda: (wide(0),)),
    "rms_norm": (
        lambda x, weight: rms_norm(x, weight, 1e-5),
        lambda x, weight: mx.fast.rms_norm(x, weight, 1e-5),
        lambda: (wide(0), wide(1, (64,))),
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_values_and_gradients_are_those_of_the_plain_form(form):
    ours, plain, inputs = FORMS[form]
    inputs = inputs()
    weight = mx.random.normal(inputs[0].shape)
    assert mx.allclose(ours(*inputs), plain(*inputs), rtol=1e-5, atol=1e-6)
    places = list(range(len(inputs)))
    found = mx.grad(lambda *inputs: (ours(*inputs) * weight).sum(), argnums=places)(*inputs)
    wanted = mx.grad(lambda *inputs: (plain(*inputs) * weight).sum(), argnums=places)(*inputs)
    for one, other in zip(found, wanted, strict=True):
        assert (mx.linalg.norm((one - other).reshape(-1)) / mx.linalg.norm(other.reshape(-1))).item() < 1e-5


@pytest.mark.parametrize("form", FORMS)
def test_half_precision_comes_back_in_half_precision(form):
    ours, plain, inputs = FORMS[form]
    inputs = [array.astype(mx.bfloat16) for array in inputs()]
    gradients = mx.grad(lambda *inputs: ours(*inputs).astype(mx.float32).sum())(*inputs)
    assert ours(*inputs).dtype == plain(*inputs).dtype == gradients.dtype == mx.bfloat16
    assert mx.allclose(ours(*inputs), plain(*inputs), rtol=2e-2, atol=1e-2)


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_an_adapter_adds_what_mlx_lms_adds(dtype):
    mx.random.seed(0)
    base = nn.Linear(64, 96)
    base.set_dtype(dtype)
    layer = LoRALinear.from_base(base, r=4, scale=2.5)
    layer.lora_b = mx.random.normal(layer.lora_b.shape)
    layer.lora_a, layer.lora_b = layer.lora_a.astype(mx.float32), layer.lora_b.astype(mx.float32)
    x = mx.random.normal((3, 64)).astype(dtype)
    assert adapted(layer, x, LastNormed()).dtype == layer(x).dtype == dtype
    assert mx.allclose(adapted(layer, x, LastNormed()), layer(x), rtol=1e-5 if dtype == mx.float32 else 2e-2, atol=1e-5)


def gradients(model, batch):
    step = nn.value_and_grad(model.module, summed_loss(model.family))
    nats, found = step(model.module, batch, supervised_positions(batch))
    mx.eval(nats, found)
    return nats.item(), dict(tree_flatten(found))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("full", [False, True])
def test_a_model_has_the_loss_and_gradients_of_the_plain_one(architecture, full, tmp_path, rows):
    model, _ = FastModel.from_pretrained(tiny_model_folder(tmp_path, architecture), full_finetuning=full)
    if not full:
        FastModel.get_peft_model(model, r=4)
    batch = model.family.collate(encode_rows(rows[:4], model.loaded, max_seq_length=128).rows, width=65)
    nats, plain = gradients(model, batch)
    with lean_activations(model.module):
        found, ours = gradients(model, batch)
    assert found == pytest.approx(nats, rel=1e-6)
    whole = mx.sqrt(sum((gradient**2).sum() for gradient in plain.values())).item()
    for path, gradient in ours.items():
        assert mx.linalg.norm((gradient - plain[path]).reshape(-1)).item() < 1e-5 * whole, path


@pytest.mark.parametrize(("architecture", "changed"), [("llama", ("mlp", "norm")), ("gemma3", ("mlp",))])
def test_every_such_layer_is_changed_and_all_are_put_back(architecture, changed, tmp_path):
    module = FastModel.from_pretrained(tiny_model_folder(tmp_path, architecture))[0].module
    before = {path: type(layer) for path, layer in module.named_modules()}
    with lean_activations(module, forms_for("cpu")):
        inside = {path for path, layer in module.named_modules() if type(layer) is not before[path]}
        assert inside == {path for path in before if path.endswith(changed)}
    assert {path: type(layer) for path, layer in module.named_modules()} == before


def test_a_step_keeps_an_eighth_less_than_the_plain_layers_do(tmp_path):
    model, _ = FastModel.from_pretrained(tiny_model_folder(tmp_path, num_hidden_layers=8, intermediate_size=1024))
    FastModel.get_peft_model(model, r=4)
    tokens = mx.arange(2 * 257).reshape(2, 257) % 300
    batch = {"tokens": tokens, "loss_mask": mx.ones(tokens.shape, mx.bool_)}

    plain = peak_bytes(lambda: gradients(model, batch))
    with lean_activations(model.module):
        assert peak_bytes(lambda: gradients(model, batch)) < 0.87 * plain
