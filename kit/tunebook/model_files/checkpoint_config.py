"""A config.json in the words of the class it is built with: what transformers reads in it, said as mlx-lm takes it.

The classes of mlx-lm and mlx-vlm take the entries they know and drop the rest without a word, and where one is missing
they have defaults of their own. Comes in what a checkpoint says, in transformers' older words or in those of its
version 5; goes out the same with all that the class takes, as transformers fills it in. What the class cannot take and
what would make another model of it is refused by name.
"""

import importlib
import inspect
from collections.abc import Collection
from typing import Literal

from transformers import PreTrainedConfig

from .transformers_config import Config, read_by_transformers
from .unsupported_settings import ROPE, UnreadableConfig, not_taken, unlike_mlx_lm, window_pattern

_NOT_TAKEN_OVER = ("model_type", "quantization", "quantization_config", "rope_theta", "rope_scaling", "rope_parameters")


def translated(config: Config, library: Literal["mlx-lm", "mlx-vlm"] = "mlx-lm") -> Config:
    """A copy of config.json with the entries the class in `library` takes; transformers reads the same from both.

    A kind of model that transformers does not know is left as it is. Raises UnreadableConfig with every setting that
    cannot be said.
    """
    if library == "mlx-vlm":
        return _of_vision(config)
    nested = config.get("text_config")
    if isinstance(nested, dict) and "model_type" in nested:
        reads, takes = read_by_transformers(config, "text_config"), _fields_of_text(nested)
        text = _section(nested, takes, reads=reads, compared=nested["model_type"] in ROPE)
        return config | {"text_config": text}
    reads, takes = read_by_transformers(config), _fields_of_text(config)
    return _section(config, takes, reads=reads, compared=config.get("model_type") in ROPE)


def windows_of(config: Config) -> dict[int, int]:
    """{decoder layer: the number of tokens it sees, its own among them}, of layers that do not see all before theirs.

    Only for models of mlx-lm that apply no window where transformers does; none for others.
    """
    kind, theirs = config.get("model_type"), read_by_transformers(config)
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
        wrong = unlike_mlx_lm(config, takes, reads, rope) if compared else not_taken(takes, reads, rope)
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
        said["sliding_window_pattern"] = window_pattern(config, reads.layer_types)
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


def _of_vision(config: Config) -> Config:
    """A config for mlx-vlm, whose families keep their entries in sections; that of vision is left as it is."""
    try:
        module = importlib.import_module(f"mlx_vlm.models.{config['model_type']}")
    except ImportError:
        return config  # mlx-vlm says so itself
    said, section, reads = dict(config), config.get("text_config"), read_by_transformers(config, "text_config")
    if isinstance(section, dict) and reads is not None and "TextConfig" in vars(module):
        takes = inspect.signature(vars(module)["TextConfig"]).parameters
        said["text_config"] = _section(section, takes, reads=reads, compared=False)
    if isinstance(said.get("text_config"), dict) and "TextConfig" in vars(module):
        # Some families look for the language model's entries beside the section.
        for name in inspect.signature(vars(module)["TextConfig"]).parameters:
            if name in said["text_config"] and name != "model_type":
                said.setdefault(name, said["text_config"][name])
    vision = config.get("vision_config")
    if isinstance(vision, dict) and "VisionConfig" in vars(module):
        # transformers 5 has other names for the vision tower of some families than the one name mlx-vlm asks for.
        own = inspect.signature(vars(module)["VisionConfig"]).parameters.get("model_type")
        if (
            own is not None
            and isinstance(own.default, str)
            and vision.get("model_type") == f"{config['model_type']}_vision"
        ):
            said["vision_config"] = vision | {"model_type": own.default}
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
