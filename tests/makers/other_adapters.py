"""Adapters that other programs saved: PEFT under torch, and stock mlx-lm, with the logits those programs give them."""

import json

import mlx.core as mx
import pytest
from mlx_lm.tuner.utils import linear_to_lora_layers
from mlx_lm.utils import load_model

from tests.makers.arrays import in_numpy
from tunebook import FastModel
from tunebook.models.tensors import flat

TOKENS = [[5, 17, 99, 4, 250, 301, 7]]
WITH_NEW = [[5, 512, 99, 513, 7]]  # two tokens more than the tiny base has
Q_AND_UP = ["q_proj", "up_proj"]
LORA = {"rank": 4, "scale": 10.0, "dropout": 0.0}
Q_AND_V = {**LORA, "keys": ["self_attn.q_proj", "self_attn.v_proj"]}
FORMS = {
    "now": {"fine_tune_type": "lora", "num_layers": 2, "lora_parameters": Q_AND_V},
    "before 0.19": {"lora_layers": 2, "lora_parameters": {**Q_AND_V, "alpha": 16.0}, "use_dora": False},
    "no fine_tune_type": {"num_layers": 2, "lora_parameters": Q_AND_V},
    "more layers than there are": {"fine_tune_type": "lora", "num_layers": 16, "lora_parameters": Q_AND_V},
    "all layers": {"fine_tune_type": "lora", "num_layers": -1, "lora_parameters": Q_AND_V},
    "keys that name nothing": {"num_layers": 2, "lora_parameters": {**LORA, "keys": ["auto"]}},
    "its command line": {
        "num_layers": 2,
        "lora_parameters": Q_AND_V,
        "iters": 600,
        "optimizer": "adamw",
        "train": True,
    },
    "dora": {"fine_tune_type": "dora", "num_layers": 2, "lora_parameters": Q_AND_V},
    "dora of old": {"use_dora": True, "lora_layers": 2, "lora_parameters": Q_AND_V},
    "full": {"fine_tune_type": "full", "num_layers": 1, "lora_parameters": LORA},
    "full, null": {"fine_tune_type": "full", "num_layers": 1, "lora_parameters": None},
}


def of_peft(base, folder, *, longer=0, **settings):
    """(folder, logits) of adapters that PEFT made, moved by random numbers, saved and read back.

    With a vocabulary that is `longer`, the logits are those of WITH_NEW, before they were saved.
    """
    torch, peft = pytest.importorskip("torch"), pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    def plain():
        return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager")

    model = plain()
    if longer:
        model.resize_token_embeddings(model.config.vocab_size + longer, mean_resizing=False)
    config = {"r": 4, "lora_alpha": 8, "task_type": "CAUSAL_LM", "target_modules": Q_AND_UP, **settings}
    model = peft.get_peft_model(model, peft.LoraConfig(**config))
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad or "lora_" in name:
            parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    if settings.get("init_lora_weights") == "pissa_niter_4":
        return folder, None
    with torch.no_grad():
        if longer:
            return folder, model.eval()(torch.tensor(WITH_NEW)).logits.numpy()
        again = peft.PeftModel.from_pretrained(plain(), folder).eval()
        return folder, again(torch.tensor(TOKENS)).logits.numpy()


def of_mlx_lm(base, folder, settings, *, layers=2, file="adapters.safetensors", kind="lora"):
    """(folder, logits) of adapters as mlx-lm makes them, with these words in their settings."""
    module, _ = load_model(base)
    folder.mkdir()
    if kind == "full":
        tensors = {name: array for name, array in flat(module.parameters()).items() if "layers.1." in name}
    else:
        module.freeze()
        linear_to_lora_layers(module, layers, Q_AND_V, use_dora=kind == "dora")
        tensors = flat(module.trainable_parameters())
    mx.random.seed(4)
    tensors = {name: array + 0.1 * mx.random.normal(array.shape) for name, array in tensors.items()}
    module.load_weights(list(tensors.items()), strict=False)
    mx.save_safetensors(str(folder / file), tensors)
    (folder / "adapter_config.json").write_text(json.dumps({"model": str(base), **settings}))
    return folder, in_numpy(module.eval()(mx.array(TOKENS)))


def opened(folder):
    return in_numpy(FastModel.from_pretrained(folder)[0].module(mx.array(TOKENS)))


def rewritten(folder, **settings):
    """The folder, with settings of its adapter_config.json changed; those that are ... are taken out."""
    path = folder / "adapter_config.json"
    document = json.loads(path.read_text()) | settings
    path.write_text(json.dumps({name: value for name, value in document.items() if value is not ...}))
    return folder


def everything(module):
    """What must not change when adapters are refused: classes, numbers, what is trained, and who is in training."""
    parts = [(path, type(part), part.training) for path, part in module.named_modules()]
    arrays = {name: in_numpy(array).tobytes() for name, array in flat(module.parameters()).items()}
    return parts, arrays, sorted(flat(module.trainable_parameters()))
