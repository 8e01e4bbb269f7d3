"""Damaged images by the thousand: every one is read, or refused in one sentence, within 5 seconds and 500 MB.

    python bench/fuzz_images.py [how many] [seed]

Each is a good file of one of the formats that are opened, with bytes changed, cut off, repeated or put elsewhere.
"""

import io
import resource
import sys
import time
import warnings
from collections import Counter

import numpy as np
from PIL import Image

from tunebook.data.decoders import FORMATS
from tunebook.data.images import looked_at, opened, refer


def main(count: int = 1000, seed: int = 0) -> None:
    """Try `count` files and print what became of them; exits with 1 where one did not end as it should."""
    warnings.simplefilter("ignore")  # Pillow's own, of EXIF data
    rng, outcomes, wrong, slowest = np.random.default_rng(seed), Counter[str](), [], 0.0
    good = [_saved(kind, mode) for kind in FORMATS for mode in ("RGB", "L", "P")]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(count):
        content, began = _damaged(good[number % len(good)], rng), time.perf_counter()
        try:
            opened(looked_at(refer(content)))
            outcomes["read"] += 1
        except ValueError as error:
            said = str(error)
            outcomes["refused"] += 1
            if "\n" in said or len(said) > 400 or not said.startswith("an image in memory"):
                wrong.append(f"{number}: {said!r}")
        except Exception as error:  # noqa: BLE001 - anything else is what is looked for
            wrong.append(f"{number}: {type(error).__name__}: {error}")
        seconds = time.perf_counter() - began
        slowest = max(slowest, seconds)
        if seconds > 5:
            wrong.append(f"{number}: took {seconds:.1f} s")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024  # MB on Linux
    print(f"{count} files: {dict(outcomes)}, slowest {slowest:.2f} s, {grown:.0f} MB more at the peak")
    if grown > 500:
        wrong.append(f"{grown:.0f} MB")
    print("\n".join(wrong[:20]) or "every one was read or refused in one sentence")
    sys.exit(bool(wrong))


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
    main(*map(int, sys.argv[1:]))
