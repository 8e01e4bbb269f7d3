"""What is tried before a run: forms beside those that are usual on a machine, and the plain ones to fall back on."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

from ...fast.forms import Forms
from ...machine import runtime
from ...machine.runtime import Backend

# Each part of a pass as MLX and the model libraries compute it.
PLAIN: dict[str, Any] = {
    "losses": "fused",
    "attention": "whole",
    "mlp": "plain",
    "lora": "plain",
    "norms": "fused",
    "convolutions": "plain",
    "delta": "chunks",
    "compiled": False,
}

# Values of one part that are tried in turn, the part's own name for people first. On the CPU nothing is timed: what is
# usual there was measured on the CPU, and a busy machine would have a run choose by chance.
TRIED: dict[Backend, dict[str, tuple[Any, ...]]] = {
    "cpu": {},
    "metal": {
        "compiled": (True, False),
        "attention": ("whole", "blocks"),
        "mlp": ("remade", "lean", "plain"),
        "lora": ("small scale", "plain"),
        "delta": ("kernel", "chunks"),
        "logit_bytes": (64 * 2**20, 256 * 2**20),
    },
    "cuda": {
        "compiled": (True, False),
        "attention": ("whole", "blocks"),
        "mlp": ("remade", "lean", "plain"),
        "lora": ("small scale", "plain"),
        "logit_bytes": (64 * 2**20, 256 * 2**20),
    },
}


def simpler(forms: Forms) -> Iterator[tuple[str, Forms]]:
    """(what is left out, forms) with one part plain, and then with all of them; to find what is wrong with `forms`."""
    plain = {name: value for name, value in PLAIN.items() if getattr(forms, name) != value}
    for name, value in plain.items():
        yield in_words(name, getattr(forms, name)), replace(forms, **{name: value})
    if len(plain) > 1:
        yield "all of them", replace(forms, **plain)


def others(forms: Forms, backend: Backend) -> Iterator[tuple[str, str, Any]]:
    """(words, name of the part, value) of what is tried beside `forms`, one part at a time."""
    for name, values in TRIED[backend].items():
        for value in values:
            if getattr(forms, name) != value:
                yield in_words(name, value), name, value


def in_words(name: str, value: Any) -> str:
    """A part's form for people: "attention: blocks", "logits: 64 MiB at a time"."""
    if name == "logit_bytes":
        return f"logits: {value // 2**20} MiB at a time"
    if name == "compiled":
        return "compiled" if value else "not compiled"
    return f"{name}: {value}"


def as_plain(forms: Forms) -> dict[str, Any]:
    """Forms as values that JSON keeps, with the backend they are for: the one in use."""
    return {**asdict(forms), "backend": runtime.backend()}


def from_plain(plain: dict[str, Any], usual: Forms) -> Forms:
    """What `as_plain` gave; `usual` where it was for another backend, and for parts it does not name."""
    if plain.get("backend") != runtime.backend():
        return usual
    return replace(usual, **{name: value for name, value in plain.items() if name in asdict(usual)})
