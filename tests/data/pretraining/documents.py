"""Documents with images, encoded as a person's settings say, and what the cache holds of them."""

from dataclasses import replace

from tunebook import MultimodalPretrain
from tunebook.data.opened import ReadingOptions, opened
from tunebook.data.reach import Reach
from tunebook.tokens.encoding import encode

QUIET = {"output_dir": None, "hold_out": 0}
DOG = {"text": "a <image> dog", "images": ["0.png"]}
TEXT = {"text": "the quick brown fox jumps over the lazy dog"}


def encoded(model, rows, folder, *, length=64, reach=None, **settings):
    entry = MultimodalPretrain(rows, image_base_dir=folder, **settings)
    held = opened(rows, ReadingOptions(documents=entry))
    held = held if reach is None else replace(held, reach=reach)
    return encode(held, model.loaded, max_seq_length=length)


def with_this_machine(folder=None):
    return Reach(folder=folder, remote=True, allows=lambda host: host == "127.0.0.1")


def as_lists(made):
    return [(row.tokens.tolist(), row.loss_mask.tolist(), row.number, row.images, row.images_end) for row in made.rows]


def entries(cache):
    return sorted(path.name for path in cache.iterdir()) if cache.exists() else []
