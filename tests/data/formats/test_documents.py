"""data/formats/documents.py: one row of text and images, raw or tokenized elsewhere, as the model reads it."""

import numpy as np
import pytest

from tests.makers.tiny_vision import noise_images, tiny_vision_folder
from tunebook import FastModel, MultimodalPretrain
from tunebook.data.examples import Image
from tunebook.data.formats import BadRow
from tunebook.data.formats.documents import BadImages, document_reader

TEXT = "the quick brown fox {} jumps over the dog"
FAMILIES = ("qwen2_vl", "gemma3", "smolvlm")


@pytest.fixture(scope="module", params=FAMILIES)
def model(request, tmp_path_factory):
    """A model of each family of placeholders: Qwen's is wrapped, Gemma's is not the token of its images."""
    return FastModel.from_pretrained(tiny_vision_folder(tmp_path_factory.mktemp(request.param), request.param))[0]


@pytest.fixture(scope="module")
def smol(tmp_path_factory):
    return FastModel.from_pretrained(tiny_vision_folder(tmp_path_factory.mktemp("smol"), "smolvlm"))[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for number, image in enumerate(noise_images(3)):
        image.save(folder / f"{number}.png")
    (folder / "broken.png").write_bytes(b"no image")
    return folder


def reader_of(model, folder=None, **settings):
    entry = MultimodalPretrain([], image_base_dir=folder, **settings)
    return document_reader(entry, model.loaded.tokenizer, model.family.placeholder)


def encoded(model, row, folder, **settings):
    [made] = model.family.encode([reader_of(model, folder, **settings)(row)])
    return made


def document(model, *images):
    return {"text": TEXT.format(model.family.placeholder * len(images)), "images": list(images)}


def prepared(model, row, *, padding=0, ends=True):
    """The row as it comes tokenized un-expanded with special tokens, ending in EOS, and padded with EOS."""
    tokenizer = model.loaded.tokenizer
    ids = tokenizer.backend_tokenizer.encode(row["text"]).ids + [tokenizer.eos_token_id] * ends
    rest = [tokenizer.eos_token_id] * padding
    return {
        "_mm_text": row["text"],
        "images": row["images"],
        "input_ids": ids + rest,
        "attention_mask": [1] * len(ids) + [0] * padding,
        "labels": ids + [-100] * padding,
    }


def assert_same(one, other):
    assert one.tokens.tolist() == other.tokens.tolist()
    assert one.loss_mask.tolist() == other.loss_mask.tolist()
    assert (one.images, one.images_end) == (other.images, other.images_end)


# What is read


def test_every_word_is_trained_and_no_token_of_an_image(model, folder):
    row = encoded(model, document(model, "0.png", "1.png"), folder)
    tokenizer = model.loaded.tokenizer
    text = tokenizer.decode(row.tokens[row.loss_mask].tolist()).removeprefix(tokenizer.bos_token or "")
    assert text == TEXT.format("") + tokenizer.eos_token
    assert not np.isin(row.tokens[row.loss_mask], list(model.family.media.never_trained)).any()
    assert [image.reference for image in row.images] == ["0.png", "1.png"]


@pytest.mark.parametrize("text", ["a dog", "a dog <end>", "a dog {}"], ids=["plain", "with its own end", "image last"])
def test_a_document_ends_in_exactly_one_eos_which_is_trained(model, folder, text):
    tokenizer = model.loaded.tokenizer
    text = text.replace("<end>", tokenizer.eos_token).format(model.family.placeholder)
    images = ["0.png"] if model.family.placeholder in text else []
    row = encoded(model, {"text": text, "images": images}, folder)
    assert (row.tokens == tokenizer.eos_token_id).sum() == 1
    assert row.tokens[-1] == tokenizer.eos_token_id
    assert row.loss_mask[-1]


def test_a_document_has_no_eos_where_the_tokenizer_has_none(tmp_path, folder):
    model, _ = FastModel.from_pretrained(tiny_vision_folder(tmp_path, "smolvlm"))
    row = document(model, "0.png")
    whole = encoded(model, row, folder)
    as_prepared = prepared(model, row, ends=False)
    model.loaded.tokenizer.eos_token = None
    made = encoded(model, row, folder)
    assert made.tokens.tolist() == whole.tokens[:-1].tolist()
    assert_same(encoded(model, as_prepared, folder), made)


def test_a_document_may_have_no_images(model, folder):
    for row in ({"text": "a dog"}, {"text": "a dog", "images": None}, {"text": "a dog", "images": []}):
        assert encoded(model, row, folder).images == ()


def test_columns_may_have_other_names(smol, folder):
    row = {"body": "a <image> dog", "files": ["0.png"], "text": 3}
    made = encoded(smol, row, folder, text_column="body", image_column="files")
    assert_same(made, encoded(smol, {"text": "a <image> dog", "images": ["0.png"]}, folder))


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"text": 3}, "'text' is a int, not a str"),
        ({"text": b"a dog"}, "bytes from Parquet"),
        ({"images": []}, "'text' is a NoneType"),
        ({"text": ""}, "'text' is empty"),
        ({"text": "a <image>", "images": "0.png"}, "'images' is a str; it must be a list"),
        ({"text": "a <image>", "images": [3]}, "'images' holds a int"),
        ({"text": "a <image>", "images": [{"path": "0.png"}]}, "'images' holds a dict"),
    ],
)
def test_a_row_that_is_no_document_is_refused(smol, folder, row, complaint):
    with pytest.raises(BadRow, match=complaint) as error:
        reader_of(smol, folder)(row)
    assert not isinstance(error.value, BadImages)


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"text": "a dog", "images": ["0.png"]}, r"0 occurrence\(s\) of <image> for 1 image\(s\)"),
        ({"text": "a <image><image>", "images": ["0.png"]}, r"2 occurrence\(s\).*one placeholder per image"),
        ({"text": "a <image>", "images": ["gone.png"]}, r"'gone\.png' is not there"),
        ({"text": "a <image>", "images": ["broken.png"]}, r"'broken\.png' cannot be opened"),
        ({"text": "a <image>", "images": ["../secret/a.png"]}, r"'a\.png' lies outside"),
        ({"text": "a <image>", "images": ["https://secret/a.png"]}, r"'a\.png' is an address"),
    ],
)
def test_a_row_whose_images_cannot_be_had_says_so_without_their_folder(smol, folder, row, complaint):
    with pytest.raises(BadImages, match=complaint) as error:
        reader_of(smol, folder)(row)
    assert "secret" not in str(error.value)
    assert str(folder) not in str(error.value)


def test_placeholders_are_counted_by_their_id_however_deep_in_the_text(tmp_path, folder):
    model, _ = FastModel.from_pretrained(tiny_vision_folder(tmp_path, "smolvlm"))
    model.loaded.tokenizer.add_tokens(["<image>_soft"], special_tokens=True)
    row = {"text": "a <image>_soft dog " * 500 + "<image>", "images": ["0.png"]}
    example = reader_of(model, folder)(row)
    assert sum(isinstance(part, Image) for part in example.parts) == 1


# The token that stands for an image


def test_another_special_token_may_stand_for_an_image_and_the_model_reads_its_own(smol, folder):
    row = {"text": "a <global-img> dog", "images": ["0.png"]}
    made = encoded(smol, row, folder, image_token="<global-img>")
    assert_same(made, encoded(smol, {"text": "a <image> dog", "images": ["0.png"]}, folder))


def test_the_models_own_placeholder_beside_another_is_refused(smol, folder):
    with pytest.raises(BadRow, match=r"holds <image>.*beside\s+image_token <global-img>"):
        reader_of(smol, folder, image_token="<global-img>")({"text": "a <global-img> <image>", "images": ["0.png"]})


def test_an_image_token_that_is_a_word_is_refused(smol):
    with pytest.raises(ValueError, match="'dog' is not a registered special token"):
        reader_of(smol, image_token="dog")


def test_an_image_token_that_is_the_unknown_token_is_refused(tmp_path):
    model, _ = FastModel.from_pretrained(tiny_vision_folder(tmp_path, "smolvlm"))
    model.loaded.tokenizer.unk_token = "<global-img>"
    with pytest.raises(ValueError, match="'<global-img>' did not resolve"):
        reader_of(model, image_token="<global-img>")


# Rows that were tokenized elsewhere


@pytest.mark.parametrize(("padding", "ends"), [(0, True), (5, True), (5, False)])
def test_a_prepared_row_is_read_as_the_raw_one_even_where_padding_is_eos(model, folder, padding, ends):
    row = document(model, "0.png", "1.png")
    made = encoded(model, prepared(model, row, padding=padding, ends=ends), folder)
    assert_same(made, encoded(model, row, folder))


def test_labels_of_minus_100_stay_unsupervised(model, folder):
    row = prepared(model, document(model, "0.png"))
    whole = encoded(model, row, folder)
    hidden = [2, 3, len(row["labels"]) - 1]  # two words before the image, and EOS
    labels = [-100 if at in hidden else label for at, label in enumerate(row["labels"])]
    made = encoded(model, {**row, "labels": labels}, folder)
    assert made.tokens.tolist() == whole.tokens.tolist()
    changed = np.flatnonzero(whole.loss_mask & ~made.loss_mask).tolist()
    assert changed == [2, 3, len(made.tokens) - 1]
    assert not (made.loss_mask & ~whole.loss_mask).any()


def test_tokens_of_one_character_are_unsupervised_when_one_of_them_is(smol, folder):
    row = prepared(smol, {"text": "a 🎵 dog", "images": []})
    ids = row["input_ids"]
    of_note = [
        at for at, (start, _) in enumerate(offsets(smol, "a 🎵 dog")) if start == offsets(smol, "a 🎵 dog")[2][0]
    ]
    assert len(of_note) > 1
    labels = [-100 if at == of_note[0] else number for at, number in enumerate(ids)]
    made = encoded(smol, {**row, "labels": labels}, folder)
    assert np.flatnonzero(~made.loss_mask).tolist() == of_note


def offsets(model, text):
    return model.loaded.tokenizer.backend_tokenizer.encode(text).offsets


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"labels": [1, 2]}, "differ in length: .*labels 2"),
        ({"_mm_text": None}, "'_mm_text' is a NoneType"),
        ({"_mm_text": "a dog <image> runs"}, "prepared with another tokenizer"),
        ({"images": []}, r"1 occurrence\(s\) of <image> for 0 image"),
    ],
)
def test_a_prepared_row_that_contradicts_itself_is_refused(smol, folder, change, complaint):
    row = prepared(smol, {"text": "the <image> dog", "images": ["0.png"]})
    with pytest.raises(BadRow, match=complaint):
        reader_of(smol, folder)({**row, **change})


def test_a_prepared_row_with_other_labels_or_none_to_learn_is_refused(smol, folder):
    row = prepared(smol, {"text": "the dog", "images": None})
    with pytest.raises(BadRow, match="another id than 'input_ids'"):
        reader_of(smol, folder)({**row, "labels": [number + 1 for number in row["input_ids"]]})
    with pytest.raises(BadRow, match="nothing to learn"):
        reader_of(smol, folder)({**row, "labels": [-100] * len(row["input_ids"])})
