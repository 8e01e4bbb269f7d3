"""Batches and log-probabilities that are made up: ragged answers behind ragged prompts, padded on the right."""

import mlx.core as mx
import numpy as np


def made_up_pairs(seed: int = 0, pairs: int = 5, width: int = 12, vocabulary: int = 11) -> dict[str, np.ndarray]:
    """2P rows, the chosen ones first; prompts of one pair are of one length."""
    return made_up(seed, np.tile(np.random.default_rng(seed).integers(1, 5, pairs), 2), width, vocabulary)


def made_up_labelled(seed: int = 0, rows: int = 6, width: int = 12) -> dict[str, np.ndarray]:
    """B rows, some of them desirable."""
    made = made_up(seed, np.random.default_rng(seed).integers(1, 5, rows), width, 11)
    numbers = np.random.default_rng(seed + 100)
    mask = made["loss_mask"][:, 1:]
    return made | {
        "labels": np.arange(rows) % 3 != 1,
        "kl_logps": (mask * -numbers.exponential(2.0, mask.shape)).astype(np.float32),
        "kl_reference": (mask * -numbers.exponential(2.2, mask.shape)).astype(np.float32),
    }


def made_up(seed: int, prompts: np.ndarray, width: int, vocabulary: int) -> dict[str, np.ndarray]:
    numbers = np.random.default_rng(seed + 1)
    rows = len(prompts)
    lengths = prompts + numbers.integers(1, width - prompts.max() + 1, rows)
    place = np.arange(width)
    mask = (place >= prompts[:, None]) & (place < lengths[:, None])
    logps = -numbers.exponential(1.0, (rows, width - 1))
    reference = logps + numbers.normal(0.0, 0.5, logps.shape)
    counted = mask[:, 1:]
    return {
        "tokens": numbers.integers(0, vocabulary, (rows, width)).astype(np.int32),
        "loss_mask": mask,
        "lengths": lengths.astype(np.int32),
        "logps": (logps * counted).astype(np.float32),
        "reference": (reference * counted).astype(np.float32),
        "squares": (-numbers.exponential(0.5, logps.shape) * counted).astype(np.float32),
        "logits": numbers.normal(0.0, 2.0, (rows, width, vocabulary)).astype(np.float32),
    }


def batch_of(made: dict[str, np.ndarray]) -> dict[str, mx.array]:
    """What an objective reads of it."""
    return {name: mx.array(made[name]) for name in ("tokens", "loss_mask", "lengths", "labels") if name in made}
