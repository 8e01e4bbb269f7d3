"""The sample data, judged against what it was made from."""

import importlib
import inspect
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import rgb_to_hsv
from PIL import Image, ImageStat
from sklearn.datasets import load_sample_images
from tokenizers import Tokenizer

from tunebook import FastModel, Trainer, TrainingConfig, hold_out
from tunebook.samples.sets import photograph_reader, photographs, python_docs


@pytest.fixture(scope="module")
def docs():
    return python_docs()


def test_there_are_a_few_hundred_rows_and_no_answer_twice(docs):
    answers = [row["messages"][1]["content"] for row in docs]
    assert 150 < len(docs) < 600
    assert len(set(answers)) == len(answers)


def test_an_answer_is_the_docstring_python_itself_shows(docs):
    plain = [
        row for row in docs if row["name"].startswith(("textwrap.", "statistics.", "shutil.", "base64.", "heapq."))
    ]
    assert len(plain) > 5
    for row in plain:
        module, _, name = row["name"].partition(".")
        shown = importlib.import_module(module)
        for part in name.split("."):
            shown = getattr(shown, part)
        assert inspect.getdoc(shown) == row["messages"][1]["content"], row["name"]


def test_the_question_never_contains_the_answer(docs):
    leaks = [row["name"] for row in docs if row["messages"][1]["content"] in row["messages"][0]["content"]]
    assert not leaks


def test_the_rows_are_the_same_each_time(docs):
    assert python_docs() == docs


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    """(folder of the images, documents)."""
    folder = tmp_path_factory.mktemp("tiles")
    return folder, photographs(folder)


@pytest.fixture(scope="module")
def originals():
    bundled = load_sample_images()
    return {Path(file).stem: pixels for file, pixels in zip(bundled.filenames, bundled.images, strict=True)}


def test_a_few_hundred_documents_show_one_image_or_two_or_none(tiles):
    _, documents = tiles
    counts = Counter(len(row["images"]) for row in documents)
    assert counts.keys() == {0, 1, 2}
    assert 300 < len(documents) < 1000
    assert min(counts.values()) > 20
    assert all(row["text"].count("<image>") == len(row["images"]) for row in documents)


def test_no_image_is_in_two_documents_and_every_file_is_in_one(tiles):
    folder, documents = tiles
    shown = [name for row in documents for name in row["images"]]
    assert len(set(shown)) == len(shown)
    assert set(shown) == {path.name for path in folder.iterdir()}


def test_no_two_documents_are_alike_so_all_can_be_held_out(tiles):
    _, documents = tiles
    train, held_out = hold_out(documents, 100)
    assert len(train) + len(held_out) == len(documents)


def test_an_image_is_the_part_of_the_photograph_its_name_says(tiles, originals):
    folder, documents = tiles
    for name in [name for row in documents for name in row["images"]][::40]:
        photograph, row, column = Path(name).stem.split("-")
        top, left = 24 * int(row), 24 * int(column)
        with Image.open(folder / name) as image:
            assert np.array_equal(image, originals[photograph][top : top + 24, left : left + 24])


def said(documents):
    """(file name, (photograph, vertical, horizontal, lightness, colour)) of every image in the documents."""
    for row in documents:
        sentences = re.findall(r"<image> A tile of (\w+), at the (\w+) (\w+): (\w+) (\w+)\.", row["text"])
        yield from zip(row["images"], sentences, strict=True)


def test_a_document_says_truly_where_its_image_is_from(tiles, originals):
    for name, (photograph, vertical, horizontal, *_) in said(tiles[1]):
        stem, row, column = Path(name).stem.split("-")
        height, width, _ = originals[photograph].shape
        assert stem == photograph
        assert vertical == ("top" if 24 * int(row) + 12 < height / 2 else "bottom")
        assert horizontal == ("left" if 24 * int(column) + 12 < width / 2 else "right")


def test_the_colour_a_document_tells_is_the_mean_colour_of_its_image(tiles):
    """The mean is Pillow's here and the colour wheel matplotlib's, neither of which made the documents."""
    borders = {20: "red", 45: "orange", 70: "yellow", 165: "green", 195: "cyan", 260: "blue", 330: "violet", 361: "red"}
    folder, documents = tiles
    for name, (*_, lightness, colour) in said(documents):
        with Image.open(folder / name) as image:
            mean = np.array(ImageStat.Stat(image).mean) / 255
        hue, saturation, _ = rgb_to_hsv(mean)
        luma = mean @ [0.299, 0.587, 0.114]
        assert lightness == ("dark" if luma < 0.25 else "medium" if luma < 0.6 else "light"), name
        on_the_wheel = next(called for end, called in borders.items() if 360 * hue < end)
        assert colour == ("grey" if saturation < 0.15 else on_the_wheel), name


def test_of_two_images_the_one_called_lighter_is_lighter(tiles):
    folder, documents = tiles
    pairs = [row for row in documents if len(row["images"]) == 2]
    for row in pairs:
        first, second = (ImageStat.Stat(Image.open(folder / name).convert("L")).mean[0] for name in row["images"])
        if abs(first - second) > 1:  # Pillow rounds the luma of each pixel
            assert row["text"].endswith(f"The {'first' if first > second else 'second'} is lighter.")


def test_the_documents_are_the_same_each_time_and_no_image_is_written_anew(tiles):
    folder, documents = tiles
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert photographs(folder) == documents
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_a_damaged_image_is_written_anew(tiles):
    folder, documents = tiles
    path = folder / documents[0]["images"][0] if documents[0]["images"] else next(folder.iterdir())
    whole = path.read_bytes()
    path.write_bytes(whole[:50])
    photographs(folder)
    assert path.read_bytes() == whole


def test_the_placeholder_is_that_of_the_model_asked_for(tmp_path, tiles):
    _, documents = tiles
    others = photographs(tmp_path, placeholder="<|image_pad|>")
    assert [row["text"].replace("<|image_pad|>", "<image>") for row in others] == [row["text"] for row in documents]


def test_the_reader_has_a_token_for_every_word_of_the_documents(tmp_path, tiles):
    tokenizer = Tokenizer.from_file(str(photograph_reader(tmp_path) / "tokenizer.json"))
    words = {word for row in tiles[1] for word in re.findall(r"[A-Za-z]+(?=[^>A-Za-z])", row["text"])} - {"image"}
    assert not [word for word in words if len(tokenizer.encode(f" {word}", add_special_tokens=False).ids) != 1]


def test_a_model_that_continues_on_the_documents_reads_images_it_never_saw(tmp_path, tiles):
    folder, documents = tiles
    rows = [{**row, "images": [str(folder / name) for name in row["images"]]} for row in documents]
    train, held_out = hold_out(rows, 100)
    shown = [row for row in held_out if row["images"]]
    names = [name for row in shown for name in row["images"]]
    others = iter(names[len(names) // 2 :] + names[: len(names) // 2])
    exchanged = [{**row, "images": [next(others) for _ in row["images"]]} for row in shown]
    model, _ = FastModel.from_pretrained(photograph_reader(tmp_path), full_finetuning=True, max_seq_length=128)
    settings = TrainingConfig(
        per_device_train_batch_size=32,
        gradient_accumulation_steps=1,
        max_steps=80,
        learning_rate=3e-3,
        lr_scheduler_type="cosine",
    )
    trainer = Trainer(model, train_dataset=train, eval_dataset=shown, args=settings)
    before = trainer.train().evals[0].loss
    right = trainer.evaluate().loss
    wrong = Trainer(model, train_dataset=train, eval_dataset=exchanged, args=settings).evaluate().loss
    assert right < 0.5 < 5 < before
    assert wrong > 1.3 * right
