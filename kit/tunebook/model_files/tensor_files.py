"""A .safetensors file from anywhere, looked at before MLX opens it: sizes, types and places in it are what they can be.

A path comes in, the shapes of its tensors go out. Only the header is read, and no more of it than a header may have.
"""

from collections.abc import Collection
from pathlib import Path

from safetensors import SafetensorError, safe_open

MAX_HEADER_BYTES = 16_000_000  # a hundred thousand tensors


class DamagedWeights(ValueError):
    """A file of tensors that is not whole, is not there, or is of a type that cannot be read here."""


def shapes_in(path: Path, *, types: Collection[str] = ()) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors in `path`, by name; none of them is read.

    Raises DamagedWeights unless it is a whole .safetensors file, of `types` alone where they are given.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        begun = file.read(40)
    if size < 8 or int.from_bytes(begun[:8], "little") > min(size - 8, MAX_HEADER_BYTES):
        pointer = begun.startswith(b"version https://git-lfs")
        what = "a pointer of Git LFS; run git lfs pull" if pointer else f"{size:,} bytes"
        raise DamagedWeights(f"{path} is no whole .safetensors file ({what}); download, copy or save it again.")
    try:
        with safe_open(str(path), framework="numpy") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 - no dict
            found = {name: tuple(each.get_shape()) for name, each in slices.items()}
            others = [f"{name} is {each.get_dtype()}" for name, each in slices.items() if each.get_dtype() not in types]
    except (SafetensorError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DamagedWeights(
            f"{path} is no whole .safetensors file ({size:,} bytes: {reason}); download, copy or save it again."
        ) from None
    if types and others:
        raise DamagedWeights(
            f"{path} holds {len(others)} tensors of other types than {', '.join(types)} (the first: "
            f"{others[0][:200]}); save them in one of these types."
        )
    return found
