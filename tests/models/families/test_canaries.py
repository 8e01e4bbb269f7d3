"""Canaries: what mlx-vlm 0.7.10 does wrong when it is called the obvious way. One that fails means it was mended."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import mlx.core as mx
import numpy as np
import pytest
from mlx_vlm.models.llava.llava import Model as Llava

from tests.makers.tiny_vision import asked, noise_images, tiny_vision_folder
from tests.models.families.encoded_rows import encoded
from tunebook import FastModel
from tunebook.models.families import language_model


@pytest.mark.parametrize("family", ["gemma3", "smolvlm", "idefics3"])
def test_canary_the_padding_mask_still_takes_the_place_of_the_causal_one(family, vision_models, image_rows):
    model = vision_models(family)
    row = encoded(model, image_rows)[0]
    other = row.tokens.copy()
    other[-2] = other[2]
    logits = []
    for tokens in (row.tokens, other):
        batch = model.family.collate([replace(row, tokens=tokens)], len(tokens))
        extras = {name: array for name, array in batch.items() if name not in language_model.OURS}
        made = model.module(batch["tokens"], batch["pixel_values"], mask=batch["attention_mask"], **extras)
        logits.append(made.logits[0, : len(tokens) - 2])
    assert mx.abs(logits[0] - logits[1]).max().item() > 0.1


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl"])
def test_canary_positions_of_an_image_are_still_used_for_the_next_text(family, tmp_path, image_rows):
    model, _ = FastModel.from_pretrained(tiny_vision_folder(tmp_path, family))
    image, text = encoded(model, [asked("What is it?", noise_images(1, size=(60, 60)), "a dog"), image_rows[2]])
    # A text as long as the image's row, so that the remembered positions fit.
    text = replace(text, tokens=np.resize(text.tokens, len(image.tokens)), loss_mask=image.loss_mask)
    batch = model.family.collate([image], len(image.tokens))
    extras = {name: array for name, array in batch.items() if name not in language_model.OURS}
    tokens = mx.array(text.tokens)[None]
    before = model.module(tokens).logits
    mx.eval(before, model.module(batch["tokens"], pixel_values=batch["pixel_values"], **extras).logits)
    assert mx.abs(before - model.module(tokens).logits).max().item() > 1e-3


def test_canary_qwen_processors_still_leave_an_image_out_without_a_word(vision_models):
    processor = vision_models("qwen2_vl").family.processor
    made = processor(text=["<|image_pad|>"], images=[noise_images(2, size=(60, 60))])
    assert (np.array(made["input_ids"]) == 5).sum() * 4 < np.array(made["pixel_values"]).shape[0]


def test_canary_llava_still_gives_the_first_row_of_a_batch_the_second_rows_image():
    # Called on the method alone: its processor needs torchvision. `check.batches` refuses the family for this.
    holder = SimpleNamespace(config=SimpleNamespace(image_token_index=5))
    tokens = mx.array([[7, 5, 8], [9, 5, 7]])
    images_seen = mx.stack([mx.full((1, 4), 1.0), mx.full((1, 4), 2.0)])  # (2, 1, 4): all ones, all twos
    merge = Llava._merge_input_ids_with_image_features
    embedded = merge(cast("Any", holder), images_seen, mx.zeros((2, 3, 4)), tokens)
    assert embedded[:, 1, 0].tolist() == [2.0, 2.0]
