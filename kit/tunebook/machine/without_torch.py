"""Imports that leave torch alone: what mlx-lm needs of transformers needs none of it, and torch takes seconds to load.

transformers 5 imports torch wherever it finds it, has no switch against that, and looks once. Standard library only.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def torch_unseen() -> Iterator[None]:
    """Have what is imported in the block find no torch; after it, torch can be imported as ever.

    transformers, once imported so, has none of its own torch models in this process. So nothing is hidden from whoever
    imported torch or transformers before, or set USE_TORCH=1, transformers 4's switch. The environment stays as it is:
    other processes are not touched.
    """
    wanted = os.environ.get("USE_TORCH", "").upper() in ("1", "ON", "YES", "TRUE")
    if wanted or "torch" in sys.modules or "transformers" in sys.modules:
        yield
        return
    sys.modules["torch"] = None  # pyright: ignore[reportArgumentType] - None stands for "not there": Python's own rule
    try:
        yield
    finally:
        del sys.modules["torch"]
