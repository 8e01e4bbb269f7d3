"""A name -> a model ready to be tuned: weights, tokenizer, family, and where they came from.

Whatever the name points at (a hub id, a folder, a .gguf file) becomes a model folder first, and mlx-lm or mlx-vlm opens
the folder. This is the only place that decides whether a model is text or vision; past it nobody asks.
"""

from .loading import load
from .module import DTYPES
from .pretrained import load_pretrained

__all__ = ["DTYPES", "load", "load_pretrained"]
