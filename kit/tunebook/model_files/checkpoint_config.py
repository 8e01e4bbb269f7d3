"""A config.json in the words of the class it is built with: what transformers reads in it, said as mlx-lm takes it.

The classes of mlx-lm and mlx-vlm take the entries they know and drop the rest without a word, and where one is missing
they have defaults of their own. Comes in what a checkpoint says, in transformers' older words or in those of its
version 5; goes out the same with all that the class takes, as transformers fills it in. What the class cannot take and
what would make another model of it is refused by name.
"""

import copy
import importlib
import inspect
import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, fields
from typing import Any, Literal

from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING, PreTrainedConfig
from transformers.utils import logging

Config = dict[str, Any]

# The rotary embeddings that mlx-lm (0.32) computes as transformers does, of the models it is compared with in the
# tests (`tests/test_checkpoint_config.py`); in its other models nothing is checked but what `_ANYWHERE` says.
_ROPE = {
    "llama": ("default", "linear", "dynamic", "llama3", "yarn"),
    "mistral": ("default", "linear", "dynamic", "llama3", "yarn"),
    "qwen2": ("default", "linear", "dynamic", "llama3", "yarn"),
    "qwen3": ("default", "linear", "dynamic", "llama3", "yarn"),
    "smollm3": ("default", "linear", "dynamic", "llama3", "yarn"),
    "qwen3_moe": ("default",),
    "gemma2": ("default",),
    "gemma3_text": ("default", "linear", "llama3", "yarn"),
    "phi3": ("default", "longrope"),
}
# Entries that leave the numbers of a trained model alone, or that are handled by themselves.
_HARMLESS = (
    *("vocab_size", "max_position_embeddings", "initializer_range", "use_cache", "pretraining_tp"),
    *("pad_token_id", "bos_token_id", "eos_token_id", "attention_dropout", "resid_pdrop", "embd_pdrop"),
    *("output_router_logits", "router_aux_loss_coef", "rope_parameters"),
    *("use_sliding_window", "sliding_window", "max_window_layers", "layer_types"),
)
# What changes the numbers of any model: the values that change nothing.
_ANYWHERE = {
    "use_bidirectional_attention": (None, False),
    "attn_logit_softcapping": (None,),
    "final_logit_softcapping": (None,),
    "logit_scale": (None, 1, 1.0),
    "attention_bias": (None, False),
    "mlp_bias": (None, False),
}
_NOT_TAKEN_OVER = ("model_type", "quantization", "quantization_config", "rope_theta", "rope_scaling", "rope_parameters")


class UnreadableConfig(ValueError):
    """A config whose model would be another one here than in transformers."""


def translated(config: Config, library: Literal["mlx-lm", "mlx-vlm"] = "mlx-lm") -> Config:
    """A copy of config.json with the entries the class in `library` takes; transformers reads the same from both.

    A kind of model that transformers does not know is left as it is. Raises UnreadableConfig with every setting that
    cannot be said.
    """
    if library == "mlx-vlm":
        return _of_vision(config)
    nested = config.get("text_config")
    if isinstance(nested, dict) and "model_type" in nested:
        reads, takes = _read(config, "text_config"), _fields_of_text(nested)
        text = _section(nested, takes, reads=reads, compared=nested["model_type"] in _ROPE)
        return config | {"text_config": text}
    return _section(config, _fields_of_text(config), reads=_read(config), compared=config.get("model_type") in _ROPE)


def windows_of(config: Config) -> dict[int, int]:
    """{decoder layer: the number of tokens it sees, its own among them}, of layers that do not see all before theirs.

    Only for models of mlx-lm that apply no window where transformers does; none for others.
    """
    kind, theirs = config.get("model_type"), _read(config)
    if theirs is None or kind not in ("gemma2", "mistral", "phi3", "qwen2", "qwen3", "qwen3_moe"):
        return {}
    said = vars(theirs)
    kinds = said.get("layer_types") or ["sliding_attention"] * said["num_hidden_layers"]
    if said["sliding_window"] is None or said["sliding_window"] >= said["max_position_embeddings"]:
        return {}
    return {layer: said["sliding_window"] for layer, named in enumerate(kinds) if named == "sliding_attention"}


def for_rows(config: Config, max_seq_length: int) -> Config:
    """A translated config for a model that sees no row longer than `max_seq_length` tokens.

    Phi-3 has two sets of rotary frequencies, for rows up to the length it was first trained at and for longer ones;
    mlx-lm (0.32) knows the second alone, so it is given the first under that name. Raises UnreadableConfig where rows
    of both kinds could come.
    """
    rope = config.get("rope_scaling")
    if config.get("model_type") != "phi3" or not isinstance(rope, dict) or rope.get("rope_type") != "longrope":
        return config
    first = config["original_max_position_embeddings"]
    if rope["short_factor"] == rope["long_factor"]:
        return config
    if max_seq_length > first:
        raise UnreadableConfig(
            f"max_seq_length is {max_seq_length}, and this phi3 model has other rotary frequencies (longrope) for rows "
            f"up to {first} tokens than for longer ones, of which mlx-lm takes one set; pass max_seq_length={first}."
        )
    return config | {"rope_scaling": rope | {"long_factor": rope["short_factor"]}}


def _section(
    config: Config, takes: Collection[str] | None, *, reads: PreTrainedConfig | None, compared: bool
) -> Config:
    """One level of a config, said in the entries a class `takes`; None: not known, rotary entries are said anyway.

    `compared`: the class is one of mlx-lm's whose every entry is known.
    """
    if reads is None:
        return dict(config)
    rope, scaling = _ropes(reads)
    if takes is not None:
        wrong = _unlike_mlx_lm(config, takes, reads, rope) if compared else _not_taken(takes, reads, rope)
        if wrong:
            raise UnreadableConfig(
                f"config.json asks for what {'mlx-lm' if compared else 'the model here'} does not do for "
                f"{config['model_type']}, and it would be another model: {'; '.join(wrong)}. Take a model without."
            )
    said = dict(config)
    for name in takes or ():
        if name in _NOT_TAKEN_OVER or said.get(name) is not None or not hasattr(reads, name):
            continue
        value = getattr(reads, name)
        if isinstance(value, bool | int | float | str | list):
            said[name] = value
    if takes is not None and "head_dim" in takes and said.get("head_dim") is None:
        said["head_dim"] = said["hidden_size"] // said["num_attention_heads"]
    if (
        takes is not None
        and "sliding_window_pattern" in takes
        and isinstance(getattr(reads, "layer_types", None), list)
    ):
        said["sliding_window_pattern"] = _pattern(config, reads.layer_types)
    everywhere = rope.get("full_attention", {})
    if "rope_theta" in everywhere:
        names = ("rope_theta", "rope_global_base_freq")
        said |= {name: everywhere["rope_theta"] for name in names if takes is None or name in takes}
    if "sliding_attention" in rope and takes is not None and "rope_local_base_freq" in takes:
        said["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
    if takes is not None and "partial_rotary_factor" in takes and "partial_rotary_factor" in everywhere:
        said["partial_rotary_factor"] = everywhere["partial_rotary_factor"]
    if rope and (takes is None or "rope_scaling" in takes):
        if scaling is not None:
            said["rope_scaling"] = scaling
        elif "rope_scaling" in said:
            said["rope_scaling"] = None
    return said


def _ropes(reads: PreTrainedConfig) -> tuple[dict[str, Config], Config | None]:
    """({kind of layer: its rotary settings}, those of full attention as `rope_scaling` has them)."""
    found = vars(reads).get("rope_parameters")
    if not isinstance(found, dict) or not found:
        return {}, None
    by_kind = {kind: each for kind, each in found.items() if isinstance(each, dict)}
    rope = by_kind if "full_attention" in by_kind else {"full_attention": found}
    if "rope_theta" not in rope["full_attention"]:
        return {}, None
    scaling = {key: value for key, value in rope["full_attention"].items() if key not in _BESIDE_SCALING}
    kind = scaling.get("rope_type", "default")
    if "mrope_section" in scaling and kind == "default":
        return rope, scaling | {"type": "mrope"}
    return rope, None if kind == "default" else scaling | {"type": kind}


_BESIDE_SCALING = ("rope_theta", "partial_rotary_factor", "type")


def _unlike_mlx_lm(
    config: Config, takes: Collection[str], reads: PreTrainedConfig, rope: dict[str, Config]
) -> list[str]:
    """All settings that a class of mlx-lm which is compared with transformers has no place for."""
    wrong = []
    for field in _own_fields(reads):
        if field.name in takes or field.name in _HARMLESS:
            continue
        value = vars(reads)[field.name]
        if value != field.default and value not in _ANYWHERE.get(field.name, ()):
            wrong.append(f"{field.name} is {value!r} (mlx-lm has {field.default!r})")
    wrong += [
        f"{name} is None (mlx-lm needs a number)"
        for name in ("attn_logit_softcapping", "final_logit_softcapping")
        if name in takes and name in config and config[name] is None
    ]
    return wrong + list(_wrong_ropes(config["model_type"], config, reads, rope))


def _not_taken(takes: Collection[str], reads: PreTrainedConfig, rope: dict[str, Config]) -> list[str]:
    """The settings known to change the numbers of any model that a class has no place for."""
    said = vars(reads)
    wrong = [
        f"{name} is {said[name]!r}"
        for name, neutral in _ANYWHERE.items()
        if name in said and name not in takes and said[name] not in neutral
    ]
    scaled = [each for each in rope.values() if each.get("rope_type", "default") not in ("default", "mrope")]
    if scaled and not {"rope_scaling", "rope_parameters"} & set(takes):
        wrong.append(f"rope_type is {scaled[0]['rope_type']!r}")
    return wrong


def _wrong_ropes(kind: str, config: Config, reads: PreTrainedConfig, rope: dict[str, Config]) -> Iterator[str]:
    for layer, each in rope.items():
        named, allowed = each.get("rope_type", "default"), _ROPE[kind] if layer == "full_attention" else ("default",)
        if named not in allowed:
            yield f"rope_type of {layer} is {named!r} (mlx-lm has {', '.join(allowed)})"
        part = each.get("partial_rotary_factor", 1.0)
        if kind != "phi3" and part not in (None, 1, 1.0):
            yield f"partial_rotary_factor is {part!r} (mlx-lm has 1.0)"
        usual = {"yarn": _usual_factor_of_yarn, "longrope": _usual_factor_of_longrope}.get(named)
        given = each.get("attention_factor")
        if usual is not None and given is not None and not math.isclose(given, usual(each, config), rel_tol=1e-6):
            yield f"attention_factor is {given!r} (mlx-lm has {usual(each, config):.6g})"
        if each.get("truncate", True) is not True:
            yield f"truncate is {each['truncate']!r} (mlx-lm has True)"
        if named == "yarn" and bool(each.get("mscale")) != bool(each.get("mscale_all_dim")):
            yield "mscale and mscale_all_dim are not given together (mlx-lm uses either alone)"
    if kind == "gemma3_text":
        pattern = _pattern(config, reads.layer_types)
        if pattern > len(reads.layer_types):
            yield "no layer sees all tokens (mlx-lm needs one)"


def _usual_factor_of_yarn(rope: Config, _: Config) -> float:
    def scale(by: float) -> float:
        return 1.0 if rope["factor"] <= 1 else 0.1 * by * math.log(rope["factor"]) + 1.0

    if rope.get("mscale") and rope.get("mscale_all_dim"):
        return scale(rope["mscale"]) / scale(rope["mscale_all_dim"])
    return scale(1.0)


def _usual_factor_of_longrope(rope: Config, config: Config) -> float:
    first = rope["original_max_position_embeddings"]
    factor = config["max_position_embeddings"] / first
    return 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(first))


def _pattern(config: Config, layer_types: list[str]) -> int:
    """Every how many layers one sees all tokens. Raises UnreadableConfig where they are not evenly spaced."""
    full = [index + 1 for index, kind in enumerate(layer_types) if kind == "full_attention"]
    pattern = full[0] if full else len(layer_types) + 1
    if full != list(range(pattern, len(layer_types) + 1, pattern)):
        raise UnreadableConfig(
            f"config.json asks for what mlx-lm does not do for {config['model_type']}, and it would be another model "
            f"here: layers {full} of {len(layer_types)} see all tokens (mlx-lm has every n-th). Take a model without."
        )
    return pattern


def _of_vision(config: Config) -> Config:
    """A config for mlx-vlm, whose families keep their entries in sections; the section of the eyes is left as it is."""
    try:
        module = importlib.import_module(f"mlx_vlm.models.{config['model_type']}")
    except ImportError:
        return config  # mlx-vlm says so itself
    said, section, reads = dict(config), config.get("text_config"), _read(config, "text_config")
    if isinstance(section, dict) and reads is not None and "TextConfig" in vars(module):
        takes = inspect.signature(vars(module)["TextConfig"]).parameters
        said["text_config"] = _section(section, takes, reads=reads, compared=False)
    if isinstance(said.get("text_config"), dict) and "TextConfig" in vars(module):
        # Some families look for the language model's entries beside the section.
        for name in inspect.signature(vars(module)["TextConfig"]).parameters:
            if name in said["text_config"] and name != "model_type":
                said.setdefault(name, said["text_config"][name])
    eyes = config.get("vision_config")
    if isinstance(eyes, dict) and "VisionConfig" in vars(module):
        # transformers 5 has other names for the eyes of some families than the one name mlx-vlm asks for.
        own = inspect.signature(vars(module)["VisionConfig"]).parameters.get("model_type")
        if (
            own is not None
            and isinstance(own.default, str)
            and eyes.get("model_type") == f"{config['model_type']}_vision"
        ):
            said["vision_config"] = eyes | {"model_type": own.default}
    return said


def _fields_of_text(config: Config) -> Collection[str] | None:
    """The entries that mlx-lm's class for a config takes; None where there is none of that name."""
    from mlx_lm.utils import MODEL_REMAPPING

    kind = config["model_type"]
    try:
        module = importlib.import_module(f"mlx_lm.models.{MODEL_REMAPPING.get(kind, kind)}")
    except ImportError:
        return None
    return inspect.signature(module.ModelArgs).parameters


def _read(config: Config, section: str | None = None) -> PreTrainedConfig | None:
    """What transformers makes of a config, or of a section of it; None for a kind or an entry it does not take."""
    if config.get("model_type") not in CONFIG_MAPPING:
        return None
    try:
        with quiet_transformers():
            whole = CONFIG_MAPPING[config["model_type"]].from_dict(copy.deepcopy(config))
    except (AttributeError, KeyError, StrictDataclassError, TypeError, ValueError):
        return None
    return whole if section is None else vars(whole).get(section)


def _own_fields(reads: PreTrainedConfig) -> Iterator[Any]:
    """What a kind of config has beside what all have, and whether its head is its embedding."""
    common = {field.name for field in fields(PreTrainedConfig)} - {"tie_word_embeddings"}
    yield from (field for field in fields(reads) if field.name not in common and field.default is not MISSING)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Without its remarks on entries it renames, and its advice on arguments that libraries pass by themselves."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
