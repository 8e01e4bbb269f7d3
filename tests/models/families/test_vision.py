"""families/vision.py: no state sees what it must not, gradients are true, and answers are the likeliest tokens."""

import json
from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx_vlm.utils import load as load_stock

from tests.makers.tiny_vision import asked, noise_images, tiny_vision_folder
from tests.models.families.encoded_rows import WIDTH, encoded, states
from tunebook import FastModel
from tunebook.fast.forms import forms_for
from tunebook.models.families import language_model
from tunebook.models.families.batched import greedy
from tunebook.models.families.image_mask import image_mask
from tunebook.models.generation import as_prompt
from tunebook.models.neftune import token_embedding
from tunebook.models.tensors import flat
from tunebook.objectives.next_token import summed_loss, supervised_positions
from tunebook.train.packing_check import why_not_packed
from tunebook.train.passes.compiled import CompiledPass


def test_no_state_sees_a_later_token(vision, image_rows):
    row = encoded(vision, image_rows)[1]
    first = len(row.tokens) - 3
    other = np.append(row.tokens[:first], (row.tokens[first:] + 20) % 100 + 20).astype(np.int32)
    one, changed = (states(vision, [some])[0] for some in (row, replace(row, tokens=other)))
    assert mx.array_equal(one[:first], changed[:first])
    assert not mx.allclose(one[first], changed[first], atol=1e-3)


def test_a_row_in_a_mixed_batch_is_the_row_alone(vision, image_rows):
    rows = encoded(vision, image_rows)
    together = states(vision, rows)
    for row, found in zip(rows, together, strict=True):
        length = len(row.tokens)
        assert mx.allclose(states(vision, [row], length + 1)[0], found[:length], atol=1e-4)


def test_a_text_has_the_states_it_had_before_an_image_was_seen(vision, image_rows):
    _, image, text = encoded(vision, image_rows)
    before = states(vision, [text])
    mx.eval(before, states(vision, [image]))
    assert mx.array_equal(before, states(vision, [text]))


def test_states_change_with_the_image_and_not_before_it(vision, image_rows):
    row = encoded(vision, image_rows)[0]
    other = replace(row, images=encoded(vision, [asked("What is it?", [noise_images(2)[1]], "a dog")])[0].images)
    one, changed = (states(vision, [some])[0] for some in (row, other))
    first = int(np.argmax(row.tokens == vision.family.media.image_id))
    assert mx.array_equal(one[:first], changed[:first])
    assert mx.abs(one[row.images_end :] - changed[row.images_end :]).max().item() > 1e-3


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "smolvlm", "idefics3"])
@pytest.mark.float32
def test_states_and_head_give_the_logits_of_the_stock_model_where_its_own_call_is_causal(
    family, vision_models, image_rows
):
    model = vision_models(family)
    batch = model.family.collate(encoded(model, image_rows[:1]), 40)
    stock, _ = load_stock(str(model.loaded.folder))
    extras = {name: array for name, array in batch.items() if name not in language_model.OURS}
    theirs = stock(batch["tokens"], pixel_values=batch["pixel_values"], mask=None, **extras).logits
    length = int(batch["attention_mask"].sum().item())
    ours = model.family.head(model.module, model.family.hidden(model.module, batch))
    assert mx.allclose(ours[:, : length - 1], theirs[:, : length - 1], atol=1e-5)


def test_tokens_of_one_image_see_one_another_and_all_else_is_causal_within_the_window():
    is_image = np.array([[0, 1, 1, 1, 0, 0, 1, 1, 0, 0], [0] * 10], dtype=bool)
    image = np.array([[0, 1, 1, 1, 0, 0, 2, 2, 0, 0], [0] * 10])
    for window in (None, 3):
        expected = np.zeros((2, 1, 10, 10), dtype=bool)
        for row, query, key in np.ndindex(2, 10, 10):
            near = window is None or query - key < window
            same = image[row, query] == image[row, key] > 0
            expected[row, 0, query, key] = (key <= query and near) or same
        assert np.array_equal(np.array(image_mask(mx.array(is_image), window)), expected)


def test_layers_with_a_window_keep_it_behind_an_image(vision_models, image_rows):
    model = vision_models("gemma3")
    row = encoded(model, [asked("the lazy dog sleeps in the sun " * 3, noise_images(1), "a dog")])[0]
    assert len(row.tokens) > 24 + row.images_end  # the window of its first layer
    layer = model.module.layers[0]
    heard = []

    def listening(plain):
        return lambda layer, x, mask, cache: heard.append(mask) or plain(layer, x, mask, cache)

    with language_model.replaced_calls([layer], listening):
        states(model, [row], len(row.tokens) + 1)
    sees = np.array(heard[0])[0, 0]
    assert not sees[-1, : len(row.tokens) - 24].any()
    assert sees[-1, -24:].all()


def test_what_a_gemma_config_leaves_out_is_put_right(tmp_path, image_rows):
    folder = tiny_vision_folder(tmp_path / "gemma", "gemma3")
    config = json.loads((folder / "config.json").read_text())
    del config["hidden_size"]
    (folder / "config.json").write_text(json.dumps(config))
    model, tokenizer = FastModel.from_pretrained(folder)
    assert load_stock(str(folder))[0].config.hidden_size == 2048  # a canary: this would be the scale of the images
    assert model.module.config.hidden_size == 32
    model.save_pretrained_merged(tmp_path / "merged")
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["hidden_size"] == 32
    [row] = encoded(model, image_rows[:1])
    row = replace(row, tokens=np.append(row.tokens, tokenizer.pad_token_id).astype(np.int32), loss_mask=None)
    row = replace(row, loss_mask=np.zeros(len(row.tokens), dtype=bool))
    made = language_model.features(model.module, model.family.collate([row], len(row.tokens)))["inputs_embeds"]
    assert mx.abs(made[0, -1]).max().item() > 0  # a padding token that is part of the text has its embedding


def test_a_head_that_does_more_than_project_is_called_with_the_whole_model(tmp_path, monkeypatch, image_rows):
    from mlx_vlm.models.idefics3.language import LanguageModel

    plain = LanguageModel.__call__

    def capped(self, *args, **options):
        made = plain(self, *args, **options)
        made.logits = mx.tanh(made.logits)
        return made

    monkeypatch.setattr(LanguageModel, "__call__", capped)
    model, _ = FastModel.from_pretrained(tiny_vision_folder(tmp_path, "idefics3"))
    batch = model.family.collate(encoded(model, image_rows), WIDTH)
    logits = model.family.head(model.module, model.family.hidden(model.module, batch))
    assert logits.shape == (3, WIDTH - 1, 400)
    assert mx.abs(logits).max().item() <= 1.0


@pytest.mark.float32
def test_gradients_agree_with_finite_differences(vision, image_rows, tmp_path):
    model, _ = FastModel.from_pretrained(vision.loaded.folder, full_finetuning=True)
    batch = model.family.collate(encoded(model, image_rows), WIDTH)
    positions, nats = supervised_positions(batch), summed_loss(model.family)
    _, found = nn.value_and_grad(model.module, nats)(model.module, batch, positions)
    gradients = flat(found)
    names = sorted(gradients)[:: max(1, len(gradients) // 10)]
    assert any(not name.startswith("language_model") for name in names)
    for name in names:
        size = mx.linalg.norm(gradients[name].reshape(-1)).item()
        if size < 1e-4:  # such as the bias of keys, which no softmax notices
            continue
        weight, step = flat(model.module.parameters())[name], gradients[name] * (2e-3 / size)

        def at(value, name=name):
            model.module.load_weights([(name, value)], strict=False)
            return nats(model.module, batch, positions).item()

        derivative = (at(weight + step) - at(weight - step)) / 4e-3
        at(weight)
        assert derivative == pytest.approx(size, rel=0.02, abs=0.01), name


@pytest.mark.parametrize("family", ["qwen2_vl", "gemma3"])  # a tied head, and one of its own
def test_the_loss_by_pieces_has_the_value_and_gradients_of_the_plain_one(
    family, vision_models, image_rows, monkeypatch
):
    model, _ = FastModel.from_pretrained(vision_models(family).loaded.folder, full_finetuning=True)
    batch = model.family.collate(encoded(model, image_rows), WIDTH)
    positions = supervised_positions(batch)
    nats, gradients = nn.value_and_grad(model.module, summed_loss(model.family))(model.module, batch, positions)
    few = replace(forms_for(), logit_bytes=1, logit_rows=8)
    in_pieces, theirs = nn.value_and_grad(model.module, summed_loss(model.family, few))(model.module, batch, positions)
    enough = 1e-5 if model.loaded.dtype == mx.float32 else 0.02
    assert in_pieces.item() == pytest.approx(nats.item(), rel=enough)
    for name, gradient in flat(gradients).items():
        assert mx.allclose(gradient, flat(theirs)[name], rtol=100 * enough, atol=100 * enough), name


def test_noise_is_put_on_the_embeddings_of_text_and_not_of_images(vision):
    language_model = vision.module["language_model"]
    inside = language_model.get("model", language_model)
    assert token_embedding(vision.module) is inside["embed_tokens"]


def test_packing_is_refused_with_a_reason(vision_models):
    model = vision_models("qwen2_vl")
    assert "not packed" in why_not_packed(model.family, model.module, max_seq_length=64)


@pytest.mark.parametrize("family", ["qwen3_vl", "gemma3"])
def test_a_pass_compiled_for_a_batch_has_the_loss_and_gradients_of_the_plain_one(family, vision_models, image_rows):
    model, _ = FastModel.from_pretrained(vision_models(family).loaded.folder)
    FastModel.get_peft_model(model, r=2, finetune_vision_layers=True)
    step = nn.value_and_grad(model.module, summed_loss(model.family))
    compiled = CompiledPass(model.module, step, set())
    for rows in (image_rows, image_rows[1:], image_rows[2:]):  # another number of images each time; none
        batch = model.family.collate(encoded(model, rows), WIDTH)
        positions = supervised_positions(batch)
        (nats, plain), (found, ours) = (one(model.module, batch, positions) for one in (step, compiled))
        assert found.item() == pytest.approx(nats.item(), rel=1e-5)
        for name, gradient in flat(ours).items():
            assert mx.allclose(gradient, flat(plain)[name], rtol=1e-4, atol=1e-4), name
    assert compiled.by_themselves == 3


def test_generation_follows_the_likeliest_token_of_a_full_forward_pass(vision, image_rows):
    family, tokenizer = vision.family, vision.loaded.tokenizer
    prompt = as_prompt(image_rows[0]["messages"][:1], tokenizer, family.placeholder).example
    said = "".join(piece.text for piece in family.generate(vision.module, prompt, max_tokens=6, sampler=greedy))
    [row] = family.encode([prompt])
    tokens, written = row.tokens.tolist(), []
    for _ in range(6):
        longer = replace(row, tokens=np.array(tokens, np.int32), loss_mask=np.zeros(len(tokens), dtype=bool))
        logits = family.head(vision.module, states(vision, [longer], len(tokens) + 1))
        token = int(mx.argmax(logits[0, -1]).item())
        if token in tokenizer.eos_token_ids:
            break
        tokens.append(token)
        written.append(token)
    assert said.strip() == tokenizer.decode(written).strip()


def test_a_text_prompt_after_an_image_is_answered_as_before(vision_models, image_rows):
    model = vision_models("qwen2_5_vl")
    fresh, _ = FastModel.from_pretrained(model.loaded.folder)
    model.generate(image_rows[0]["messages"][:1], max_tokens=3)
    assert model.generate("the quick brown", max_tokens=5) == fresh.generate("the quick brown", max_tokens=5)


def test_text_only_gives_the_language_model_alone(vision_models):
    for family in ("gemma3", "qwen2_vl"):
        model, _ = FastModel.from_pretrained(vision_models(family).loaded.folder, text_only=True)
        assert model.family.placeholder is None


def test_a_model_of_text_asked_to_see_is_refused(tiny_folder):
    with pytest.raises(ValueError, match="no vision_config"):
        FastModel.from_pretrained(tiny_folder, text_only=False)
