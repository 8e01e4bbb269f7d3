"""adapter_config.json as mlx-lm (0.9 to 0.32), mlx-vlm and this kit write it -> one form, that of mlx-lm now.

As with PEFT's, this is a list of what is understood; the rest is refused unless it is off. mlx-lm writes every
argument of its command line into the file, and those of the training decide nothing here.
"""

from typing import Any

from .peft_settings import is_number, shortly

KINDS = ("lora", "dora", "full")
# Where adapters come from and how they were trained: mlx-lm's command line, mlx-vlm's, and what this kit adds.
NO_EFFECT = {
    *("model", "base_model_name_or_path", "adapter_path", "resume_adapter_file", "config", "trust_remote_code", "data"),
    *(
        "train",
        "test",
        "seed",
        "optimizer",
        "optimizer_config",
        "learning_rate",
        "lr_schedule",
        "warmup",
        "weight_decay",
    ),
    *(
        "batch_size",
        "iters",
        "epochs",
        "val_batches",
        "test_batches",
        "steps_per_report",
        "steps_per_eval",
        "save_every",
    ),
    *("max_seq_length", "grad_checkpoint", "grad_accumulation_steps", "gradient_accumulation_steps", "mask_prompt"),
    *("clear_cache_threshold", "report_to", "project_name", "wandb", "prompt", "max_tokens", "temp", "top_p"),
    *(
        "hf_dataset",
        "prompt_feature",
        "completion_feature",
        "chat_feature",
        "text_feature",
        "steps",
        "dataset",
        "split",
    ),
    *("model_path", "output_path", "adapter_file", "train_type", "train_mode", "base_revision", "revision"),
}
UNDERSTOOD = {"fine_tune_type", "use_dora", "num_layers", "lora_layers", "lora_parameters", "modules_to_save"}
PARAMETERS = {"rank", "scale", "dropout", "keys"}


def from_mlx(written: dict[str, Any]) -> dict[str, Any]:
    """fine_tune_type, num_layers and lora_parameters, whole and of the right kinds. Raises ValueError.

    `alpha` beside a `scale` is left: mlx-lm wrote it among its defaults and never computed with it.
    """
    if {"rank", "alpha"} <= written.keys() and "lora_parameters" not in written:
        raise ValueError(_two_readings(written["rank"], written["alpha"], written.get("dropout")))
    complaints = [
        f"{name} is {shortly(value)}, which is not known here"
        for name, value in written.items()
        if name not in NO_EFFECT and name not in UNDERSTOOD and value
    ]
    if complaints:
        move = "Take what changes nothing of the model out of adapter_config.json; else load them where they were made."
        raise ValueError(f"These adapters cannot be opened: {'; '.join(complaints[:8])}. {move}")
    kind = written.get("fine_tune_type", "dora" if written.get("use_dora") is True else "lora")
    layers = written.get("num_layers", written.get("lora_layers", -1))
    if kind not in KINDS:
        complaints.append(f"fine_tune_type is {shortly(kind)}, which must be one of {', '.join(KINDS)}")
    if written.get("use_dora") is True and kind == "lora":
        complaints.append("use_dora is True and fine_tune_type 'lora'; one of them must be wrong")
    if not isinstance(layers, int) or isinstance(layers, bool):
        complaints.append(f"num_layers is {shortly(layers)}, which must be a whole number")
    given = {} if kind == "full" else written.get("lora_parameters")
    lora = given if isinstance(given, dict) else {}
    if lora is not given:
        complaints.append(f"lora_parameters is {shortly(given)}, which must hold rank, scale and dropout")
    elif kind != "full":
        complaints += _wrong_parameters(lora)
    if complaints:
        raise ValueError(f"The settings in adapter_config.json are wrong: {'; '.join(complaints)}. Correct them there.")
    # A whole number of JSON may be one that MLX has no room for; a float has.
    floats = {name: float(lora[name]) for name in ("scale", "dropout") if name in lora and kind != "full"}
    return {"fine_tune_type": kind, "num_layers": layers, "lora_parameters": {"dropout": 0.0, **lora, **floats}}


def _wrong_parameters(lora: dict[str, Any]) -> list[str]:
    rank, dropout, keys = lora.get("rank"), lora.get("dropout", 0.0), lora.get("keys")
    wrong = []
    if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
        wrong.append(f"rank is {shortly(rank)}, which must be a whole number of at least 1")
    if "scale" not in lora and "alpha" in lora:
        wrong.append(
            f"there is an alpha of {shortly(lora['alpha'])} and no scale; write the scale they were trained with, "
            "which for most programs is alpha / rank"
        )
    elif not is_number(lora.get("scale")):
        wrong.append(f"scale is {shortly(lora.get('scale'))}, which must be a finite number")
    if not is_number(dropout) or not 0 <= dropout < 1:
        wrong.append(f"dropout is {shortly(dropout)}, which must be a number from 0 to below 1")
    if keys is not None and not (isinstance(keys, list) and all(isinstance(key, str) for key in keys)):
        wrong.append(f"keys is {shortly(keys)}, which must be a list of names")
    strange = [name for name, value in lora.items() if name not in {*PARAMETERS, "alpha"} and value]
    return wrong + [f"{name} is {shortly(lora[name])}, which is not known here" for name in strange]


def _two_readings(rank: Any, alpha: Any, dropout: Any) -> str:
    rest = f'"rank": {shortly(rank)}, "dropout": {shortly(dropout or 0.0)}'
    readings = f"alpha ({shortly(alpha)})"
    if is_number(alpha) and is_number(rank) and rank > 0:
        readings = f"{alpha} (alpha) or {alpha / rank} (alpha / rank)"
    return (
        f"adapter_config.json has rank {shortly(rank)} and alpha {shortly(alpha)} as mlx-vlm once wrote them, and its "
        "releases do not agree on what alpha means: older ones multiply with it, newer ones with alpha / rank. Write "
        f'"lora_parameters": {{{rest}, "scale": ...}} in their place, with scale {readings}.'
    )
