"""A name -> a model ready to be tuned: weights, tokenizer, family, and where they came from.

Whatever the name points at (a hub id, a folder, a .gguf file) becomes a model folder first, and mlx-lm or mlx-vlm opens
the folder: `loading.py` has the order. Of a model that another program will open only the tokenizer is (`closed.py`).
Whether a model reads images is told once, in `folder.py`, for each part of loading goes by it; which family it is, in
`family.py`; past the loader nobody asks.
"""

from .closed import Closed, without_weights
from .loading import load
from .module import DTYPES
from .pretrained import load_pretrained

__all__ = ["DTYPES", "Closed", "load", "load_pretrained", "without_weights"]
