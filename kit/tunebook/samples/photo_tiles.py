"""The two photographs that scikit-learn brings, as documents for continued pretraining on text with images.

A folder goes in: small tiles cut from the photographs are written to it as PNG files, and rows of text and references
to them come out. Each sentence is computed from the pixels, so that what a model has learnt can be judged.
"""

import colorsys
import io
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any, cast

import numpy as np

NAMES = ("china", "flower")
SIDE = 24  # pixels a tile is high and wide
GREYEST = 0.15  # a colour of less saturation (of HSV, 0 to 1) is called grey
HUES = ((20, "red"), (45, "orange"), (70, "yellow"), (165, "green"), (195, "cyan"), (260, "blue"), (330, "violet"))
LIGHTNESSES = ((0.25, "dark"), (0.6, "medium"), (1.01, "light"))  # luma (0 to 1) below which a colour is called so

# The whole vocabulary of the sentences below, for a tokenizer that shall have a token for each word.
WORDS = (
    "A tile of china, at the top left right bottom: dark medium light grey red orange yellow green cyan blue violet. "
    "The first second is lighter. Row tiles in flower, flower:"
)


@dataclass(frozen=True)
class Tile:
    """One square of a photograph."""

    photograph: str
    row: int  # counted from the top
    column: int  # counted from the left
    pixels: np.ndarray  # (SIDE, SIDE, 3) uint8
    place: str  # "top left", ...

    @property
    def file(self) -> str:
        """What its file is called, such as "china-03-11.png": photograph, row, column."""
        return f"{self.photograph}-{self.row:02}-{self.column:02}.png"


def write_documents(folder: Path, placeholder: str) -> list[dict[str, Any]]:
    """Write the tiles to `folder`, and return the documents that show them; see `samples.photographs`."""
    tiles = [tile for name, pixels in zip(NAMES, _photographs(), strict=True) for tile in _cut(name, pixels)]
    folder.mkdir(parents=True, exist_ok=True)
    for tile in tiles:
        _write(folder / tile.file, tile.pixels)
    documents = [*_about_rows(tiles), *_about_tiles(tiles, placeholder)]
    random.Random(0).shuffle(documents)
    return documents


def colour_of(pixels: np.ndarray) -> str:
    """The mean colour in words, such as "dark green"; `pixels` are (..., 3), 0 to 255."""
    red, green, blue = mean = pixels.reshape(-1, 3).mean(axis=0) / 255
    hue, saturation, _ = colorsys.rgb_to_hsv(red, green, blue)
    name = "grey" if saturation < GREYEST else next((name for end, name in HUES if hue * 360 < end), "red")
    return f"{next(name for end, name in LIGHTNESSES if _luma(mean) < end)} {name}"


def _luma(rgb: np.ndarray) -> float:
    """How light a colour is to the eye, in the unit of `rgb`; (..., 3), averaged. ITU-R BT.601, section 2.5.1."""
    return float((rgb.reshape(-1, 3) @ (0.299, 0.587, 0.114)).mean())


def _photographs() -> list[np.ndarray]:
    """The photographs of NAMES, each (427, 640, 3) uint8."""
    try:
        from sklearn.datasets import load_sample_images
    except ImportError as error:
        raise ImportError("samples.photographs() are those of scikit-learn: pip install scikit-learn") from error
    bundled = cast("Any", load_sample_images())  # a dict with attributes, which its annotation does not tell
    by_name = {Path(file).stem: pixels for file, pixels in zip(bundled.filenames, bundled.images, strict=True)}
    return [by_name[name] for name in NAMES]


def _cut(name: str, photograph: np.ndarray) -> Iterator[Tile]:
    """Tiles side by side, none over another; what is left over at the right and at the bottom is not used."""
    height, width, _ = photograph.shape
    for row in range(height // SIDE):
        for column in range(width // SIDE):
            top, left = row * SIDE, column * SIDE
            vertical = "top" if top + SIDE / 2 < height / 2 else "bottom"
            horizontal = "left" if left + SIDE / 2 < width / 2 else "right"
            pixels = photograph[top : top + SIDE, left : left + SIDE]
            yield Tile(name, row, column, pixels, f"{vertical} {horizontal}")


def _write(path: Path, pixels: np.ndarray) -> None:
    """Write a PNG file unless it is there: a file written anew would count as another image."""
    from PIL import Image

    memory = io.BytesIO()
    Image.fromarray(pixels).save(memory, "png")
    if not path.is_file() or path.read_bytes() != memory.getvalue():
        path.write_bytes(memory.getvalue())


def _about_tiles(tiles: list[Tile], placeholder: str) -> Iterator[dict[str, Any]]:
    """Each tile in one document, by turns one tile alone and two together."""
    rest = iter(random.Random(1).sample(tiles, len(tiles)))
    for count in cycle((1, 2)):
        shown = list(islice(rest, count))
        if not shown:
            return
        sentences = [_sentence(tile, placeholder) for tile in shown]
        if len(shown) == 2:
            first, second = (_luma(tile.pixels) for tile in shown)
            sentences.append(f"The {'first' if first > second else 'second'} is lighter.")
        yield {"text": " ".join(sentences), "images": [tile.file for tile in shown]}


def _sentence(tile: Tile, placeholder: str) -> str:
    return f"{placeholder} A tile of {tile.photograph}, at the {tile.place}: {colour_of(tile.pixels)}."


def _about_rows(tiles: list[Tile]) -> Iterator[dict[str, Any]]:
    """Text alone: the mean colour of each row of tiles."""
    for name in NAMES:
        for row in range(1 + max(tile.row for tile in tiles)):
            pixels = np.stack([tile.pixels for tile in tiles if (tile.photograph, tile.row) == (name, row)])
            yield {"text": f"Row {row} of the tiles in {name}: {colour_of(pixels)}.", "images": []}
