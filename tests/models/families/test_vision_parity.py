"""The same tiny weights in transformers under torch, as its version 5 saves them: logits, loss, gradients, and names
that PEFT finds.
"""

import json
import shutil
from pathlib import Path

import mlx.nn as nn
import numpy as np
import pytest

from tests.makers.tiny_vision import FAMILIES, asked, noise_images, tiny_vision_folder
from tunebook import FastModel
from tunebook.models.adapters import adapter_paths
from tunebook.models.saved_adapters.peft_format import moved
from tunebook.models.tensors import flat
from tunebook.objectives.next_token import summed_loss, supervised_positions
from tunebook.tokens.encoding import encode_rows

torch = pytest.importorskip("torch")

# Activations of the Qwen towers are approximated otherwise in mlx-vlm; the rest is rounding.
PARITY = {"smolvlm": 1e-4, "idefics3": 1e-4, "qwen2_vl": 1e-2, "qwen2_5_vl": 1e-2, "gemma3": 1e-3, "qwen3_vl": 1e-2}


def their_config(folder: Path, family: str):
    """The config as transformers 5 wants it."""
    from transformers import AutoConfig

    config = json.loads((folder / "config.json").read_text())
    if family.startswith("qwen"):
        rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 1e6}
        config["text_config"] |= {"rope_parameters": rope, "rope_scaling": rope}
        (folder / "config.json").write_text(json.dumps(config))
    return AutoConfig.from_pretrained(folder)


def twins(root: Path, family: str):
    """(their module, our model) of the same random weights, which transformers wrote."""
    from transformers import AutoModelForImageTextToText

    made = tiny_vision_folder(root / "made", family)
    module = AutoModelForImageTextToText.from_config(their_config(made, family), attn_implementation="eager").eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for name, array in module.named_parameters():
            is_norm = name.endswith("weight") and "norm" in name and not ("language" in name and family == "gemma3")
            spread = 0.1 if array.ndim < 2 else array.shape[-1] ** -0.5
            array.copy_(torch.randn_like(array) * spread + float(is_norm and "soft_emb" not in name))
    folder = root / "theirs"
    module.save_pretrained(folder)
    for file in made.iterdir():
        if file.name not in ("model.safetensors", "config.json"):
            shutil.copy(file, folder / file.name)
    return module, FastModel.from_pretrained(folder, full_finetuning=True)[0]


def called(module, model, batch):
    """Their logits (B, T, V) for our batch."""
    tokens = torch.tensor(np.array(batch["tokens"]).astype(np.int64))
    is_image = (tokens == model.family.media.image_id).long()
    skipped = ("tokens", "loss_mask", "attention_mask")
    given = {name: torch.tensor(np.array(array)) for name, array in batch.items() if name not in skipped}
    given |= {"token_type_ids": is_image} if model.loaded.config["model_type"] == "gemma3" else {}
    given |= {"mm_token_type_ids": is_image} if model.loaded.config["model_type"].startswith("qwen") else {}
    mask = torch.tensor(np.array(batch["attention_mask"]).astype(np.int64))
    return module(input_ids=tokens, attention_mask=mask, **given).logits


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("family", PARITY)
@pytest.mark.float32
def test_logits_loss_and_gradients_are_those_of_transformers(family, tmp_path):
    module, model = twins(tmp_path, family)
    wide, tall = noise_images(2, size=(90, 60))[1], noise_images(3, size=(56, 84))[2]
    rows = [
        asked("What is it?", noise_images(1, size=(60, 60)), "a dog"),
        asked("And these?", [wide, tall], "two dogs"),
    ]
    encoded = encode_rows(rows, model.loaded, max_seq_length=200).rows
    width = max(len(row.tokens) for row in encoded)
    batch = model.family.collate(encoded, width)
    logits = called(module, model, batch)
    ours = np.array(model.family.head(model.module, model.family.hidden(model.module, batch)))
    for row, here, there in zip(encoded, ours, logits.detach().numpy(), strict=True):
        length = len(row.tokens) - 1
        assert np.abs(here[:length] - there[:length]).max() < PARITY[family]

    positions = supervised_positions(batch)
    nats, gradients = nn.value_and_grad(model.module, summed_loss(model.family))(model.module, batch, positions)
    targets = torch.tensor(np.array(batch["tokens"])[:, 1:].astype(np.int64))
    trained = torch.tensor(np.array(batch["loss_mask"])[:, 1:])
    loss = torch.nn.functional.cross_entropy(logits[:, :-1][trained], targets[trained])
    loss.backward()
    count = positions.size
    assert nats.item() / count == pytest.approx(loss.item(), abs=1e-4 if PARITY[family] < 1e-3 else 1e-3)
    theirs = torch.sqrt(sum((p.grad**2).sum() for p in module.parameters() if p.grad is not None)).item()
    mine = np.sqrt(sum(float((array**2).sum().item()) for array in flat(gradients).values())) / count
    assert mine == pytest.approx(theirs, rel=0.01)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("family", FAMILIES)
def test_every_adapter_has_a_name_that_transformers_knows(family, tmp_path):
    from transformers import AutoModelForImageTextToText

    folder = tiny_vision_folder(tmp_path, family)
    model, _ = FastModel.from_pretrained(folder)
    FastModel.get_peft_model(model, r=2, finetune_vision_layers=True)
    with torch.device("meta"):
        module = AutoModelForImageTextToText.from_config(their_config(folder, family))
    there = {name for name, _ in module.named_modules()}
    lost = [path for path in adapter_paths(model.module) if moved(path, model.family.transformers_names) not in there]
    assert not lost
