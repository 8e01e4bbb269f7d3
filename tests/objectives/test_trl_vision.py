"""Preferences with images against TRL under torch: its collator with transformers' own processors, its losses, the same
tiny weights. One family cuts its images into fixed patches, one into a grid of the image's own size.
"""

from types import SimpleNamespace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import torch
from mlx.utils import tree_map_with_path

from tests.makers.tiny_vision import QWEN_TEMPLATE, SMOL_TEMPLATE, noise_images
from tests.models.families.test_vision_parity import twins
from tests.objectives import trl_judge
from tunebook import FastModel
from tunebook.data.opened import ReadingOptions, opened
from tunebook.models.saved_adapters.peft_format import moved
from tunebook.models.tensors import flat
from tunebook.objectives import CPO, DPO, KTO, ORPO
from tunebook.objectives.reference import Reference, with_what_is_known
from tunebook.parity.references import torch_model, trl_losses
from tunebook.tokens.collation import collated
from tunebook.tokens.encoding import encode

pytestmark = [pytest.mark.float32, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

TARGETS = ("q_proj", "v_proj", "down_proj")
SMALL, WIDE, TALL = (noise_images(4, size=size)[n] for n, size in enumerate([(40, 40), (90, 60), (56, 84)]))


def said(role, content):
    return {"role": role, "content": content}


def seen(text):
    return {"type": "text", "text": text}


IMAGE = {"type": "image"}
PAIRS = [
    {
        "images": [SMALL],
        "prompt": [said("user", "What is it?")],
        "chosen": [said("assistant", "a dog")],
        "rejected": [said("assistant", "the quick brown fox and the lazy dog")],
    },
    {
        "images": [WIDE, TALL],
        "prompt": [said("user", [seen("This "), IMAGE, seen(" or "), IMAGE])],
        "chosen": [said("assistant", "the second of these two, I say")],
        "rejected": [said("assistant", "no")],
    },
    {
        "images": [TALL],
        "prompt": [said("user", "And?"), said("assistant", "A fox."), said("user", "Why?")],
        "chosen": [said("assistant", "its ears")],
        "rejected": [said("assistant", "its tune")],
    },
]
JUDGED = [
    {"images": row["images"], "prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
    for row, side in zip(PAIRS, ("chosen", "rejected", "chosen"), strict=True)
]


def processor_of(folder, family):
    """The one transformers has itself; mlx-vlm puts its own in the place of AutoProcessor's."""
    from transformers import AutoTokenizer
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
    from transformers.models.idefics3.processing_idefics3 import Idefics3Processor
    from transformers.models.qwen2_5_vl.processing_qwen2_5_vl import Qwen2_5_VLProcessor
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    class WithoutVideos(Qwen2_5_VLProcessor):
        """Videos need torchvision."""

        def check_argument_for_proper_class(self, argument_name, argument):
            return type(argument)

    tokenizer = AutoTokenizer.from_pretrained(folder)
    if family == "idefics3":
        images = Idefics3ImageProcessorPil.from_pretrained(folder)
        return Idefics3Processor(images, tokenizer, image_seq_len=4, chat_template=SMOL_TEMPLATE)
    return WithoutVideos(Qwen2VLImageProcessorPil.from_pretrained(folder), tokenizer, chat_template=QWEN_TEMPLATE)


@pytest.fixture(scope="module", params=["idefics3", "qwen2_5_vl"])
def both(request, tmp_path_factory):
    """Our model and the reference it began with, theirs of the same weights and adapters, and their processor."""
    import peft

    family = request.param
    base, whole = twins(tmp_path_factory.mktemp("both") / family, family)
    folder = whole.loaded.folder
    model, _ = FastModel.from_pretrained(folder)
    FastModel.get_peft_model(model, r=4, lora_alpha=8, target_modules=list(TARGETS))
    reference = Reference(model.module, DPO())
    reference.settle()
    mx.random.seed(5)
    model.module.update(
        tree_map_with_path(
            lambda path, value: mx.random.normal(value.shape) * 0.05 if path.endswith("lora_b") else value,
            model.module.trainable_parameters(),
        )
    )
    layers = rf".*(language|text)_model.*\.({'|'.join(TARGETS)})"
    with torch_model.quiet():
        theirs = peft.get_peft_model(base, peft.LoraConfig(r=4, lora_alpha=8, target_modules=layers)).eval()
    theirs = trl_losses.with_head(theirs)
    torch_model.put(theirs, {name_of(model, name): np.array(value) for name, value in trained(model)})
    return model, reference, theirs, processor_of(folder, family)


def trained(model):
    return flat(model.module.trainable_parameters()).items()


def name_of(model, name):
    """The name transformers has for one of our parameters."""
    return moved(name, model.family.transformers_names)


def our_batch(model, rows, kind):
    encoded = encode(opened(rows, ReadingOptions(answers=kind)), model.loaded, max_seq_length=400)
    return collated(model.family, encoded.rows, 400)[0]


def rows_of(batch, prefix=""):
    """(ids, answer) of each row of theirs, without padding."""
    names = (prefix + name for name in ("input_ids", "attention_mask", "completion_mask"))
    return [
        (ids[mask == 1].tolist(), answer[mask == 1].tolist())
        for ids, mask, answer in zip(*(batch[name].numpy() for name in names), strict=True)
    ]


def our_rows(batch):
    tokens, masks, real = (np.array(batch[name]) for name in ("tokens", "loss_mask", "attention_mask"))
    return [
        (ids[is_real == 1].tolist(), mask[is_real == 1].astype(int).tolist())
        for ids, mask, is_real in zip(tokens, masks, real, strict=True)
    ]


def assert_step_is(model, theirs, ours, loss, metrics):
    """Loss, metrics and every gradient; `ours` are (objective, batch)."""
    objective, batch = ours
    model.module.eval()
    step = nn.value_and_grad(model.module, objective.summed(model.family))
    (total, sums), gradients = step(model.module, batch, objective.positions(batch))
    units = objective.units(batch)
    assert total.item() / units == pytest.approx(loss.item(), rel=1e-5, abs=1e-6)
    here = objective.metrics(sums)
    assert here == pytest.approx({name: metrics[name] for name in here}, rel=1e-4, abs=1e-4)
    theirs.zero_grad()
    loss.backward()
    parameters = torch_model.adapters(theirs)
    assert len(parameters) == len(list(trained(model)))
    for name, gradient in flat(gradients).items():
        there = parameters[name_of(model, name)].grad.numpy().T
        np.testing.assert_allclose(
            np.array(gradient) / units, there, atol=2e-5 * np.abs(there).max() + 1e-9, err_msg=name
        )


@pytest.mark.parametrize("objective", [DPO(), DPO(loss_type="ipo", ld_alpha=0.5)], ids=["DPO", "IPO"])
def test_pairs_with_images_are_trls_ids_log_probabilities_loss_and_gradients(both, objective):
    from trl.trainer.dpo_trainer import DataCollatorForVisionPreference

    model, reference, theirs, processor = both
    inputs = DataCollatorForVisionPreference(processor)([dict(row) for row in PAIRS])
    batch = our_batch(model, PAIRS, "pairs")
    assert our_rows(batch) == rows_of(inputs)
    trainer = trl_losses.trainer_for(objective, theirs, False)
    batch = with_what_is_known(objective, batch, model.family, model.module, reference)
    with torch_model.quiet():
        halves = trainer.compute_ref_log_probs(theirs, inputs)
        loss = trainer._compute_loss(theirs, inputs, False)
    np.testing.assert_allclose(batch["reference_logps"], torch.cat(halves).numpy(), rtol=1e-5, atol=1e-5)
    assert_step_is(model, theirs, (objective, batch), loss, trl_losses.logged(trainer))


def test_judged_answers_with_images_and_their_kl_are_trls(both):
    from trl.trainer.kto_trainer import DataCollatorForVisionUnpairedPreference

    model, reference, theirs, processor = both
    objective = KTO(desirable_weight=1.5)
    inputs = DataCollatorForVisionUnpairedPreference(processor)([dict(row) for row in JUDGED])
    batch = our_batch(model, JUDGED, "labelled")
    assert our_rows(batch) == rows_of(inputs)
    assert our_rows(batch["mismatched"]) == rows_of(inputs, "KL_")
    trainer = trl_losses.trainer_for(objective, theirs, False)
    with torch_model.quiet():
        loss = trainer._compute_loss(theirs, inputs, False)
    batch = with_what_is_known(objective, batch, model.family, model.module, reference)
    assert_step_is(model, theirs, (objective, batch), loss, trl_losses.logged(trainer))


@pytest.mark.parametrize("objective", [ORPO(), CPO()], ids=["ORPO", "CPO"])
def test_what_asks_no_reference_is_measured_from_the_log_probabilities_of_transformers(both, objective):
    """TRL has no ORPO and no CPO with images: theirs is its arithmetic on logits of transformers' model."""
    from trl.trainer.dpo_trainer import DataCollatorForVisionPreference

    model, _, theirs, processor = both
    inputs = DataCollatorForVisionPreference(processor)([dict(row) for row in PAIRS])
    batch = our_batch(model, PAIRS, "pairs")
    made = {name: np.array(batch[name]) for name in ("tokens", "loss_mask", "lengths")}
    trainer, sides = trl_judge.reference_free(objective, made)
    pixels = {
        name: inputs[name] for name in inputs if name in ("pixel_values", "pixel_attention_mask", "image_grid_thw")
    }

    def with_images(input_ids, attention_mask, **_):
        kinds = (input_ids == model.family.media.image_id).long()
        given = {"mm_token_type_ids": kinds} if "mm_token_type_ids" in inputs else {}
        return SimpleNamespace(
            logits=theirs(input_ids=input_ids, attention_mask=attention_mask, **pixels, **given).logits
        )

    loss, metrics = trainer.get_batch_loss_metrics(with_images, sides)
    assert_step_is(model, theirs, (objective, batch), loss, metrics)
