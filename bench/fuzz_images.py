"""Damaged images by the thousand: every one is read, or refused in one sentence, within 5 seconds and 500 MB.

    python bench/fuzz_images.py [how many] [number of the first]

Each is a good file of one of the formats that are opened, with bytes changed, cut off, repeated or put elsewhere.
"""

import io
import sys
import warnings
from functools import partial

import numpy as np
from limited import count_outcomes, is_refusal, outcome
from PIL import Image

from tunebook.data.decoders import FORMATS
from tunebook.data.images import looked_at, opened, refer


def main(count: int, first: int = 0) -> int:
    """Try `count` files, from number `first` on."""
    good = [_saved(kind, mode) for kind in FORMATS for mode in ("RGB", "L", "P")]
    numbers = range(first, first + count)
    tried = ((f"file {number}", outcome(partial(read, good, number), ())) for number in numbers)
    return count_outcomes(tried, ("read", "refused"))


def read(good: list[bytes], number: int) -> str:
    """Damage a file and open it; say "read", or "refused" where a sentence names the picture."""
    warnings.simplefilter("ignore")  # Pillow's own, of EXIF data
    try:
        opened(looked_at(refer(_damaged(good[number % len(good)], np.random.default_rng(number)))))
    except ValueError as error:
        if is_refusal(error) and str(error).startswith("an image in memory"):
            return "refused"
        raise
    return "read"


def _saved(kind: str, mode: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    image, file = Image.fromarray(pixels).convert(mode), io.BytesIO()
    image = image if kind in ("PNG", "GIF", "TIFF", "BMP") or mode == "RGB" else image.convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(file, kind.upper(), **({"exif": exif} if kind in ("PNG", "JPEG", "WebP", "TIFF") else {}))
    return file.getvalue()


def _damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """`content` with a few bytes changed, most of them near its head, where sizes and offsets are."""
    made = bytearray(content)
    for _ in range(rng.integers(1, 12)):
        reach = min(len(made), 80 if rng.random() < 0.6 else len(made))
        made[rng.integers(reach)] = rng.choice([0, 1, 127, 128, 255, int(rng.integers(256))])
    how, place = rng.integers(5), int(rng.integers(len(made)))
    if how == 0:
        return bytes(made[:place])
    if how == 1:
        return bytes(made[:place] + made[place // 2 :])
    return bytes(made)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:3] or ["1000"])))
