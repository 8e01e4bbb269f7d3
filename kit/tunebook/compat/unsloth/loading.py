"""`FastLanguageModel`, `FastVisionModel` and `FastModel`: names and arguments of Unsloth, a model of this kit."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

from ... import FastModel as KitModel
from ...settings.taken import elsewhere
from ..told import tell
from .model import Model
from .tokenizer import Tokenizer, tokenizer_of

BITSANDBYTES = ("-unsloth-bnb-4bit", "-bnb-4bit")
WHOLE = ("embed_tokens", "lm_head")  # which Unsloth trains whole where they are among the target_modules
# Arguments that set nothing here: of CUDA, of vLLM, or the only way there is.
LOADED_ANYHOW = (
    *("device_map", "fix_tokenizer", "use_exact_model_name", "attn_implementation", "low_cpu_mem_usage", "use_cache"),
    *("fast_inference", "gpu_memory_utilization", "max_lora_rank", "disable_log_stats", "unsloth_vllm_standby"),
    *("float8_kv_cache", "return_logits", "unsloth_force_compile"),
)
# Values by which an argument that is not here asks for nothing.
NOTHING = (None, False, "none", "None", {}, [], ())
MADE_ANYHOW: Mapping[str, Any] = {"init_lora_weights": True, "bias": "none"}


class _Fast:
    """The static methods that notebooks call; `tunebook.FastModel` has them too, with this kit's own names."""

    reads_images: Literal[True] | None = None  # None: as the model's config says

    @classmethod
    def from_pretrained(
        cls,
        model_name: str | os.PathLike[str],
        max_seq_length: int = 2048,
        dtype: Any = None,
        load_in_4bit: bool = True,
        load_in_8bit: bool = False,
        full_finetuning: bool = False,
        *,
        use_gradient_checkpointing: bool | str = "auto",
        resize_model_vocab: int | None = None,
        **more: Any,
    ) -> tuple[Model, Tokenizer]:
        """A hub id, a model folder, a folder of adapters or a .gguf file -> (model, tokenizer).

        As in Unsloth the weights are held in 4 bits unless 8 bits, `full_finetuning` or load_in_4bit=False are asked
        for. A name of weights for bitsandbytes is answered with the model they were made of. Raises as
        `tunebook.FastModel.from_pretrained`, TypeError for arguments that would have no effect.
        """
        name, four = _in_place_of_bitsandbytes(str(model_name), revision=more.get("revision"))
        if resize_model_vocab is not None:
            more["resize_model_vocab"] = resize_model_vocab  # the kit has no such argument, and says so
        if more.pop("load_in_16bit", False):
            load_in_4bit = False
        loaded, _ = KitModel.from_pretrained(
            name,
            max_seq_length=max_seq_length,
            dtype=dtype if dtype is None else str(dtype).removeprefix("torch.").removeprefix("mlx.core."),
            load_in_4bit=(load_in_4bit or four) and not (load_in_8bit or full_finetuning),
            load_in_8bit=load_in_8bit,
            full_finetuning=full_finetuning,
            **_without("FastModel.from_pretrained", LOADED_ANYHOW, more),
        )
        if cls.reads_images and loaded.family.placeholder is None:
            raise ValueError(f"{name} reads text alone; load it with FastLanguageModel.from_pretrained.")
        model = Model(loaded.loaded, gradient_checkpointing=_checkpointing(use_gradient_checkpointing))
        return model, tokenizer_of(model.loaded)

    @classmethod
    def get_peft_model(
        cls,
        model: Model,
        r: int = 16,
        target_modules: Sequence[str] | str | None = None,
        lora_alpha: float = 16,
        lora_dropout: float = 0.0,
        *,
        modules_to_save: Sequence[str] | None = None,
        use_gradient_checkpointing: bool | str = "auto",
        max_seq_length: int | None = None,
        finetune_vision_layers: bool | None = None,
        **more: Any,
    ) -> Model:
        """Put adapters on `model`, in place, and return it.

        `embed_tokens` and `lm_head` among the `target_modules` are trained whole, as Unsloth has it. Raises as
        `tunebook.FastModel.get_peft_model`, TypeError for arguments that would have no effect.
        """
        if max_seq_length not in (None, model.max_seq_length):
            tell(
                f"max_seq_length={max_seq_length} of get_peft_model sets nothing: rows are cut at what the model was "
                f"loaded with, {model.max_seq_length}, or at SFTConfig(max_length=...)."
            )
        names, whole = _split(model, target_modules, modules_to_save)
        vision = bool(cls.reads_images) if finetune_vision_layers is None else finetune_vision_layers
        KitModel.get_peft_model(
            model,
            r=r,
            target_modules=names,
            lora_alpha=lora_alpha,
            lora_dropout=lora_dropout,
            modules_to_save=whole,
            use_gradient_checkpointing=cast("Any", _checkpointing(use_gradient_checkpointing)),
            finetune_vision_layers=vision and model.family.placeholder is not None,
            **_without("FastModel.get_peft_model", (), more, MADE_ANYHOW),
        )
        return model

    @staticmethod
    def for_inference(model: Model) -> Model:
        """Switch dropout off. `generate` does so by itself."""
        KitModel.for_inference(model)
        return model

    @staticmethod
    def for_training(model: Model, use_gradient_checkpointing: bool = True) -> Model:
        """Switch dropout on; the trainer does so by itself."""
        if not use_gradient_checkpointing:
            tell("for_training sets no gradient checkpointing: SFTConfig(gradient_checkpointing=False) does.")
        KitModel.for_training(model)
        return model


class FastLanguageModel(_Fast):
    """Models that are trained on texts.

    >>> model, tokenizer = FastLanguageModel.from_pretrained(model_name=name, max_seq_length=128, load_in_4bit=False)
    >>> model = FastLanguageModel.get_peft_model(model, r=4, lora_alpha=8, bias="none", random_state=3407)
    """


class FastVisionModel(_Fast):
    """Models that are trained on images and texts; their adapters are on the vision layers too unless told otherwise.

    `FastVisionModel.from_pretrained(name)` gives a tokenizer that takes images, in a processor's place.
    """

    reads_images = True


class FastModel(_Fast):
    """Models of either kind, as their config says.

    >>> model, tokenizer = FastModel.from_pretrained(name, max_seq_length=128, load_in_4bit=False)
    """


def _in_place_of_bitsandbytes(name: str, revision: str | None) -> tuple[str, bool]:
    """(what is loaded for `name`, whether its weights are to be held in 4 bits)."""
    suffix = next((suffix for suffix in BITSANDBYTES if name.endswith(suffix)), None)
    if suffix is None or os.path.isdir(name):
        return name, False
    base = name.removesuffix(suffix)
    if revision is not None:
        raise ValueError(
            f"{name} holds weights for bitsandbytes, which needs CUDA, and revision {revision!r} is one of that "
            f"repository. Load {base!r} with load_in_4bit=True, without a revision."
        )
    tell(
        f"{name} holds weights for bitsandbytes, which needs CUDA. What they were made of is loaded in their place and "
        f"held in MLX's 4 bits; write from_pretrained({base!r}, load_in_4bit=True)."
    )
    return base, True


def _split(
    model: Model, names: Sequence[str] | str | None, whole: Sequence[str] | None
) -> tuple[Sequence[str] | str | None, Sequence[str] | None]:
    """(modules that get an adapter, modules that are trained as they are)."""
    if names is None or isinstance(names, str):
        return names, whole
    trained = [*(whole or ()), *(name for name in names if name in WHOLE)]
    there = {path.rpartition(".")[2] for path, _ in model.module.named_modules()}
    if "lm_head" in trained and "lm_head" not in there and "embed_tokens" in trained:
        tell("The output head of this model is its embedding: embed_tokens is trained, and lm_head with it.")
        trained = [name for name in trained if name != "lm_head"]
    return [name for name in names if name not in WHOLE], list(dict.fromkeys(trained)) or None


def _checkpointing(asked: bool | str) -> bool | Literal["auto"]:
    """Unsloth's is on wherever memory is short; what fits is computed once here."""
    if asked == "unsloth":
        tell("use_gradient_checkpointing='unsloth' is 'auto' here: on where a run would not fit without.")
    return "auto" if asked in ("unsloth", "auto") else bool(asked) and asked not in ("False", "none")


def _without(
    taker: str, anyhow: Sequence[str], given: Mapping[str, Any], usual: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """`given` without what asks for nothing, or for what is so anyhow; the kit answers what is left and not its own."""
    left: dict[str, Any] = {}
    for name, value in given.items():
        said = elsewhere(taker, name, value)
        if name in (usual or {}) and (usual or {})[name] == value:
            continue
        if name in anyhow:
            if value not in NOTHING:
                tell(f"{name}={value!r} sets nothing here: {said or 'leave it out'}.")
        elif not (said is not None and value in NOTHING):
            left[name] = value
    return left
