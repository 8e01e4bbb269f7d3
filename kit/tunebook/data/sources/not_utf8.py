"""A text file that is not UTF-8 -> what is said of it: which lines, what they seem to be, and the line that mends it.

Nothing is decoded by guess: the person sees a line as it would read and decides.
"""

from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from pathlib import Path

from .places import Place, named


def not_utf8(path: Path, byte: int) -> ValueError:
    """The error for a file whose byte at `byte` is no part of UTF-8."""
    wrong: list[tuple[int, bytes]] = []
    others_are_utf8 = False
    with path.open("rb") as file:
        is_utf16 = file.read(2) in (BOM_UTF16_LE, BOM_UTF16_BE)
        file.seek(byte)
        value = file.read(1)[0]
        file.seek(0)
        for number, raw in enumerate(file, 1):
            if not raw.isascii():
                if _is(raw, "utf-8"):
                    others_are_utf8 = True
                else:
                    wrong.append((number, raw))
    where, number = named([Place("line", number) for number, _ in wrong]), wrong[0][0]
    what = f"{path}, line {number} is not UTF-8: byte {byte} of the file is 0x{value:02x}."
    if is_utf16:
        return ValueError(f"{what} It is UTF-16; {_rewrite(path, 'utf-16')}")
    codec = "cp1252" if all(_is(raw, "cp1252") for _, raw in wrong) else "latin-1"
    read = f"{wrong[0][1].decode(codec).strip()[:120]!r}"
    if others_are_utf8:
        return ValueError(
            f"{what} Other lines are, so it was put together from files of two encodings: {where} would read in "
            f"{codec} as in {read}. Write those lines again in UTF-8, or delete them."
        )
    more = f" So it is in {len(wrong)} lines ({where})." if len(wrong) > 1 else ""
    return ValueError(f"{what}{more} In {codec} the line reads {read}; if that is right, {_rewrite(path, codec)}")


def _rewrite(path: Path, codec: str) -> str:
    line = f"import pathlib; file = pathlib.Path({str(path)!r}); "
    return f"save it as UTF-8: {line}file.write_bytes(file.read_bytes().decode({codec!r}).encode())"


def _is(raw: bytes, codec: str) -> bool:
    try:
        raw.decode(codec)
    except UnicodeDecodeError:
        return False
    return True
