"""What is kept of documents: encoded once, and made again when anything their tokens follow from has changed."""

import shutil
from dataclasses import replace

import pytest

from tests.data.pretraining.documents import DOG, QUIET, TEXT, as_lists, encoded, entries
from tests.makers.tiny_vision import noise_images, tiny_vision_folder
from tunebook import FastModel, MultimodalPretrain, Trainer, TrainingConfig
from tunebook.data import images
from tunebook.data.opened import ReadingOptions, opened
from tunebook.data.row_kinds import row_kind
from tunebook.tokens import encoding, token_cache
from tunebook.tokens.encoding import encode_rows
from tunebook.tokens.stored_rows import EncodedRows

ROWS = [DOG, TEXT, {"text": "<image> a <image>", "images": ["1.png", "2.png"]}, {"text": "a dog", "images": []}]


def test_a_set_with_images_is_encoded_once_and_then_opens_none(model, folder, cache, monkeypatch):
    rows = [*ROWS, {"text": "a <image>", "images": ["gone.png"]}]
    plain = encoded(model, rows[:2], folder)
    first = encoded(model, rows, folder, skip_bad_images=True)
    assert isinstance(first.rows, EncodedRows)
    assert as_lists(first)[:2] == as_lists(plain)
    assert [image.reference for image in first.rows[2].images] == ["1.png", "2.png"]
    assert images.opened(first.rows[2].images[1]).size == (40, 40)
    for name in ("check_whole", "decoded", "upright_size"):
        monkeypatch.setattr(images, name, lambda source: pytest.fail("an image was opened"))
    second = encoded(model, rows, folder, skip_bad_images=True)
    assert as_lists(second) == as_lists(first)
    assert second.notices == first.notices != []
    config = TrainingConfig(max_seq_length=64, **QUIET)
    entry = MultimodalPretrain(rows, image_base_dir=folder, skip_bad_images=True)
    trainer = Trainer(model, train_dataset=entry, args=config)
    assert [row.number for row in trainer.train_rows] == [0, 1, 2, 3]
    assert len(entries(cache)) == 1


def test_the_folder_of_images_may_move(model, folder, cache, tmp_path):
    first = encoded(model, ROWS, folder)
    folder.rename(tmp_path / "moved")
    moved = encoded(model, ROWS, tmp_path / "moved")
    assert len(entries(cache)) == 1
    assert [row.digest for row in moved.rows] == [row.digest for row in first.rows]
    assert images.opened(moved.rows[0].images[0]).size == (40, 40)
    with pytest.raises(ValueError, match="was changed since"):
        images.opened(first.rows[0].images[0])


def processor_of(model):
    return model.family.processor


CHANGES = {
    "an image": lambda model, folder, patch: noise_images(1, size=(50, 50))[0].save(folder / "1.png"),
    "the splitting": lambda model, folder, patch: patch.setattr(
        processor_of(model).image_processor, "do_image_splitting", True
    ),
    "the tokens of an image": lambda model, folder, patch: patch.setattr(processor_of(model), "image_seq_len", 9),
    "the size": lambda model, folder, patch: patch.setattr(
        processor_of(model).image_processor, "max_image_size", {"longest_edge": 56}
    ),
    "the tokens that are never trained": lambda model, folder, patch: patch.setattr(
        model.family.rows, "media", replace(model.family.media, never_trained=frozenset())
    ),
    "what stands around an image": lambda model, folder, patch: patch.setattr(
        model.family.rows, "quirks", replace(model.family.quirks, wrapped_in=("a", "b"))
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_the_tokens_of_an_image_follow_from_is_in_the_key(model, folder, cache, monkeypatch, change):
    rows = [dict(row) for row in ROWS]

    def key():
        entry = MultimodalPretrain(rows, image_base_dir=folder)
        held, family = opened(rows, ReadingOptions(documents=entry)), model.loaded.family
        given = encoding._with_images(held, row_kind(held, model.loaded.tokenizer, family.placeholder))
        return token_cache.key_of(given, model.loaded, [entry.as_plain])

    before = key()
    assert key() == before
    CHANGES[change](model, folder, monkeypatch)
    assert key() != before


@pytest.mark.parametrize(
    "settings", [{"image_token": "<global-img>"}, {"skip_bad_images": True}, {"excess_length_strategy": "raise"}]
)
def test_the_settings_of_documents_are_in_the_key(settings):
    assert MultimodalPretrain([], **settings).as_plain != MultimodalPretrain([]).as_plain


def test_another_tokenizer_is_another_entry(model, folder, cache, tmp_path):
    encoded(model, ROWS, folder)
    other, _ = FastModel.from_pretrained(tiny_vision_folder(tmp_path / "other", "smolvlm"))
    encoded(other, ROWS, folder)
    assert len(entries(cache)) == 1
    other.loaded.tokenizer.add_tokens(["<new>"])
    encoded(other, ROWS, folder)
    assert len(entries(cache)) == 2


@pytest.mark.parametrize("name", ["references.utf8", "digests.bin"])
def test_a_torn_entry_is_made_again(model, folder, cache, name):
    first = as_lists(encoded(model, ROWS, folder))
    file = next(cache.iterdir()) / name
    file.write_bytes(file.read_bytes()[:-1])
    assert as_lists(encoded(model, ROWS, folder)) == first


def test_an_entry_without_images_has_no_files_for_them(model, folder, cache):
    encoded(model, [TEXT] * 3, folder)
    [entry] = cache.iterdir()
    assert sorted(path.name for path in entry.iterdir()) == [
        *("facts.json", "index.npz", "masks.bool", "seal.json", "tokens.int32")
    ]


def test_conversations_whose_images_are_files_are_kept_as_well(model, folder, cache):
    path = str(folder / "0.png")
    turns = [{"role": "user", "content": [{"type": "image", "image": path}]}, {"role": "assistant", "content": "a dog"}]
    in_column = [{"role": "user", "content": "<image> What?"}, {"role": "assistant", "content": "a fox"}]
    rows = [{"messages": turns}, {"messages": in_column, "images": [path]}, {"messages": turns}]
    first = encode_rows(rows, model.loaded, max_seq_length=64)
    assert as_lists(encode_rows(rows, model.loaded, max_seq_length=64)) == as_lists(first)
    assert len(entries(cache)) == 1
    noise_images(1, size=(50, 50))[0].save(path)
    encode_rows(rows, model.loaded, max_seq_length=64)
    assert len(entries(cache)) == 2
    shutil.rmtree(cache)
