"""Damaged .gguf files, as a stranger may send them: each is read in a process of its own, with limits on what it takes.

`python bench/fuzz_gguf.py 2000` says how many were read and how many refused in one sentence, and names every other
outcome: an error that is no sentence, a dead process, more than 5 seconds or 500 MB. Exit status 1 where there is one.
"""

import os
import random
import resource
import shutil
import struct
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.makers.tiny import tiny_model_folder
from tunebook.gguf import read_gguf, write_gguf

SECONDS, MEGABYTES = 5, 500
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


def outcome(path: Path, folder: Path) -> str:
    """In a forked child: "read", "refused", or what went wrong."""
    began, (ear, mouth) = time.perf_counter(), os.pipe()
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (2 * SECONDS, 2 * SECONDS))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            read_gguf(path, folder)
            said = "read"
        except ValueError as error:
            said = "refused" if "\n" not in str(error) and len(str(error)) < 1000 else f"long: {str(error)[:200]!r}"
        except BaseException as error:  # noqa: BLE001 (what else there is, is what is looked for)
            said = f"{type(error).__name__}: {str(error)[:200]!r}"
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3
        os.write(mouth, (said if grown < MEGABYTES else f"{grown:.0f} MB").encode())
        os._exit(0)
    os.close(mouth)
    _, status, used = os.wait4(child, 0)
    said = os.read(ear, 1000).decode()
    os.close(ear)
    seconds = used.ru_utime + used.ru_stime
    if status or not said:
        return f"died with status {status} after {time.perf_counter() - began:.1f} s"
    return said if seconds < SECONDS else f"{seconds:.1f} s"


def main(count: int) -> int:
    """Try `count` files, of two kinds of tokenizer."""
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as place:
        scratch = Path(place)
        sources = []
        for name in ("llama", "gemma3", "qwen3_moe"):
            folder = tiny_model_folder(scratch / name, name)
            sources.append(write_gguf(folder, scratch / f"{name}.gguf", "f16").path.read_bytes())
        for number in range(count):
            dice = random.Random(number)
            data = dice.choice(sources)
            path, folder = scratch / "odd.gguf", scratch / "out"
            path.write_bytes(damaged(data, data.rindex(b".weight") + 64, dice))
            said = outcome(path, folder)
            shutil.rmtree(folder, ignore_errors=True)
            if (scratch / "out").exists() or said not in ("read", "refused"):
                print(f"file {number}: {said}", flush=True)
            found[said if said in ("read", "refused") else "wrong"] += 1
    print(dict(found))
    return 1 if found["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 200))
