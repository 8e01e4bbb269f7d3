"""Odd .gguf files, as a stranger may send them: each is read and opened in a process of its own, in limits.

`python bench/fuzz_gguf.py 2000` damages the bytes of one half, and puts odd keys, tokens and tensors into whole files
for the other. It says how many were opened and how many refused in one sentence, and names every other outcome: an
error that is no sentence, logits that are not finite, a dead process, a file written elsewhere, more than 5 seconds of
a processor or 500 MB. Exit status 1 where there is one. A second number says which file is the first.
"""

import os
import random
import shutil
import struct
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fuzz_adapters import open_and_answer
from limited import count_outcomes, outcome, prepare
from odd_gguf import changed, contents_of, written

from tests.makers.scored_tokenizers import folder_of
from tests.makers.tiny import tiny_model_folder
from tunebook.gguf import read_gguf, write_gguf

SHAPES = ("llama", "gemma3", "qwen3_moe")
SCORED = {"▁": -1.0, "th": -2.0, "▁the": -3.0, "the": -4.0, "he": -4.0, "in": -5.0, "▁▁": -6.0, "ing": -7.5, "é": -9.0}
NUMBERS = (0, 1, 2, 7, 9, 77, 255, 1 << 16, 1 << 31, (1 << 32) - 1, 1 << 40, 1 << 62, (1 << 64) - 1)


def damaged(data: bytes, header: int, dice: random.Random) -> bytes:
    """One to four damages, most of them before `header`, where keys and table end."""
    bad = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(24 if dice.random() < 0.2 else header if dice.random() < 0.9 else len(bad))
        at = min(at, len(bad) - 9)
        match dice.choice(("flip", "byte", "u32", "u64", "cut", "double", "move")):
            case "flip":
                bad[at] ^= 1 << dice.randrange(8)
            case "byte":
                bad[at] = dice.randrange(256)
            case "u32":
                bad[at : at + 4] = struct.pack("<I", dice.choice(NUMBERS) & 0xFFFFFFFF)
            case "u64":
                bad[at : at + 8] = struct.pack("<Q", dice.choice(NUMBERS))
            case "cut":
                del bad[max(dice.randrange(len(bad)), 32) :]
            case "double":
                bad[at:at] = bad[at : at + dice.choice((1, 4, 8, 40))]
            case "move":
                del bad[at : at + dice.choice((1, 4, 8, 40))]
        if len(bad) < 64:
            break
    return bytes(bad)


def opened(path: Path, folder: Path) -> str:
    """Read the file into `folder` and open that; say "opened", or what is wrong with what was opened or written."""
    kept = {*path.parent.rglob("*"), folder}
    read_gguf(path, folder)
    strangers = [file for file in path.parent.rglob("*") if file not in kept and not file.is_relative_to(folder)]
    return f"wrote {strangers}" if strangers else open_and_answer(folder)


def make_sources(scratch: Path) -> None:
    """Good files: tokenizers of bytes and of scores, dense models and experts."""
    for name in SHAPES:
        write_gguf(tiny_model_folder(scratch / name, name), scratch / f"{name}.gguf", "f16")
    write_gguf(folder_of(scratch / "scored", SCORED, prefix=True), scratch / "scored.gguf", "q8_0")


def trials(count: int, first: int, scratch: Path) -> Iterator[tuple[str, str]]:
    """(what was tried, its outcome)."""
    prepare(partial(make_sources, scratch))
    sources = sorted(scratch.glob("*.gguf"))
    path, folder = scratch / "odd.gguf", scratch / "out"
    for number in range(first, first + count):
        dice = random.Random(number)
        source, done = dice.choice(sources), "bytes damaged"
        if dice.random() < 0.5:
            data = source.read_bytes()
            path.write_bytes(damaged(data, data.rindex(b".weight") + 64, dice))
        else:
            contents = contents_of(source)
            done = "; ".join(changed(contents, dice) for _ in range(dice.choice((1, 1, 1, 2, 3))))
            path.write_bytes(written(contents))
        yield f"file {number} ({source.stem}: {done})", outcome(partial(opened, path, folder))
        shutil.rmtree(folder, ignore_errors=True)


def main(count: int, first: int = 0) -> int:
    """Try `count` files, from number `first` on."""
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as place:
        return count_outcomes(trials(count, first, Path(place)), ("opened", "refused"))


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:3] or ["200"])))
