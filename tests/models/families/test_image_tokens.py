"""families/image_tokens.py: what the tokens of a row with images are, and which of them are trained."""

from dataclasses import replace

import numpy as np
import pytest

from tests.makers.tiny_vision import asked, noise_images
from tests.models.families.encoded_rows import WIDTH, encoded, words
from tunebook.data.examples import Text
from tunebook.data.formats import to_examples
from tunebook.models.families import language_model
from tunebook.tokens.data_report import inspect
from tunebook.tokens.encoding import encode_rows


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
        bare = {"text": "see <|image_pad|> here", "images": noise_images(1, size=(60, 60))}
        wrapped = {**bare, "text": "see <|vision_start|><|image_pad|><|vision_end|> here"}
        one, other = encoded(model, [bare, wrapped])
        assert one.tokens.tolist() == other.tokens.tolist()
        positions = np.array(language_model.features(model.module, model.family.collate([one], 33))["position_ids"])
        assert not (positions[0] == positions[2]).all()  # the image has a width
        tokens = one.tokens[~np.isin(one.tokens, [3, 4])]  # without what wraps it, positions are those of a text
        naked = replace(one, tokens=tokens, loss_mask=np.ones_like(tokens, dtype=bool))
        positions = np.array(language_model.features(model.module, model.family.collate([naked], 33))["position_ids"])
        assert (positions[0] == positions[2]).all()


def test_a_batch_names_the_row_whose_image_is_not_the_one_that_was_encoded(vision_models, image_rows):
    model = vision_models("qwen2_vl")
    row = replace(encoded(model, image_rows)[0], number=7)
    other = replace(row, images=encoded(model, image_rows)[1].images[:1])
    with pytest.raises(ValueError, match=r"Row 7: its images are \d+ tokens now and were \d+"):
        model.family.collate([other], WIDTH)


def test_rows_of_token_ids_are_encoded_as_they_stand(vision_models):
    model = vision_models("qwen2_vl")
    [row] = encoded(model, [{"input_ids": [20, 21, 22], "labels": [-100, 21, 22]}])
    assert row.tokens.tolist() == [20, 21, 22]
    assert row.loss_mask.tolist() == [False, True, True]


def test_a_large_set_with_images_is_kept_in_memory_and_says_so(vision_models, monkeypatch):
    from tunebook.tokens import encoding

    monkeypatch.setattr(encoding, "CACHED_ROWS", 2)
    monkeypatch.setattr(encoding, "cached_folder", lambda key: pytest.fail("looked into the cache"))
    row = asked("What?", noise_images(1), "a dog")
    made = encode_rows([row] * 3, vision_models("smolvlm").loaded, max_seq_length=99)
    assert "are no files, so its rows are kept in memory" in " ".join(made.notices)
