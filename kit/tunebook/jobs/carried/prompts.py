"""Prompts that samples are taken of, as they were rendered: texts, token ids and images, by value."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...data.examples import Example, Image, Text, Tokens
from ...data.images import ImageReference, opened
from ...models.generation import Prompt


def as_plain(prompts: Sequence[Prompt]) -> list[dict[str, Any]]:
    """Values that JSON keeps as they are."""
    return [
        {
            "shown": prompt.shown,
            "rendered": prompt.example.rendered,
            "parts": [_part(part) for part in prompt.example.parts],
        }
        for prompt in prompts
    ]


def from_plain(plain: Sequence[Mapping[str, Any]]) -> list[Prompt]:
    """The prompts that `as_plain` was given."""
    return [
        Prompt(one["shown"], Example(tuple(_read(part) for part in one["parts"]), rendered=one["rendered"]))
        for one in plain
    ]


def content_of(image: ImageReference) -> bytes:
    """An image as a file holds it; one in memory as a PNG, which has every pixel of it."""
    if isinstance(image.source, Path):
        return image.source.read_bytes()
    if isinstance(image.source, bytes):
        return image.source
    file = io.BytesIO()
    opened(image).save(file, "PNG")
    return file.getvalue()


def _part(part: Text | Image | Tokens) -> dict[str, Any]:
    match part:
        case Text(text, supervised):
            return {"text": text, "supervised": supervised}
        case Tokens(ids, supervised):
            return {"ids": list(ids), "supervised": list(supervised)}
        case Image(image):
            return {"image": base64.b64encode(content_of(image)).decode(), "digest": image.digest.hex()}


def _read(plain: Mapping[str, Any]) -> Text | Image | Tokens:
    if "text" in plain:
        return Text(plain["text"], plain["supervised"])
    if "ids" in plain:
        return Tokens(tuple(plain["ids"]), tuple(plain["supervised"]))
    return Image(ImageReference(base64.b64decode(plain["image"]), bytes.fromhex(plain["digest"])))
