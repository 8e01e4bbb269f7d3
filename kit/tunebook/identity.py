"""What a run is a run of: the model, the adapters, the rows and the settings that decide every number of it.

Two runs with the same identity take the same steps, so a checkpoint of the one may be resumed by the other. Settings
that only decide when to look or to save are left out.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from .adapters import describe
from .config import TrainingConfig
from .families.base import Encoded
from .feed import Feed
from .loader import Loaded
from .tensors import flat

# Settings a run may be resumed with another value of.
FREE_SETTINGS = {
    "output_dir",
    "eval_steps",
    "per_device_eval_batch_size",
    "save_steps",
    "save_minutes",
    "save_total_limit",
    "load_best_model_at_end",
    "early_stopping_patience",
    "sample_prompts",
    "sample_steps",
    "sample_max_tokens",
    "max_seq_length",  # the length in use is compared instead
}


def identity_of(loaded: Loaded, config: TrainingConfig, feed: Feed, max_seq_length: int) -> dict[str, Any]:
    """Named values, plain and comparable; long ones as the first digits of their SHA-256.

    A stream is known by its first rows.
    """
    shapes = {name: f"{array.dtype}{array.shape}" for name, array in flat(loaded.module.trainable_parameters()).items()}
    settings = {name: value for name, value in config.as_plain().items() if name not in FREE_SETTINGS}
    return {
        "model": loaded.name,
        "base weights": _files(loaded),
        "adapters": _digest(json.dumps(describe(loaded.module), sort_keys=True).encode()),
        "trainable parameters": f"{len(shapes)} tensors, {_digest(json.dumps(shapes, sort_keys=True).encode())}",
        "training rows": f"{len(feed.known)} rows{'' if feed.is_whole else ' and more'}, {_rows(feed.known)}",
        "max_seq_length in use": max_seq_length,
        **settings,
    }


def _files(loaded: Loaded) -> str:
    """The weight files by name and size, and the model's config: enough to tell models apart without reading them."""
    files = sorted((file.name, file.stat().st_size) for file in loaded.folder.glob("model*.safetensors"))
    return _digest(json.dumps([files, (loaded.folder / "config.json").read_text()]).encode())


def _rows(rows: Sequence[Encoded]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(len(row.tokens).to_bytes(8, "little") + row.tokens.tobytes() + row.loss_mask.tobytes())
        if row.segments is not None:
            digest.update(row.segments.tobytes())
        for picture in row.images:
            digest.update(picture.digest)
    return digest.hexdigest()[:12]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]
