"""A name -> a model ready to be tuned: weights, tokenizer, family, and where they came from.

Whatever the name points at (a hub id, a folder, a .gguf file) becomes a model folder first, and mlx-lm or mlx-vlm opens
the folder: `loading.py` has the order. Whether a model reads images is told once, in `folder.py`, for each part of
loading goes by it; which family it is, in `family.py`; past the loader nobody asks.
"""

from .loading import load
from .module import DTYPES
from .pretrained import load_pretrained

__all__ = ["DTYPES", "load", "load_pretrained"]
