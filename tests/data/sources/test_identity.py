"""Which rows are copies of one another: told by their content, the same at every call and in every process."""

import datetime
import io
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.makers.tiny_vision import noise_images
from tunebook import hold_out
from tunebook.data.sources import held_out_places
from tunebook.data.sources.identity import content_of

LONG = list(range(3000))


def as_read(image):
    """An image as a library reads it from a file, when its pixels are asked for."""
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    return Image.open(io.BytesIO(stream.getvalue()))


ONE, OTHER = noise_images(2)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([1, 2, 3], np.array([1, 2, 3])),
        ([1, 2, 3], np.array([1, 2, 3], dtype=np.int32)),
        ([1, 2, 3], mx.array([1, 2, 3])),
        ([1, 2, 3], pd.Series([1, 2, 3])),
        ([[1, 2], [3, 4]], np.array([[1, 2], [3, 4]])),
        ([{"type": "text"}], np.array([{"type": "text"}], dtype=object)),
        (7, np.int64(7)),
        ("the", np.str_("the")),
        ("a.png", Path("a.png")),
        (ONE, ONE.copy()),
        (ONE, as_read(ONE)),
        ([{"image": ONE}], [{"image": as_read(ONE)}]),
        (b"abc", bytearray(b"abc")),
        (datetime.date(2024, 1, 2), "2024-01-02"),
        ({"b", "a"}, {"a", "b"}),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    ],
)
def test_rows_of_the_same_content_are_the_same_row(one, other):
    assert content_of({"x": one}) == content_of({"x": other})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.array(LONG), np.array([*LONG[:1500], 0, *LONG[1501:]])),
        (mx.array(LONG), mx.array([*LONG[:1500], 0, *LONG[1501:]])),
        (ONE, OTHER),
        (as_read(ONE), as_read(OTHER)),
        (ONE, ONE.convert("L")),
        (ONE, ONE.resize((ONE.width // 2, ONE.height * 2))),
        (b"abc", b"abd"),
        (b"abc", "abc"),
        (pd.Timestamp("2024-01-01"), pd.Timestamp("2024-01-02")),
        ([1, [2, 3]], [[1, 2], 3]),
        ({1}, {2}),
    ],
)
def test_rows_of_other_content_are_others(one, other):
    assert content_of({"x": one}) != content_of({"x": other})


def test_an_image_that_is_cut_short_is_no_copy_of_another():
    stream = io.BytesIO()
    ONE.save(stream, format="PNG")
    broken = [{"image": Image.open(io.BytesIO(stream.getvalue()[:60]))} for _ in range(2)]
    assert content_of(broken[0]) != content_of(broken[1])


@pytest.mark.parametrize(
    "value",
    [
        lambda n: np.concatenate([[1, 2, 3], np.full(1200, n), [7, 8, 9]]),
        lambda n: as_read(Image.new("RGB", (16, 16), (n, 0, 0))),
        lambda n: lambda: n,
    ],
    ids=["long arrays", "images", "what cannot be read"],
)
def test_of_distinct_rows_none_is_lost_and_the_split_is_the_same_each_time(value):
    splits = [
        tuple(map(tuple, held_out_places([{"prompt": "What?", "x": value(n)} for n in range(40)], 4))) for _ in range(2)
    ]
    assert splits[0] == splits[1]
    assert sorted(splits[0][0] + splits[0][1]) == list(range(40))


def test_copies_of_held_out_images_are_not_trained_on():
    rows = [{"image": Image.new("RGB", (8, 8), (n, 0, 0)), "prompt": "What?"} for n in range(6)]
    train, held = hold_out(rows + [{**row, "image": as_read(row["image"])} for row in rows], 2)
    kept = {row["image"].getpixel((0, 0)) for row in train}
    assert (len(train), len(held)) == (8, 2)
    assert not kept & {row["image"].getpixel((0, 0)) for row in held}


def test_another_process_gives_the_same_digest():
    row = "{'b': np.arange(5), 'a': {'x', 'y', 'z'}, 'c': Image.new('L', (3, 3), 7)}"
    imports = "import numpy as np; from PIL import Image; from tunebook.data.sources.identity import content_of"
    code = f"{imports}; print(content_of({row}).hex())"
    found = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    assert found == {
        content_of({"b": [0, 1, 2, 3, 4], "a": {"x", "y", "z"}, "c": Image.new("L", (3, 3), 7)}).hex() + "\n"
    }


def test_copies_that_are_left_out_are_counted_and_said(tiny_folder):
    from tunebook import FastModel, Trainer, TrainingConfig

    model, tokenizer = FastModel.from_pretrained(tiny_folder, max_seq_length=64)
    rows = [{"prompt": f"Say {n}", "completion": f"the {n}"} for n in range(20)] * 2
    trainer = Trainer(model, tokenizer, train_dataset=rows, args=TrainingConfig(max_steps=1, hold_out=0.1))
    assert (len(trainer.train_rows), len(trainer.eval_rows)) == (32, 4)
    assert any("4 of the 40 rows are held out" in text and "4 copies of them" in text for text in trainer.data.notices)
