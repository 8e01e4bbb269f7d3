"""A name -> a model ready to be tuned: weights, tokenizer, family, and where they came from.

Whatever the name points at (a hub id, a folder, a .gguf file) becomes a model folder first, and mlx-lm or mlx-vlm opens
the folder. This is the only place that decides whether a model is text or vision; past it nobody asks.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.utils import load_model, load_tokenizer, quantize_model
from transformers import PreTrainedTokenizerBase

from ..data.tokenizer_state import bring_up_to_date, digest_of
from ..gguf import read_gguf
from ..machine import runtime
from ..machine.private import new_private_folder
from ..machine.sealed import Damaged, SealedFolder, seal
from ..model_files.believable import check_config
from ..model_files.chat_templates import Templates, read_templates
from ..model_files.checkpoint_config import for_rows, translated, windows_of
from ..model_files.generation_config import usable_generation
from ..model_files.tensor_files import shapes_in
from ..model_files.transformers_config import quiet_transformers
from ..model_files.trusted import Unopened, openable, opening, read_settings, refuse_code, shortened
from ..model_files.unsupported_settings import UnreadableConfig
from .families.base import Family
from .families.quirks import is_of_language
from .families.text import TextFamily
from .fetch import fetch
from .fused_experts import classes_of
from .loaded import Loaded
from .tensors import flat
from .vision_names import open_vision_model
from .windows import apply_windows

DTYPES = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}


def load(
    name: str | Path,
    *,
    max_seq_length: int = 2048,
    dtype: str | mx.Dtype | None = None,
    load_in_4bit: bool = False,
    load_in_8bit: bool = False,
    token: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    text_only: bool | None = None,
    chat_template: str | None = None,
    adapters_folder: Path | None = None,
    say: Callable[[str], None] = print,
) -> Loaded:
    """Find, open and convert a model; `say` is told in a sentence where it came from.

    `dtype` None keeps the checkpoint's own float type on Metal and CUDA and takes float32 on the CPU, where it is the
    fast one. Without `trust_remote_code` no Python of the folder runs. `chat_template` is a template's source, or the
    name of one the tokenizer has. A tokenizer and chat templates that stand in `adapters_folder` are taken in place of
    the model's. Raises ModelNotFound for a name that leads nowhere, FileNotFoundError for a folder without weights,
    CodeNotTrusted, DamagedWeights and Unopened (ValueErrors) for a model in its own code, for files that are not
    whole and for what does not fit together, ValueError for what cannot be tuned here.
    """
    if load_in_4bit and load_in_8bit:
        raise ValueError("load_in_4bit and load_in_8bit are both on; choose one.")
    found = fetch(str(name), revision=revision, token=token)
    say(f"Loading {Path(name).name} {found.source}.")
    folder = _as_folder(found.path)
    _check_folder(folder, name)
    config = read_settings(folder / "config.json")
    _check_config(config, folder)
    sees = _sees(config, name, text_only)
    refuse_code(folder, trust_remote_code=trust_remote_code)
    if left_out := usable_generation(folder)[1]:
        say(left_out)
    config = _said(config, folder, "mlx-vlm" if sees else "mlx-lm")
    shown = openable(folder, trust_remote_code=trust_remote_code, config=for_rows(config, max_seq_length))
    own = adapters_folder if adapters_folder is not None and _has_tokenizer(adapters_folder) else None
    tokenizer_shown = shown if own is None else openable(own, trust_remote_code=trust_remote_code)

    with opening(folder, shown, trust_remote_code=trust_remote_code):
        if sees:
            module = open_vision_model(shown, trust_remote_code=trust_remote_code)
        else:
            module, read = load_model(
                shown, lazy=True, trust_remote_code=trust_remote_code, get_model_classes=classes_of
            )
            config = read | {key: config[key] for key in ("rope_scaling",) if key in config}
            apply_windows(module, windows_of(config))
        processor = _processor(shown, trust_remote_code) if sees else None
    with opening(own or folder, tokenizer_shown, trust_remote_code=trust_remote_code):
        tokenizer = load_tokenizer(
            tokenizer_shown, {"trust_remote_code": trust_remote_code}, eos_token_ids=config.get("eos_token_id")
        )
    _check_floats(module, folder)
    tokenizer.name_or_path = str(own or folder)
    checkpoint_dtype = _float_type(module)
    live_dtype = _as_dtype(dtype) if dtype is not None else runtime.default_dtype(checkpoint_dtype)
    module.set_dtype(live_dtype)
    if load_in_4bit or load_in_8bit:
        module, config = _quantized(module, config, bits=4 if load_in_4bit else 8, name=name, sees=sees)
    mx.eval(module.parameters())
    module.eval()

    beside = None if adapters_folder is None else read_templates(adapters_folder)
    tokenizer.chat_template = _chosen(chat_template, tokenizer.chat_template if beside is None else beside)
    bring_up_to_date(tokenizer)
    with opening(folder, shown, trust_remote_code=trust_remote_code, sentences=(ValueError,)):  # a probe is computed
        family = _vision_family(module, tokenizer, processor, folder, config) if sees else TextFamily(module, tokenizer)
    return Loaded(
        name=str(name),
        source=found.source,
        folder=folder,
        config=config,
        module=module,
        tokenizer=tokenizer,
        family=family,
        checkpoint_dtype=checkpoint_dtype,
        dtype=live_dtype,
        max_seq_length=max_seq_length,
        trust_remote_code=trust_remote_code,
        tokenizer_digest=digest_of(tokenizer) if own is None else "",
        adapters_folder=own,
    )


def _check_config(config: Any, folder: Path) -> None:
    """Raise ValueError for files of weights that are not whole, and for a config that fits no model with them."""
    shapes = [shape for file in sorted(folder.glob("model*.safetensors")) for shape in shapes_in(file).values()]
    check_config(config, shapes, folder / "config.json")


def _said(config: dict[str, Any], folder: Path, library: Literal["mlx-lm", "mlx-vlm"]) -> dict[str, Any]:
    """`config` in the words of `library`. Raises UnreadableConfig for what has none, Unopened where its words fail."""
    try:
        return translated(config, library)
    except UnreadableConfig:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise Unopened(
            f"{folder / 'config.json'} cannot be read ({type(error).__name__}: {shortened(error)}); correct it, or "
            "download or save the model again."
        ) from error


def _has_tokenizer(folder: Path) -> bool:
    """Whether a folder of adapters brings a tokenizer, as PEFT's users and other kits leave it there."""
    return all((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json"))


def _chosen(asked: str | None, found: Templates | None) -> Templates | None:
    """The chat template to use: the one that was asked for, by its source or its name, else what was found."""
    return found[asked] if isinstance(found, dict) and asked in found else asked or found


def _as_folder(path: Path) -> Path:
    """A .gguf file's model folder, written once into the cache and again where it is not what was written; a folder is
    itself.
    """
    if path.is_dir():
        return path
    stat = path.stat()
    identity = hashlib.sha256(f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}".encode()).hexdigest()[:12]
    # Names have 255 bytes on most file systems, and the writer's scratch folder a longer one.
    stem = path.stem.encode()[:100].decode(errors="ignore")
    folder = runtime.cache_folder() / "from-gguf" / f"{stem}-{identity}"
    try:
        SealedFolder(folder).check()
    except Damaged:
        with new_private_folder(folder) as partial:
            read_gguf(path, partial)
            seal(partial)
    return folder


def _check_folder(folder: Path, name: str | Path) -> None:
    missing = [] if (folder / "config.json").exists() else ["config.json"]
    missing += [] if any(folder.glob("model*.safetensors")) else ["model*.safetensors"]
    if missing:
        found = ", ".join(sorted(file.name for file in folder.iterdir())[:6]) or "nothing"
        hint = (
            " It looks like an adapter: load its base model instead."
            if (folder / "adapter_config.json").exists()
            else ""
        )
        raise FileNotFoundError(
            f"{name} is no model folder: {' and '.join(missing)} missing in {folder} (it holds {found}).{hint}"
        )


def _sees(config: dict[str, Any], name: str | Path, text_only: bool | None) -> bool:
    """Whether the model is to read images. Raises ValueError for one that hears, and for images asked of a text model.

    `text_only` None decides by the config: a model that has eyes uses them.
    """
    has_eyes = "vision_config" in config
    if text_only is False and not has_eyes:
        raise ValueError(f"text_only is False, but {name} has no vision_config: it is a text model.")
    if text_only:
        return False
    if "audio_config" in config:
        raise ValueError(
            f"{name} reads sound as well (its config has audio_config), which is not tuned here. Pass text_only=True "
            "to tune its language model alone."
        )
    return has_eyes


# mlx-vlm is imported where it is needed: that takes seconds, and a text model needs none of it.


def _processor(folder: Path, trust_remote_code: bool) -> Any:
    from mlx_vlm.utils import load_processor

    with quiet_transformers():
        # Left to itself mlx-vlm trusts the code of most families.
        return load_processor(folder, add_detokenizer=False, trust_remote_code=trust_remote_code)


def _vision_family(
    module: nn.Module, tokenizer: TokenizerWrapper, processor: Any, folder: Path, config: dict[str, Any]
) -> Family:
    from .families.vision import VisionFamily

    if isinstance(processor, PreTrainedTokenizerBase):
        raise ValueError(
            f"{folder} is more than a text model (its config has vision_config), but holds no processor of images that "
            "mlx-vlm knows. Pass text_only=True to tune its language model alone."
        )
    if not tokenizer.has_chat_template and processor.chat_template is not None:
        tokenizer.chat_template = processor.chat_template
        tokenizer.has_chat_template = True
    return VisionFamily(module, tokenizer, processor, config)


def _check_floats(module: nn.Module, folder: Path) -> None:
    """Raise Unopened for weights that are whole numbers without a scale, as MLX reads 8-bit floats."""
    for name, leaf in module.named_modules():
        weight = leaf.get("weight")
        if not isinstance(weight, mx.array) or {"scales", "weight_scale"} & set(leaf):
            continue
        if not mx.issubdtype(weight.dtype, mx.floating):
            raise Unopened(
                f"{name}.weight in {folder} is stored in a type of 8 bits or of whole numbers, of which MLX does not "
                "make floats; take the model in 16 bits."
            )


def _float_type(module: nn.Module) -> mx.Dtype:
    """The float type that most of the parameters have."""
    sizes: dict[mx.Dtype, int] = {}
    for array in flat(module.parameters()).values():
        if mx.issubdtype(array.dtype, mx.floating):
            sizes[array.dtype] = sizes.get(array.dtype, 0) + array.size
    return max(sizes, key=lambda kind: sizes[kind])


def _as_dtype(dtype: str | mx.Dtype) -> mx.Dtype:
    if isinstance(dtype, str):
        if dtype not in DTYPES:
            raise ValueError(f"dtype is {dtype!r}; choose one of {', '.join(DTYPES)}.")
        return DTYPES[dtype]
    return dtype


def _quantized(
    module: nn.Module, config: dict[str, Any], bits: int, name: str | Path, *, sees: bool
) -> tuple[nn.Module, dict]:
    """`module` with its linear layers and embeddings in `bits`-bit affine groups of 64, as mlx-lm's converter does.

    Of a model that sees, only the language model is: what its eyes lose no adapter brings back.
    """
    if "quantization" in config:
        raise ValueError(
            f"{name} is already quantized ({config['quantization']}); leave out load_in_{bits}bit to use it as it is."
        )
    if not sees:
        return quantize_model(module, config, group_size=64, bits=bits)
    return quantize_model(module, config, group_size=64, bits=bits, quant_predicate=is_of_language)
