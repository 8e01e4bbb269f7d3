"""A model as mlx-lm alone takes it -> a sentence for each thing it does otherwise than transformers, and from where."""

from ...model_files.checkpoint_config import for_rows, windows_of
from ...model_files.trusted import read_settings
from ...models.fused_experts import classes_of
from ...models.loaded import Loaded


def unlike_stock(loaded: Loaded) -> list[str]:
    """What mlx-lm alone does otherwise with the very same files, an export's as well."""
    if loaded.family.library != "mlx-lm":
        return []
    notes, windows = [], windows_of(loaded.config)
    if windows:
        notes.append(
            f"{len(windows)} layers see {min(windows.values())} tokens and no further (sliding_window in config.json), "
            "which mlx-lm ignores: for texts longer than that it is another model there than here and in transformers."
        )
    if for_rows(loaded.config, loaded.max_seq_length) != loaded.config:
        first = loaded.config["original_max_position_embeddings"]
        notes.append(
            f"Up to {first} tokens the model has its short rotary frequencies (rope_scaling in config.json), where "
            "mlx-lm takes the long ones at every length: it is another model there for texts that are no longer."
        )
    return notes


def misread_by_stock(loaded: Loaded) -> list[str]:
    """The entries of the base's own config.json that mlx-lm alone takes otherwise than transformers does."""
    if loaded.family.library != "mlx-lm":
        return []
    raw = read_settings(loaded.folder / "config.json")
    if "rope_parameters" not in raw:
        return []
    _, arguments = classes_of(raw)
    try:
        there, here = vars(arguments.from_dict(raw)), vars(arguments.from_dict(loaded.config))
    except (KeyError, TypeError, ValueError):
        named = "rope_parameters"
    else:
        named = ", ".join(name for name in there if there[name] != here[name])
    if not named:
        return []
    return [
        f"mlx-lm alone misreads the base these adapters are for ({named}: its config.json was saved by transformers 5, "
        "with rope_parameters); for mlx-lm use save_pretrained_merged."
    ]
