"""Six families that read images: what their tokens are, what is trained, and that no state sees what it must not."""

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx_vlm.models.llava.llava import Model as Llava
from mlx_vlm.utils import load as load_stock

from tests.makers.tiny_vision import FAMILIES, asked, pictures, tiny_vision_folder
from tunebook import FastModel
from tunebook.data.examples import Text
from tunebook.data.formats import to_examples
from tunebook.models.families import language_model
from tunebook.models.families.check import CHECKS, NotTrainable, check_family
from tunebook.models.families.image_mask import image_mask
from tunebook.models.generation import as_prompt
from tunebook.models.neftune import token_embedding
from tunebook.models.tensors import flat
from tunebook.objectives import next_token
from tunebook.objectives.next_token import summed_loss, supervised_positions
from tunebook.tokens.data_report import inspect
from tunebook.tokens.encoding import encode_rows
from tunebook.train.packing_check import why_not_packed

WIDTH = 97


@pytest.fixture(params=FAMILIES)
def vision(request, vision_models):
    return vision_models(request.param)


@pytest.fixture(scope="module")
def image_rows():
    """One picture, two of different sizes over two turns, and none."""
    small, wide, tall = pictures(1)[0], pictures(2, size=(90, 60))[1], pictures(3, size=(56, 84))[2]
    two = asked("And this?", [wide], "a brown fox")["messages"] + asked("Then?", [tall], "two dogs")["messages"]
    text = [{"role": "user", "content": "Say it."}, {"role": "assistant", "content": "the lazy dog sleeps"}]
    return [asked("What is it?", [small], "a dog"), {"messages": two}, {"messages": text}]


def encoded(model, rows, **options):
    return encode_rows(rows, model.loaded, max_seq_length=200, **options).rows


def words(model, row):
    """The trained part of a row as text."""
    return model.loaded.tokenizer.decode(row.tokens[row.loss_mask].tolist())


def states(model, rows, width=WIDTH):
    return model.family.hidden(model.module, model.family.collate(rows, width))


def test_tokens_are_those_the_stock_processor_makes(vision, image_rows):
    processor, tokenizer = vision.family.processor, vision.loaded.tokenizer
    for row, ours in zip(image_rows, encoded(vision, image_rows), strict=True):
        images = [part["image"] for turn in row["messages"] for part in turn["content"] if "image" in part]
        template = getattr(processor, "chat_template", None)
        rendered = tokenizer.apply_chat_template(row["messages"], tokenize=False, chat_template=template)
        made = processor(text=[rendered], images=[images] if images else None, add_special_tokens=False)
        assert ours.tokens.tolist() == np.array(made["input_ids"])[0].tolist()


def test_every_assistant_turn_is_trained_and_nothing_else(vision, image_rows):
    end = vision.loaded.tokenizer.convert_ids_to_tokens(max(vision.loaded.tokenizer.eos_token_ids))
    one, two, text = (words(vision, row).replace(end, "|").split("|") for row in encoded(vision, image_rows))
    assert [said.strip() for said in one] == ["a dog", ""]
    assert [said.strip() for said in two] == ["a brown fox", "two dogs", ""]
    assert [said.strip() for said in text] == ["the lazy dog sleeps", ""]


def test_image_and_structural_tokens_are_never_trained_even_when_everything_is(vision, image_rows):
    never = vision.family.media.never_trained
    for row in encoded(vision, image_rows, train_on="everything"):
        assert not np.isin(row.tokens[row.loss_mask], list(never)).any()
        assert (
            row.loss_mask | np.isin(row.tokens, list(never))
        ).mean() > 0.8  # all but line breaks of Gemma's processor
    tokenizer = vision.loaded.tokenizer
    assert vision.family.media.image_id in never
    assert never.isdisjoint({tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.bos_token_id})


def test_padding_is_known_by_its_place_so_an_end_of_turn_that_looks_like_it_stays_trained(vision_models, image_rows):
    model = vision_models("smolvlm")
    tokenizer = model.loaded.tokenizer
    before = tokenizer.pad_token
    tokenizer.pad_token = tokenizer.eos_token
    try:
        rows = encoded(model, image_rows)
        batch = model.family.collate(rows, WIDTH)
    finally:
        tokenizer.pad_token = before
    mask, tokens = np.array(batch["loss_mask"]), np.array(batch["tokens"])
    assert mask.sum() == sum(row.loss_mask.sum() for row in rows)
    assert (tokens[mask] == tokenizer.eos_token_id).sum() == 4
    assert (tokens[~mask] == tokenizer.eos_token_id).sum() > 4


def test_raw_text_ends_in_one_eos_and_a_chat_gets_none(vision, image_rows):
    eos = vision.loaded.tokenizer.eos_token_id
    for text in ("a plain line", f"a plain line{vision.loaded.tokenizer.eos_token}"):
        [row] = encoded(vision, [{"text": text}])
        assert (row.tokens == eos).sum() == 1
        assert row.tokens[-1] == eos
        assert row.loss_mask[-1]
    rendered = to_examples(image_rows[:1], vision.loaded.tokenizer, placeholder=vision.family.placeholder)
    [row], text = encoded(vision, image_rows[:1]), "".join(p.text for p in next(rendered).parts if isinstance(p, Text))
    assert (row.tokens == eos).sum() == text.count(vision.loaded.tokenizer.eos_token)


def test_an_image_is_never_cut(vision, image_rows):
    whole = encoded(vision, image_rows)
    length = len(whole[0].tokens) - 1
    assert whole[0].images_end < length < whole[1].images_end
    kept = encode_rows(image_rows, vision.loaded, max_seq_length=length)
    assert [row.number for row in kept.rows] == [0, 2]
    assert kept.rows[0].cut == 1
    assert kept.account.images_beyond == [1]
    assert "no image is cut" in " ".join(kept.notices)
    [finding] = [found for found in inspect(kept, vision.loaded.tokenizer).findings if found.kind == "images_beyond"]
    assert finding.numbers == (1,)


def test_a_bare_placeholder_is_wrapped_where_positions_need_it(vision_models):
    for family in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl"):
        model = vision_models(family)
        bare = {"text": "see <|image_pad|> here", "images": pictures(1, size=(60, 60))}
        wrapped = {**bare, "text": "see <|vision_start|><|image_pad|><|vision_end|> here"}
        one, other = encoded(model, [bare, wrapped])
        assert one.tokens.tolist() == other.tokens.tolist()
        positions = np.array(language_model.features(model.module, model.family.collate([one], 33))["position_ids"])
        assert not (positions[0] == positions[2]).all()  # the picture has a width
        tokens = one.tokens[~np.isin(one.tokens, [3, 4])]  # without what wraps it, positions are those of a text
        naked = replace(one, tokens=tokens, loss_mask=np.ones_like(tokens, dtype=bool))
        positions = np.array(language_model.features(model.module, model.family.collate([naked], 33))["position_ids"])
        assert (positions[0] == positions[2]).all()


def test_a_batch_names_the_row_whose_picture_is_not_the_one_that_was_encoded(vision_models, image_rows):
    model = vision_models("qwen2_vl")
    row = replace(encoded(model, image_rows)[0], number=7)
    other = replace(row, images=encoded(model, image_rows)[1].images[:1])
    with pytest.raises(ValueError, match=r"Row 7: its images are \d+ tokens now and were \d+"):
        model.family.collate([other], WIDTH)


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


def test_a_text_has_the_states_it_had_before_a_picture_was_seen(vision, image_rows):
    _, picture, text = encoded(vision, image_rows)
    before = states(vision, [text])
    mx.eval(before, states(vision, [picture]))
    assert mx.array_equal(before, states(vision, [text]))


def test_states_change_with_the_picture_and_not_before_it(vision, image_rows):
    row = encoded(vision, image_rows)[0]
    other = replace(row, images=encoded(vision, [asked("What is it?", [pictures(2)[1]], "a dog")])[0].images)
    one, changed = (states(vision, [some])[0] for some in (row, other))
    first = int(np.argmax(row.tokens == vision.family.media.image_id))
    assert mx.array_equal(one[:first], changed[:first])
    assert mx.abs(one[row.images_end :] - changed[row.images_end :]).max().item() > 1e-3


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "smolvlm", "idefics3"])
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
    row = encoded(model, [asked("the lazy dog sleeps in the sun " * 3, pictures(1), "a dog")])[0]
    assert len(row.tokens) > 24 + row.images_end  # the window of its first layer
    layer = model.module.layers[0]
    heard = []

    def listening(plain):
        return lambda layer, x, mask, cache: heard.append(mask) or plain(layer, x, mask, cache)

    with language_model.varied([layer], listening):
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

        slope = (at(weight + step) - at(weight - step)) / 4e-3
        at(weight)
        assert slope == pytest.approx(size, rel=0.02, abs=0.01), name


@pytest.mark.parametrize("family", ["qwen2_vl", "gemma3"])  # a tied head, and one of its own
def test_the_loss_by_pieces_has_the_value_and_gradients_of_the_plain_one(
    family, vision_models, image_rows, monkeypatch
):
    model, _ = FastModel.from_pretrained(vision_models(family).loaded.folder, full_finetuning=True)
    batch = model.family.collate(encoded(model, image_rows), WIDTH)
    positions = supervised_positions(batch)
    found = nn.value_and_grad(model.module, summed_loss(model.family))
    nats, gradients = found(model.module, batch, positions)
    monkeypatch.setattr(next_token, "LOGIT_BYTES", 1)
    monkeypatch.setattr(next_token, "FEWEST_ROWS", 8)
    in_pieces, theirs = found(model.module, batch, positions)
    assert in_pieces.item() == pytest.approx(nats.item(), rel=1e-5)
    for name, gradient in flat(gradients).items():
        assert mx.allclose(gradient, flat(theirs)[name], rtol=1e-3, atol=1e-3), name


def test_a_sound_family_passes_every_check(vision):
    check_family(vision.family, vision.module)


def test_a_model_that_sees_later_tokens_is_refused(vision_models, monkeypatch):
    model = vision_models("gemma3")
    monkeypatch.setattr(language_model, "image_mask", lambda is_image, window=None: mx.ones_like(image_mask(is_image)))
    with pytest.raises(NotTrainable, match="check of causality failed: a token changes the states before it"):
        check_family(model.family, model.module)


def test_a_model_that_mixes_rows_up_is_refused(vision_models, monkeypatch):
    model = vision_models("qwen2_vl")
    plain = type(model.module).get_input_embeddings

    def mixed_up(self, tokens, pixels=None, **options):
        made = plain(self, tokens, pixels, **options)
        made.inputs_embeds = made.inputs_embeds[::-1]
        return made

    monkeypatch.setattr(type(model.module), "get_input_embeddings", mixed_up)
    with pytest.raises(NotTrainable, match="check of rows in a batch failed"):
        check_family(model.family, model.module)


def test_a_model_that_does_not_look_is_refused(vision_models, monkeypatch):
    model = vision_models("smolvlm")
    plain = type(model.module).get_input_embeddings
    monkeypatch.setattr(
        type(model.module),
        "get_input_embeddings",
        lambda self, tokens, pixels=None, **options: plain(self, tokens, None, **options),
    )
    with pytest.raises(NotTrainable, match="check of sight failed: another picture changes"):
        check_family(model.family, model.module)


def test_a_model_that_remembers_a_picture_is_refused(vision_models, monkeypatch):
    model = vision_models("idefics3")
    plain, seen = type(model.module).get_input_embeddings, []

    def remembering(self, tokens, pixels=None, **options):
        made = plain(self, tokens, pixels, **options)
        if pixels is not None:
            seen.append(pixels)
        else:
            made.inputs_embeds = made.inputs_embeds[:, :: (-1) ** len(seen)]
        return made

    monkeypatch.setattr(type(model.module), "get_input_embeddings", remembering)
    monkeypatch.setitem(CHECKS, "rows in a batch", lambda family, module: None)
    with pytest.raises(NotTrainable, match="check of memory failed"):
        check_family(model.family, model.module)


def test_a_model_whose_adapters_get_no_gradient_is_refused(tmp_path, monkeypatch):
    model, _ = FastModel.from_pretrained(tiny_vision_folder(tmp_path, "qwen2_5_vl"))
    FastModel.get_peft_model(model, r=4, finetune_vision_layers=True)
    check_family(model.family, model.module)
    tower = type(model.module.vision_tower)
    plain = tower.__call__
    monkeypatch.setattr(
        tower, "__call__", lambda self, *args, **options: mx.stop_gradient(plain(self, *args, **options))
    )
    with pytest.raises(NotTrainable, match=r"no gradient reaches vision_tower\.blocks\.0"):
        check_family(model.family, model.module)


def test_a_backward_pass_that_fails_is_a_refusal_and_no_crash(vision_models, monkeypatch):
    model = vision_models("qwen2_vl")
    monkeypatch.setitem(CHECKS, "gradients", lambda family, module: mx.ones(3).reshape(2, 2) and None)
    with pytest.raises(NotTrainable, match="check of gradients failed: it cannot be called so"):
        check_family(model.family, model.module)


def test_a_processor_that_says_something_of_each_token_is_refused(vision_models, monkeypatch):
    model = vision_models("qwen2_5_vl")
    processor = type(model.family.processor)
    plain = processor.__call__

    def talkative(self, **options):
        made = plain(self, **options)
        made["mm_token_type_ids"] = made["input_ids"]
        return made

    monkeypatch.setattr(processor, "__call__", talkative)
    with pytest.raises(NotTrainable, match="gives mm_token_type_ids"):
        check_family(model.family, model.module)


def test_noise_is_put_on_the_embeddings_of_text_and_not_of_images(vision):
    language_model = vision.module["language_model"]
    inside = language_model.get("model", language_model)
    assert token_embedding(vision.module) is inside["embed_tokens"]


def test_packing_and_compiling_are_refused_with_a_reason(vision_models):
    model = vision_models("qwen2_vl")
    assert "not packed" in why_not_packed(model.family, model.module, max_seq_length=64)
    assert "looks at its tokens" in model.family.cannot_compile


def test_generation_follows_the_likeliest_token_of_a_full_forward_pass(vision, image_rows):
    family, tokenizer = vision.family, vision.loaded.tokenizer
    prompt = as_prompt(image_rows[0]["messages"][:1], tokenizer, family.placeholder).example
    said = "".join(family.generate(vision.module, prompt, max_tokens=6, temperature=0.0, top_p=1.0))
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


def test_a_text_prompt_after_a_picture_is_answered_as_before(vision_models, image_rows):
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


def test_rows_of_token_ids_are_encoded_as_they_stand(vision_models):
    model = vision_models("qwen2_vl")
    [row] = encoded(model, [{"input_ids": [20, 21, 22], "labels": [-100, 21, 22]}])
    assert row.tokens.tolist() == [20, 21, 22]
    assert row.loss_mask.tolist() == [False, True, True]


def test_a_large_set_with_images_is_kept_in_memory_and_says_so(vision_models, monkeypatch):
    from tunebook.tokens import encoding

    monkeypatch.setattr(encoding, "CACHED_ROWS", 2)
    monkeypatch.setattr(encoding, "cached_folder", lambda key: pytest.fail("looked into the cache"))
    row = asked("What?", pictures(1), "a dog")
    made = encode_rows([row] * 3, vision_models("smolvlm").loaded, max_seq_length=99)
    assert "are no files, so its rows are kept in memory" in " ".join(made.notices)


# Canaries: what mlx-vlm 0.7.10 does wrong when it is called the obvious way. One that fails means it was mended.


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
def test_canary_positions_of_a_picture_are_still_used_for_the_next_text(family, tmp_path, image_rows):
    model, _ = FastModel.from_pretrained(tiny_vision_folder(tmp_path, family))
    picture, text = encoded(model, [asked("What is it?", pictures(1, size=(60, 60)), "a dog"), image_rows[2]])
    # A text as long as the picture's row, so that the remembered positions fit.
    text = replace(text, tokens=np.resize(text.tokens, len(picture.tokens)), loss_mask=picture.loss_mask)
    batch = model.family.collate([picture], len(picture.tokens))
    extras = {name: array for name, array in batch.items() if name not in language_model.OURS}
    tokens = mx.array(text.tokens)[None]
    before = model.module(tokens).logits
    mx.eval(before, model.module(batch["tokens"], pixel_values=batch["pixel_values"], **extras).logits)
    assert mx.abs(before - model.module(tokens).logits).max().item() > 1e-3


def test_canary_qwen_processors_still_leave_an_image_out_without_a_word(vision_models):
    processor = vision_models("qwen2_vl").family.processor
    made = processor(text=["<|image_pad|>"], images=[pictures(2, size=(60, 60))])
    assert (np.array(made["input_ids"]) == 5).sum() * 4 < np.array(made["pixel_values"]).shape[0]


def test_canary_llava_still_gives_the_first_row_of_a_batch_the_second_rows_picture():
    # Called on the method alone: its processor needs torchvision. `check.batches` refuses the family for this.
    holder = SimpleNamespace(config=SimpleNamespace(image_token_index=5))
    tokens = mx.array([[7, 5, 8], [9, 5, 7]])
    pictures_seen = mx.stack([mx.full((1, 4), 1.0), mx.full((1, 4), 2.0)])  # (2, 1, 4): all ones, all twos
    merge = Llava._merge_input_ids_with_image_features
    embedded = merge(cast("Any", holder), pictures_seen, mx.zeros((2, 3, 4)), tokens)
    assert embedded[:, 1, 0].tolist() == [2.0, 2.0]
