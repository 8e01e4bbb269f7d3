"""Odd folders of adapters and of models, as a stranger may send them: each is opened in its own process, in limits.

`python bench/fuzz_adapters.py 1000` damages the settings of PEFT's, mlx-lm's and mlx-vlm's adapters, the settings of
their base, and the files of tensors of both. It says how many were opened and how many refused in one sentence, and
names every other outcome: an error that is no sentence, logits that are not finite, a dead process, more than 5 seconds
of a processor or 500 MB. Exit status 1 where there is one. A second number says which folder is the first.
"""

import json
import os
import random
import shutil
import struct
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import mlx.core as mx
import numpy as np
from limited import count_outcomes, outcome, prepare
from mlx.utils import tree_flatten
from safetensors.numpy import save_file

from tests.makers.tiny import tiny_model_folder
from tunebook import FastModel, LoraConfig
from tunebook.models.adapters import add_adapters, describe
from tunebook.train.astray.divergence import spoilt_weights

BASES = ("llama", "qwen2", "gemma2")
SETTINGS = ("config.json", "tokenizer_config.json", "generation_config.json")
# Values as JSON text, since some are none that `json` would write.
ODD = (
    *("null", "true", "false", "0", "1", "-1", "2", "3", "2147483648", "1000000000", "9223372036854775808", "1e400"),
    *("-1e400", "NaN", "Infinity", "0.5", "-0.0", "1e-320", '"8"', '"nan"', '""', "[]", "{}", "[[]]", "[null]"),
    *('{"a": 1}', '"\\u0000"', '"\\ud800"', '"../../x"', "9" * 5000, "[" * 100_000 + "]" * 100_000),
    *('{"a":' * 100_000 + "1" + "}" * 100_000, "[" + "0," * 100_000 + "0]", '"' + "x" * 1_000_000 + '"'),
)
NUMBERS = (0, 1, 7, 255, 1 << 16, 100_000_000, 1 << 31, (1 << 32) - 1, 1 << 40, (1 << 63) - 1, (1 << 64) - 1)


def odd_settings(file: Path, dice: random.Random) -> str:
    """Damage a file of settings; say how."""
    text = file.read_text(encoding="utf-8")
    kind = dice.choice(("value", "value", "value", "value", "key", "away", "whole", "cut", "bytes"))
    if kind == "cut":
        file.write_text(text[: dice.randrange(len(text))], encoding="utf-8")
        return f"{file.name} cut short"
    if kind == "bytes":
        file.write_bytes(dice.choice((b"", b"\xff\xfe", b"\xef\xbb\xbf" + text.encode(), b"\x00" * 50)))
        return f"{file.name} of other bytes"
    odd = dice.choice(ODD)
    if kind == "whole":
        file.write_text(odd, encoding="utf-8")
        return f"{file.name} is {odd[:40]}"
    document = json.loads(text)
    inside = [document, *(value for value in document.values() if isinstance(value, dict) and value)]
    place = dice.choice(inside)
    key = dice.choice(list(place))
    if kind == "away":
        del place[key]
        file.write_text(json.dumps(document), encoding="utf-8")
        return f"{file.name} without {key}"
    key = f"new_{key}" if kind == "key" else key
    place[key] = "@odd@"
    file.write_text(json.dumps(document).replace('"@odd@"', odd, 1), encoding="utf-8")
    return f"{file.name}: {key} is {odd[:40]}"


def odd_tensors(file: Path, dice: random.Random) -> str:
    """Damage a .safetensors file; say how."""
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + length]), bytearray(data[8 + length :])
    name = dice.choice([key for key in header if key != "__metadata__"])
    entry = header[name]
    kind = dice.choice(("length", "dtype", "shape", "offsets", "away", "stranger", "cut", "values", "header", "flip"))
    said = f"{file.name}: {kind} of {name}"
    match kind:
        case "length":
            file.write_bytes(struct.pack("<Q", dice.choice(NUMBERS)) + data[8:])
            return said
        case "cut":
            file.write_bytes(data[: dice.randrange(len(data))])
            return said
        case "flip":
            at = dice.randrange(8 + length)
            file.write_bytes(data[:at] + bytes([data[at] ^ (1 << dice.randrange(8))]) + data[at + 1 :])
            return said
        case "dtype":
            entry["dtype"] = dice.choice(("F64", "I64", "BOOL", "U8", "F16", "BF16", "F8_E4M3", "X", 3, None))
        case "shape":
            entry["shape"] = dice.choice(([], [0], [1 << 62, 4], [-1, 4], entry["shape"][::-1], ["4"], None, 4))
        case "offsets":
            entry["data_offsets"] = dice.choice(([0, 4], [1 << 40, 1 << 41], [-4, 4], [8, 0], [0], None, [0, 1 << 63]))
        case "away":
            del header[name]
        case "stranger":
            header[dice.choice(("", "x", name + ".x", "a" * 100_000, "\0"))] = dict(entry)
        case "header":
            header["__metadata__"] = dice.choice(({"x": "y" * 100_000_000}, {"x": 1}, [], "x"))
        case "values":
            start, end = entry["data_offsets"]
            body[start:end] = np.full((end - start) // 4, dice.choice((np.nan, np.inf, 1e4, 0.0)), "<f4").tobytes()
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + body)
    return said


def make_sources(folder: Path) -> None:
    """Bases, and adapters of three programs for each."""
    for name in BASES:
        base = tiny_model_folder(folder / name, name)
        (base / "generation_config.json").write_text('{"eos_token_id": 2, "temperature": 0.7, "top_p": 0.9}')
        model, _ = FastModel.from_pretrained(base)
        add_adapters(model.module, LoraConfig(r=4, lora_alpha=8, target_modules=("q_proj", "up_proj")))
        own = {key: np.array(value) for key, value in tree_flatten(model.module.trainable_parameters())}
        settings = describe(model.module) or {}
        for kind in ("mlx-lm", "mlx-vlm", "peft"):
            saved = folder / f"{name} {kind}"
            saved.mkdir()
            tensors, said = own, {**settings, "base_model_name_or_path": str(base)}
            if kind == "mlx-lm":
                said = {**settings, "model": str(base), "learning_rate": 1e-5, "iters": 100, "seed": 0, "data": "x"}
            if kind == "mlx-vlm":
                said = {"model": str(base), "lora_parameters": settings["lora_parameters"], "num_layers": -1}
            if kind == "peft":
                tensors = {_of_peft(key): np.ascontiguousarray(value.T) for key, value in own.items()}
                said = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": str(base)}
                said |= {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "use_rslora": False, "use_dora": False}
                said |= {"target_modules": ["q_proj", "up_proj"], "exclude_modules": None, "bias": "none"}
                said |= {"layers_to_transform": None, "layers_pattern": None, "modules_to_save": None}
                said |= {"rank_pattern": {}, "alpha_pattern": {}, "init_lora_weights": True, "revision": None}
                said |= {"fan_in_fan_out": False, "inference_mode": True, "loftq_config": {}, "auto_mapping": None}
            file = "adapter_model.safetensors" if kind == "peft" else "adapters.safetensors"
            save_file(tensors, str(saved / file), {"format": "pt"})
            (saved / "adapter_config.json").write_text(json.dumps(said))


def _of_peft(name: str) -> str:
    return f"base_model.model.{name.replace('lora_a', 'lora_A.weight').replace('lora_b', 'lora_B.weight')}"


def damaged(sources: Path, scratch: Path, dice: random.Random) -> tuple[Path, str]:
    """(a folder to open, what was done to it or to its base)."""
    base = dice.choice(BASES)
    kind = dice.choice(("mlx-lm", "mlx-vlm", "peft", "base", "base"))
    folder = scratch / "odd"
    shutil.copytree(sources / (base if kind == "base" else f"{base} {kind}"), folder)
    files = [folder / name for name in SETTINGS] if kind == "base" else [folder / "adapter_config.json"]
    said = f"{base} {kind}, "
    if dice.random() < 0.7:
        said += odd_settings(dice.choice(files), dice)
    else:
        said += odd_tensors(next(folder.glob("*.safetensors")), dice)
    return folder, said


def open_and_answer(folder: Path) -> str:
    """Say "opened", or what is wrong with what was opened."""
    model, _ = FastModel.from_pretrained(folder)
    logits = model.module(mx.array([[5, 17, 99, 4]]))
    if mx.isfinite(logits).all().item() or spoilt_weights(model.module):  # a trainer names weights that are NaN
        return "opened"
    return "opened with logits that are not finite"


def trials(count: int, first: int, scratch: Path) -> Iterator[tuple[str, str]]:
    """(what was tried, its outcome)."""
    sources = scratch / "sources"
    prepare(partial(make_sources, sources))
    for number in range(first, first + count):
        folder, done = damaged(sources, scratch, random.Random(number))
        yield f"folder {number} ({done})", outcome(partial(open_and_answer, folder))
        shutil.rmtree(folder)


def main(count: int, first: int = 0) -> int:
    """Try `count` folders, from number `first` on."""
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as place:
        return count_outcomes(trials(count, first, Path(place)), ("opened", "refused"))


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:3] or ["200"])))
