"""The model and the trainer of a config."""

import os
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn

from ... import FastModel, Trainer
from ...models.layers import layers_of
from ...models.tensors import flat
from ..told import tell
from .config_file import Settings, read_config
from .rows import data_of
from .settings import training_config

LAYERS_ALONE = (
    "fine_tune_type: full trains the layers, as in mlx-lm; FastModel.from_pretrained(name, full_finetuning=True) "
    "trains the embeddings, the last norm and the head as well."
)


def trainer_from(config_path: str | os.PathLike[str]) -> Trainer:
    """The trainer of a config of `mlx_lm.lora`, with its model loaded and its rows read.

        >>> trainer = trainer_from("config.yaml")
        >>> result = trainer.train()

    Paths in the file of `config_path` are taken as mlx-lm takes them, from the current folder. Raises ValueError for
    what cannot be followed, with what to write, and what loading a model and reading rows raise.
    """
    return opened(config_path)[1]


def opened(config_path: str | os.PathLike[str]) -> tuple[FastModel, Trainer]:
    """`trainer_from`, with the model, to be saved when it is trained.

    >>> model, trainer = opened("config.yaml")

    `config_path` is as there.
    """
    settings = read_config(config_path)
    data = data_of(settings)
    config = training_config(settings, train_on=data.train_on, has_valid=data.valid is not None)
    lora = None if settings["fine_tune_type"] == "full" else adapter_settings(settings)
    model, tokenizer = FastModel.from_pretrained(
        settings["model"],
        max_seq_length=settings["max_seq_length"],
        full_finetuning=lora is None,
        trust_remote_code=settings["trust_remote_code"],
        random_state=settings["seed"],
    )
    layers = layers_of(model.module)
    last = settings["num_layers"]
    if last > len(layers):
        tell(f"num_layers is {last}, and this model has {len(layers)}: all of them are tuned, where mlx-lm stops.")
    last = len(layers) if last <= 0 else min(last, len(layers))
    if lora is None:
        tell(LAYERS_ALONE)
        model.module.freeze()
        for layer in layers[len(layers) - last :]:
            layer.unfreeze()
    else:
        FastModel.get_peft_model(model, finetune_last_n_layers=last, **lora)
    if settings["resume_adapter_file"] is not None:
        take_up(model.module, Path(settings["resume_adapter_file"]).expanduser())
    trainer = Trainer(
        model,
        tokenizer,
        train_dataset=data.train,
        eval_dataset=data.valid,
        args=config,
        format=data.format,
        formatting_func=data.formatting_func,
    )
    return model, trainer


def adapter_settings(settings: Settings) -> dict[str, Any]:
    """What `FastModel.get_peft_model` is told. Raises ValueError for parameters that mlx-lm has not."""
    kind, lora = settings["fine_tune_type"], dict(settings["lora_parameters"])
    if kind not in ("lora", "dora"):
        raise ValueError(f"fine_tune_type is {kind!r}; mlx-lm has lora, dora and full.")
    keys, dropout = lora.pop("keys", None), lora.pop("dropout", 0.0)
    if missing := [name for name in ("rank", "scale") if name not in lora]:
        raise ValueError(f"lora_parameters lack {' and '.join(missing)}; the scale is what alpha / rank is elsewhere.")
    rank, scale = lora.pop("rank"), lora.pop("scale")
    if lora:
        raise ValueError(f"lora_parameters have {', '.join(lora)}, and mlx-lm reads rank, scale, dropout and keys.")
    return {
        "r": rank,
        "lora_alpha": scale * rank,
        "lora_dropout": dropout,
        "use_dora": kind == "dora",
        "target_modules": None if keys is None else list(keys),
        "random_state": settings["seed"],
    }


def take_up(module: nn.Module, file: Path) -> None:
    """Put the weights of `file`, which mlx-lm or this kit saved, on what is trained of `module`.

    Raises ValueError where they are not those that are trained.
    """
    arrays = cast("dict[str, mx.array]", mx.load(str(file)))
    trained = flat(module.trainable_parameters())
    odd = sorted(
        name
        for name in arrays.keys() | trained.keys()
        if name not in arrays or name not in trained or arrays[name].shape != trained[name].shape
    )
    if odd:
        raise ValueError(
            f"resume_adapter_file is {file}, and {len(odd)} of its weights and of those that are trained do not match, "
            f"the first {odd[0]}. Set fine_tune_type, num_layers and lora_parameters as they were when it was saved."
        )
    module.load_weights([(name, array.astype(trained[name].dtype)) for name, array in arrays.items()], strict=False)
    mx.eval(module.parameters())
