"""Why a folder is not opened, in place of what a library says: what is wrong with which file, and the next move."""

from pathlib import Path
from typing import Any

from ..families.language_alone import has_language_model, instead_of_images

_SHOWN = 80  # letters of what a library says
_PICKLES = ("pytorch_model*.bin", "*.pt", "*.pth")


def why_no_module(config: dict[str, Any], path: Path, said: object, *, sees: bool) -> str | None:
    """Why a model of `config`, which a library could not build and said why, cannot be; None where it is not told."""
    if isinstance(config.get("quantization_config"), dict):
        method = config["quantization_config"].get("quant_method")
        by = f"by {method!r}" if isinstance(method, str) else "by a method that it does not name (quant_method)"
        library = "mlx-vlm" if sees else "mlx-lm"
        return (
            f"{path / 'config.json'} says that the weights were quantized {by} (quantization_config), and {library} "
            f"does not open them so ({_beginning(said)}). Take the model they were made from, in 16 bits, and pass "
            "load_in_4bit=True."
        )
    if not sees and not has_language_model(config):
        has_images = "vision_config" in config
        move = "Leave out text_only=True, or take another model." if has_images else "Take another model."
        return (
            f"{path / 'config.json'} has model_type {config.get('model_type')!r}, which mlx-lm has no model of. {move}"
        )
    return None


def _beginning(said: object) -> str:
    """The beginning of what a library says, on one line."""
    text = " ".join(str(said).split())
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def why_no_model(folder: Path, name: str | Path) -> str | None:
    """Why a folder is none of a model; None where it may be one."""
    missing = [] if (folder / "config.json").exists() else ["config.json"]
    missing += [] if any(folder.glob("model*.safetensors")) else ["model*.safetensors"]
    if not missing:
        return None
    found = ", ".join(sorted(file.name for file in folder.iterdir())[:6]) or "nothing"
    said = f"{name} is no model folder: {' and '.join(missing)} missing in {folder} (it holds {found})."
    pickles = sorted(file.name for pattern in _PICKLES for file in folder.glob(pattern))
    others = sorted(file.name for file in folder.glob("*.safetensors"))
    if (folder / "adapter_config.json").exists():
        return f"{said} It looks like an adapter: load its base model instead."
    if pickles:
        return (
            f"{said} {pickles[0]} is a pickle, which can run code when it is opened and is not. Where torch and "
            f"transformers are: AutoModelForCausalLM.from_pretrained({str(folder)!r}).save_pretrained({str(folder)!r})."
        )
    if len(others) == 1 and missing == ["model*.safetensors"]:
        return f"{said} If {others[0]} is the model, rename it to model.safetensors."
    return said


def why_no_images(config: dict[str, Any], said: str) -> str:
    """`said`, and what to do with a model that cannot be tuned on images."""
    return f"{said} {instead_of_images(config)}"
