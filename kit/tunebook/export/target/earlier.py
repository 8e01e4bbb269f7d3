"""What an export wrote to a folder before there was a list: told by the model card, or by the adapters' settings.

In comes a folder without `tunebook.json`, out go the names of the files that are such an export's, none for a folder of
somebody else. A name alone is never enough: each file has to hold what that export wrote there.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

EarlierForm = Literal["lora", "peft", "merged", "gguf"]

CARD = "README.md"
_MARK = "- tunebook"
_TITLES = (
    "mlx-lm:",
    "mlx-vlm:",
    "transformers:",
    "transformers and PEFT:",
    "llama.cpp, Ollama and LM Studio open the files:",
)

_LORA = {"base_model_name_or_path", "fine_tune_type", "num_layers", "lora_parameters"}
_PEFT = {
    *("peft_type", "task_type", "base_model_name_or_path", "r", "lora_alpha", "lora_dropout", "target_modules"),
    *("modules_to_save", "use_dora", "use_rslora", "bias", "inference_mode"),
}
_TOKENIZER = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json"),
    *("vocab.txt", "merges.txt", "tokenizer.model", "chat_template.jinja", "chat_template.json"),
)
_OF_IMAGES = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")
_SHARD = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")
_INDEX = "model.safetensors.index.json"
_MAX_HEADER = 100_000_000  # bytes


def earlier_export(folder: Path) -> dict[str, EarlierForm]:
    """name -> form of the files an export left in `folder` when none kept a list yet."""
    card = _card(folder / CARD)
    form = _form_of_adapters(folder) if card is None else _form_of_card(card)
    match form:
        case "lora" | "peft":
            names = list(_adapters(folder))
        case "merged":
            names = list(_merged(folder))
        case "gguf":
            names = list(_gguf(folder, card or ""))
        case None:
            return {}
    return dict.fromkeys([*names, *([CARD] if card is not None and _is_untouched(card) else [])], form)


def _card(path: Path) -> str | None:
    """The text of a model card of ours."""
    if path.is_symlink() or not path.is_file():
        return None
    try:
        text = path.read_text(encoding="utf-8")
    except ValueError:
        return None
    front, between, _ = text.removeprefix("---\n").partition("\n---\n")
    return text if text.startswith("---\n") and between and _MARK in front.splitlines() else None


def _form_of_card(card: str) -> EarlierForm | None:
    front = card.split("\n---\n")[0].splitlines()
    libraries = [line.removeprefix("library_name: ") for line in front if line.startswith("library_name: ")]
    match libraries:
        case ["peft"]:
            return "peft"
        case ["gguf"]:
            return "gguf"
        case ["mlx"]:
            return "lora" if "- lora" in front else "merged"
        case _:
            return None


def _is_untouched(card: str) -> bool:
    """Whether a card says what cards of ours say and nothing else, so that no words of a person are lost with it."""
    body = re.sub(r"```(sh|python)\n.*?\n```", "", card.partition("\n---\n")[2], flags=re.DOTALL)
    rest = [line for line in body.splitlines() if line and not line.startswith("| ") and line != "|---|---|"]
    return len(rest) > 1 and rest[0].startswith("# ") and all(line in _TITLES for line in rest[1:])


def _form_of_adapters(folder: Path) -> EarlierForm | None:
    """The form of adapters whose settings are, entry by entry, those that we write and other programs do not."""
    settings = _object(folder / "adapter_config.json")
    if _LORA <= settings.keys() <= {*_LORA, "modules_to_save"} and _is_of_mlx(folder / "adapters.safetensors"):
        return "lora"
    is_peft = settings.keys() == _PEFT and _is_of_mlx(folder / "adapter_model.safetensors")
    return "peft" if is_peft else None


def _adapters(folder: Path) -> Iterator[str]:
    form = _form_of_adapters(folder)
    if form is not None:
        yield from ("adapter_config.json", "adapters.safetensors" if form == "lora" else "adapter_model.safetensors")
        yield from _beside(folder)


def _merged(folder: Path) -> Iterator[str]:
    shards = [path.name for path in sorted(folder.iterdir()) if _SHARD.fullmatch(path.name) and _is_of_mlx(path)]
    if shards and "model_type" in _object(folder / "config.json"):
        yield from ("config.json", *shards)
        yield from (name for name in (_INDEX, "generation_config.json", *_OF_IMAGES) if _object(folder / name))
        yield from _beside(folder)


def _gguf(folder: Path, card: str) -> Iterator[str]:
    """The files the card names."""
    for path in sorted(folder.iterdir()):
        if path.suffix == ".gguf" and path.name in card and _begins(path, b"GGUF"):
            yield path.name
            beside = path.with_suffix(".Modelfile")
            if _begins(beside, f"FROM ./{path.name}\n".encode()):
                yield beside.name


def _beside(folder: Path) -> Iterator[str]:
    yield from (name for name in _TOKENIZER if (folder / name).is_file() and not (folder / name).is_symlink())
    yield from (f"{path.parent.name}/{path.name}" for path in (folder / "additional_chat_templates").glob("*.jinja"))


def _object(path: Path) -> dict[str, Any]:
    """A JSON object; empty for what is none."""
    if path.is_symlink() or not path.is_file():
        return {}
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _is_of_mlx(path: Path) -> bool:
    """Whether a .safetensors file was written by MLX, as all of ours are."""
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length < _MAX_HEADER:
            return False
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError):
            return False
    return isinstance(header, dict) and header.get("__metadata__") == {"format": "mlx"}


def _begins(path: Path, start: bytes) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(start)) == start
