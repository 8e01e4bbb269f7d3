"""Rules of tuning on images, each held against its own violation: tokens, batches, positions, numbers."""

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from PIL import Image

from tests.makers.arrays import in_numpy
from tests.makers.tiny_vision import asked, noise_images, tiny_vision_folder
from tests.memory.test_memory import ONE, measured
from tunebook import FastModel, TrainingConfig, memory
from tunebook.data.examples import Example, Text, Tokens
from tunebook.fast import attention
from tunebook.fast.attention import block_attention
from tunebook.fast.forms import FORMS, forms_for
from tunebook.machine import runtime
from tunebook.models.families import language_model
from tunebook.models.families.image_rows import ImageRows
from tunebook.models.families.placeholders import media_tokens
from tunebook.models.families.vision import VisionFamily
from tunebook.models.layers import layers_of
from tunebook.models.tensors import flat
from tunebook.objectives.next_token import summed_loss, supervised_positions
from tunebook.tokens.encoding import encode_rows
from tunebook.train.optim import decays

IDEFICS = ("smolvlm", "idefics3")


def encoded(model, *rows, **options):
    return encode_rows(list(rows), model.loaded, max_seq_length=200, **options).rows


def said(text, answer="a dog"):
    return {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]}


def states(model, rows, width):
    return model.family.hidden(model.module, model.family.collate(rows, width))


def gradients(model, batch):
    nats, found = nn.value_and_grad(model.module, summed_loss(model.family))(
        model.module, batch, supervised_positions(batch)
    )
    mx.eval(nats, found)
    return nats.item(), flat(found)


def test_a_token_of_pixels_that_is_typed_into_a_row_is_a_bad_row_and_shifts_no_image(vision):
    ids = sorted(vision.family.media.of_pixels)
    for name in vision.loaded.tokenizer.convert_ids_to_tokens(ids):
        rows = [
            asked(f"What {name}?", noise_images(1), "a dog"),
            said(f"Say {name}."),
            said("Say it.", f"a {name} dog"),
        ]
        for sound, row in [*((said("Say it."), row) for row in rows), ({"text": "a dog"}, {"text": f"a {name} and"})]:
            with pytest.raises(ValueError, match=r"1 of 2 rows of .* cannot be trained on \(rows? 1\b.*\)"):
                encoded(vision, sound, row)
    with pytest.raises(ValueError, match="token ids and speaks of images"):
        encoded(vision, {"input_ids": [20, ids[-1], 21]})


def test_a_token_of_pixels_that_only_the_config_knows_is_refused_by_the_family(vision_models):
    model = vision_models("gemma3")
    rows = ImageRows(model.loaded.tokenizer, model.family.processor, model.loaded.config)
    rows.media = replace(rows.media, of_pixels=frozenset({20}))
    family = VisionFamily(model.module, rows, model.loaded.config)
    text = Text(model.loaded.tokenizer.decode([20]), supervised=True)
    for part in (text, Tokens((21, 20), (True, True))):
        with pytest.raises(ValueError, match="stands for pixels, and brings none"):
            family.encode([Example(parts=(part,), rendered=True)])


def processor(*special, ordinary=(), **named):
    """What `media_tokens` asks of a processor."""
    ids = {name: number for number, name in enumerate((*special, *ordinary))}
    tokenizer = SimpleNamespace(
        get_vocab=lambda: ids,
        get_added_vocab=lambda: {name: ids[name] for name in special},
        all_special_tokens=[],
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        unk_token_id=ids.get("<unk_image>"),
    )
    return SimpleNamespace(tokenizer=tokenizer, **named)


@pytest.mark.parametrize(
    ("made", "placeholder", "inner"),
    [
        (processor("<image>"), "<image>", "<image>"),
        (processor("<|image_pad|>", "[IMG]"), "<|image_pad|>", "<|image_pad|>"),
        (processor("<|image|>", "<|image>", image_token="<|image|>", boi_token="<|image>"), "<|image|>", "<|image|>"),
        (
            processor("<image_soft_token>", "<boi>", image_token="<image_soft_token>", boi_token="<boi>"),
            "<boi>",
            "<image_soft_token>",
        ),
    ],
)
def test_the_placeholder_is_what_the_processor_says_or_the_first_that_is_registered(made, placeholder, inner):
    media = media_tokens(made, {})
    known = made.tokenizer.get_vocab()
    assert (media.placeholder, media.image_id) == (placeholder, known[inner])


def test_a_processor_whose_placeholder_is_an_ordinary_word_is_refused():
    for made in (processor("<s>"), processor("<s>", ordinary=["<image>"], image_token="<image>")):
        with pytest.raises(ValueError, match="does not say which token stands for an image"):
            media_tokens(made, {})


def test_delimiters_come_from_names_and_config_and_the_unknown_token_is_never_one_of_them():
    made = processor("<image>", "<row_1_col_2>", "<|vision_end|>", "<tile_1>", "<unk_image>", "</s>", "<begin>")
    media = media_tokens(made, {"boi_token_index": 6, "video_token_id": None})
    assert media.never_trained == {0, 1, 2, 3, 6}


def test_response_markers_never_train_a_token_of_images(vision):
    row = asked("What?", noise_images(1), "a dog")
    [plain], [marked] = encoded(vision, row), encoded(vision, row, response_markers=("user", "What"))
    assert marked.tokens.tolist() == plain.tokens.tolist()
    assert marked.loss_mask.sum() > plain.loss_mask.sum()
    assert not np.isin(marked.tokens[marked.loss_mask], list(vision.family.media.never_trained)).any()
    with pytest.raises(ValueError, match="an answer holds"):
        encoded(vision, row, response_markers=("What", "user"))


def test_a_prompt_that_is_trained_too_keeps_its_image_out(vision):
    row = {"prompt": "What is it?", "completion": "a dog", "images": noise_images(1)}
    [answer], [both] = encoded(vision, row), encoded(vision, row, train_on="everything")
    assert both.tokens.tolist() == answer.tokens.tolist()
    more = both.tokens[both.loss_mask & ~answer.loss_mask]
    assert "What is it?" in vision.loaded.tokenizer.decode(more.tolist())
    assert not np.isin(more, list(vision.family.media.never_trained)).any()


def test_a_tokenizer_without_eos_ends_no_text_and_pads_with_some_token(vision):
    tokenizer = vision.loaded.tokenizer
    inner, kept = tokenizer._tokenizer, (tokenizer.eos_token, tokenizer.pad_token)
    [with_eos] = encoded(vision, {"text": "a plain line"})
    inner.eos_token = inner.pad_token = None
    try:
        [row] = encoded(vision, {"text": "a plain line"})
        batch = vision.family.collate([row], 33)
    finally:
        inner.eos_token, inner.pad_token = kept
    assert row.tokens.tolist() == with_eos.tokens[:-1].tolist()
    assert not np.array(batch["attention_mask"])[0, len(row.tokens) :].any()


def test_a_tokenizer_of_text_without_eos_ends_no_text(model):
    [with_eos] = encoded(model, {"text": "a plain line"})
    assert with_eos.tokens[-1] == model.loaded.tokenizer.eos_token_id
    model.loaded.tokenizer._tokenizer.eos_token = None
    [row] = encoded(model, {"text": "a plain line"})
    assert row.tokens.tolist() == with_eos.tokens[:-1].tolist()


# Batches


def test_a_tokenizer_that_pads_on_the_left_changes_no_batch(vision):
    rows = encoded(vision, asked("What?", noise_images(1), "a dog"), said("Say it."))
    plain = vision.family.collate(rows, 65)
    inner = vision.loaded.tokenizer._tokenizer
    inner.padding_side = "left"
    try:
        other = vision.family.collate(rows, 65)
    finally:
        inner.padding_side = "right"
    assert plain.keys() == other.keys()
    assert all(mx.array_equal(plain[name], other[name]) for name in plain)
    lengths = np.array(plain["attention_mask"]).argmin(1)
    assert lengths.tolist() == [len(row.tokens) for row in rows]


def test_a_batch_of_text_alone_is_read_as_the_language_model_alone_reads_it(vision):
    rows = encoded(vision, said("Say it."), said("the lazy dog", "sleeps in the sun"))
    batch = vision.family.collate(rows, 65)
    assert not [name for name in batch if name not in ("tokens", "loss_mask", "attention_mask")]
    ours = vision.family.head(vision.module, vision.family.hidden(vision.module, batch))
    fresh, _ = FastModel.from_pretrained(vision.loaded.folder)  # it must not remember positions of an image
    alone = fresh.module["language_model"](batch["tokens"]).logits
    for row, here, there in zip(rows, ours, alone, strict=True):
        assert mx.allclose(here[: len(row.tokens)], there[: len(row.tokens)], atol=1e-5)


def test_a_row_may_end_in_its_image(vision):
    [row] = encoded(vision, asked("What?", noise_images(1), "a dog"))
    tokens = row.tokens[: row.images_end]
    cut = replace(row, tokens=tokens, loss_mask=row.loss_mask[: row.images_end])
    whole, ends = states(vision, [row], len(row.tokens) + 1)[0], states(vision, [cut], len(tokens) + 1)[0]
    assert mx.allclose(whole[: len(tokens)], ends, atol=1e-4)


def test_the_loss_is_that_of_each_trained_token_from_the_state_before_it(vision):
    rows = encoded(vision, asked("What?", noise_images(1), "a dog"), said("Say it.", "the lazy dog sleeps"))
    batch = vision.family.collate(rows, 65)
    logits = in_numpy(vision.family.head(vision.module, vision.family.hidden(vision.module, batch))).astype(np.float64)
    by_hand = 0.0
    for row, found in zip(rows, logits, strict=True):
        for place in np.flatnonzero(row.loss_mask):
            scores = found[place - 1]
            by_hand += np.log(np.exp(scores).sum()) - scores[row.tokens[place]]
    nats = summed_loss(vision.family)(vision.module, batch, supervised_positions(batch))
    assert nats.item() == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize("family", IDEFICS)
def test_an_image_of_zeros_is_an_image_and_no_padding(family, vision_models):
    model = vision_models(family)
    settings = model.family.processor.image_processor
    mean, settings.image_mean = settings.image_mean, [0.0, 0.0, 0.0]
    try:
        black = Image.new("RGB", (40, 40))
        rows = encoded(model, asked("What?", [black], "a dog"), asked("And?", [*noise_images(1), black], "two"))
        found = states(model, rows, 65)
        batch = model.family.collate(rows, 65)
        alone = states(model, rows[:1], len(rows[0].tokens) + 1)[0]
    finally:
        settings.image_mean = mean
    assert mx.isfinite(found).all()
    assert mx.abs(batch["pixel_values"][0, 1]).max().item() == 0  # what is padding stays so
    assert mx.allclose(alone, found[0, : len(rows[0].tokens)], atol=1e-4)
    # A canary: called with the zeros themselves, the model misses an image.
    batch["pixel_values"] = mx.where(mx.abs(batch["pixel_values"]) < 1e-5, 0, batch["pixel_values"])
    with pytest.raises(ValueError, match="do not match"):
        language_model.features(model.module, batch)


def test_canary_a_surplus_placeholder_still_vanishes_in_the_processor_of_qwen3_vl(vision_models):
    made = vision_models("qwen3_vl").family.processor(
        text=["<|image_pad|> and <|image_pad|>"], images=[noise_images(1)]
    )
    one = vision_models("qwen3_vl").family.processor(text=["<|image_pad|> and "], images=[noise_images(1)])
    count = [(np.array(some["input_ids"]) == 5).sum() for some in (made, one)]
    assert count[0] == count[1]


def test_canary_a_processor_told_to_truncate_still_cuts_placeholders_and_keeps_pixels(vision_models):
    processor = vision_models("smolvlm").family.processor
    whole, cut = (
        processor(text=["<image>"], images=[noise_images(1)], add_special_tokens=False, **options)
        for options in ({}, {"truncation": True, "max_length": 3})
    )
    assert (np.array(cut["input_ids"]) == 5).sum() < (np.array(whole["input_ids"]) == 5).sum()
    assert cut["pixel_values"].shape == whole["pixel_values"].shape


# Numbers


def test_embeddings_with_images_and_norms_in_float32_keep_a_bfloat16_model_in_bfloat16(vision):
    model, _ = FastModel.from_pretrained(vision.loaded.folder, dtype="bfloat16", full_finetuning=True)
    batch = model.family.collate(encoded(model, asked("What?", noise_images(1), "a dog")), 65)
    assert language_model.features(model.module, batch)["inputs_embeds"].dtype == mx.bfloat16
    assert model.family.hidden(model.module, batch).dtype == mx.bfloat16
    kinds = {name: array.dtype for name, array in flat(model.module.parameters()).items()}
    norms = {name for name in kinds if "norm" in name or ".ln_" in name}
    assert any(not name.startswith("language_model") for name in norms)
    assert {kinds[name] for name in norms} == {mx.float32}
    assert {kinds[name] for name in kinds.keys() - norms} == {mx.bfloat16}


def test_no_norm_and_no_bias_of_the_vision_tower_decays(vision):
    arrays = flat(vision.module.parameters())
    left_out = {name for name in arrays if not decays(name)}
    assert {name for name in arrays if name.endswith("bias") or "norm" in name or ".ln_" in name} == left_out
    assert any(not name.startswith("language_model") for name in left_out)


@pytest.mark.parametrize("recomputed", [False, True])
def test_a_model_in_blocks_has_the_loss_and_gradients_of_the_plain_one(vision, recomputed, monkeypatch):
    usual = forms_for()
    in_blocks = "blocks" if usual.attention == "whole" else usual.attention  # where MLX does it, a GPU has no blocks
    monkeypatch.setitem(FORMS, runtime.backend(), replace(usual, attention=in_blocks, attention_rows=16))
    model, _ = FastModel.from_pretrained(vision.loaded.folder)
    FastModel.get_peft_model(model, r=2, finetune_vision_layers=True)
    rows = encoded(model, asked("What is it?", noise_images(1), "a dog"), said("Say it.", "the lazy dog sleeps"))
    taken: list[Any] = []
    enough = 1e-6 if model.loaded.dtype == mx.float32 else 0.002
    blocks = attention.attention_in_blocks
    monkeypatch.setattr(
        attention, "attention_in_blocks", lambda *args, **options: taken.append(args) or blocks(*args, **options)
    )
    for some in (rows, rows[1:]):
        batch = model.family.collate(some, 65)
        nats, plain = gradients(model, batch)
        with block_attention(model.module, recomputed=recomputed):
            kinds = [name for name, part in model.module.named_modules() if type(part).__bases__ != (nn.Module,)]
            changed = {name for name in kinds if name.endswith("self_attn")}
            found, ours = gradients(model, batch)
        assert len(changed) == len(layers_of(model.module))
        assert found == pytest.approx(nats, rel=enough)
        for name, gradient in ours.items():
            distance = mx.linalg.norm((gradient - plain[name]).reshape(-1))
            assert distance <= 10 * enough * mx.linalg.norm(plain[name].reshape(-1)) + enough, name
    assert taken


def with_a_large_vision_tower(folder):
    """A SmolVLM whose vision tower looks at 256 patches and keeps more than its language model does."""
    tower = {"hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 4, "image_size": 112}
    config = json.loads((tiny_vision_folder(folder, "smolvlm", width=64) / "config.json").read_text())
    tiny_vision_folder(folder, "smolvlm", width=64, vision_config=config["vision_config"] | tower)
    for name, changes in (
        ("preprocessor_config.json", {"size": {"longest_edge": 112}, "max_image_size": {"longest_edge": 112}}),
        ("processor_config.json", {"image_seq_len": 64}),
    ):
        settings = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(settings | changes))
    return folder


@pytest.mark.parametrize("family", ["gemma3", "smolvlm"])
@pytest.mark.parametrize("trained", ["language", "vision tower too"])
@pytest.mark.cpu("a GPU's forms are measured in the CPU build's stand-ins for its kernels, which hold other arrays")
def test_the_estimate_of_memory_is_within_a_fifth_of_the_measured_peak(family, trained, tmp_path):
    folder = (
        with_a_large_vision_tower(tmp_path) if family == "smolvlm" else tiny_vision_folder(tmp_path, family, width=64)
    )
    model, _ = FastModel.from_pretrained(folder)
    FastModel.get_peft_model(model, r=16, finetune_vision_layers=trained == "vision tower too")
    row = asked("the lazy dog sleeps in the sun " * 12, noise_images(3, size=(112, 112)), "a brown fox " * 8)
    rows = list(encode_rows([row] * 2, model.loaded, max_seq_length=600).rows)
    estimate = memory.estimate(model, TrainingConfig(**ONE), rows=rows)
    assert estimate.total == pytest.approx(measured(cast("Any", model), TrainingConfig(**ONE), rows), rel=0.2), estimate
    assert estimate.images > 0  # their pixels are kept at least
    assert (estimate.reading > 0) is (trained == "language")
