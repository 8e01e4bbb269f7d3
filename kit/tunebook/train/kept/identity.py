"""What a run is a run of: the model, the adapters, the rows and the settings that decide every number of it.

Two runs with the same identity take the same steps, so a checkpoint of the one may be resumed by the other. The model
is known by its content and not by its place, so that a folder may be moved; of what is trained only the form counts, as
a checkpoint holds all of it. Settings that only decide when to look or to save are left out.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from ...config import TrainingConfig
from ...data.encoded import Encoded
from ...models.adapters import describe
from ...models.base_digest import digest_of
from ...models.families.fingerprint import fingerprint
from ...models.loaded import Loaded
from ...models.tensors import flat
from ...objectives.base import Objective
from ...tokens.feed import Feed

# Settings a run may be resumed with another value of.
FREE_SETTINGS = {
    "output_dir",
    "eval_steps",
    "score_steps",
    "per_device_eval_batch_size",
    "save_steps",
    "save_minutes",
    "save_total_limit",
    "load_best_model_at_end",
    "early_stopping_patience",
    "metric_for_best_model",
    "sample_prompts",
    "sample_steps",
    "sample_max_tokens",
    "max_seq_length",  # the length in use is compared instead
}

BASE, FILES = "base", "base weights"
BY_PLACE = {"model", FILES}  # what tells models apart only where nothing of their content is known
NAMES_OF_A_CONFIG = {"_name_or_path", "transformers_version", "auto_map"}  # they decide no number


def identity_of(
    loaded: Loaded,
    config: TrainingConfig,
    feed: Feed,
    max_seq_length: int,
    objective: Objective,
    *,
    base: str,
) -> dict[str, Any]:
    """Named values, plain and comparable; long ones as the first digits of their SHA-256.

    A stream is known by its first rows, the weights that are not trained by what `base_of` says of them.
    """
    trainable = flat(loaded.module.trainable_parameters())
    shapes = {name: f"{array.dtype}{array.shape}" for name, array in trainable.items()}
    settings = {name: value for name, value in config.as_plain().items() if name not in FREE_SETTINGS}
    identity = {
        "model": loaded.name,
        BASE: base,
        "adapters": _digest(json.dumps(describe(loaded.module), sort_keys=True).encode()),
        "trainable parameters": f"{len(shapes)} tensors, {_digest(json.dumps(shapes, sort_keys=True).encode())}",
        "training rows": f"{len(feed.known)} rows{'' if feed.is_whole else ' and more'}, {rows_digest(feed.known)}",
        "max_seq_length in use": max_seq_length,
        **objective.identity(),
        **settings,
    }
    if (files := _files(loaded)) is not None:
        identity[FILES] = files
    if loaded.family.processor is not None:
        plain = json.dumps(fingerprint(loaded.family.processor), sort_keys=True, default=repr)
        identity["processor"] = _digest(plain.encode())
    return identity


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """A line for each value of two identities that differs, of those both have: an earlier version has fewer.

    Where both know the content of the model, its name and its files may be others.
    """
    by_content = BASE in there and BASE in here
    compared = sorted((there.keys() & here.keys()) - (BY_PLACE if by_content else set()))
    return [f"  {key}: {there[key]!r} there, {here[key]!r} here" for key in compared if there[key] != here[key]]


def base_of(loaded: Loaded) -> str:
    """The weights that are not trained, as they are in memory, and the config they are read with; reads all of them."""
    trainable = flat(loaded.module.trainable_parameters())
    frozen = {name: array for name, array in flat(loaded.module.parameters()).items() if name not in trainable}
    config = {name: value for name, value in loaded.config.items() if name not in NAMES_OF_A_CONFIG}
    bits = loaded.config.get("quantization", {}).get("bits")
    form = f"{str(loaded.dtype).rpartition('.')[2]}{f' and {bits} bits' if bits else ''}"
    read_with = _digest(json.dumps(config, sort_keys=True, default=repr).encode())
    return f"{len(frozen)} tensors in {form}, {digest_of(frozen)}, config {read_with}"


def _files(loaded: Loaded) -> str | None:
    """The weight files by name and size, and the model's config, which is all that version 0.1 knew of a base.

    None where they have been moved since the model was loaded.
    """
    try:
        files = sorted((file.name, file.stat().st_size) for file in loaded.folder.glob("model*.safetensors"))
        return _digest(json.dumps([files, (loaded.folder / "config.json").read_text()]).encode())
    except OSError:
        return None


def rows_digest(rows: Sequence[Encoded]) -> str:
    """The first digits of the SHA-256 of rows, in their order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(len(row.tokens).to_bytes(8, "little") + row.tokens.tobytes() + row.loss_mask.tobytes())
        if row.segments is not None:
            digest.update(row.segments.tobytes())
        if row.second or row.label is not None:
            digest.update(repr((row.second, row.label)).encode())
        for image in row.images:
            digest.update(image.digest)
    return digest.hexdigest()[:12]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]
