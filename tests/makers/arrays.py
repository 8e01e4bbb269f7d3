"""MLX's arrays in NumPy, which knows no bfloat16."""

import mlx.core as mx
import numpy as np


def in_numpy(array: mx.array) -> np.ndarray:
    """The array in NumPy; one of bfloat16 in float32, where each of its numbers has a place of its own."""
    return np.array(array.astype(mx.float32) if array.dtype == mx.bfloat16 else array)
