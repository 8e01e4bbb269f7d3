"""Libraries that some metrics are made of and not everybody needs, imported when such a metric is asked for."""

from importlib import import_module
from types import ModuleType


def optional(library: str, metric: str) -> ModuleType:
    """The library, imported. Raises ImportError, with how to install it, where it is not there."""
    try:
        return import_module(library)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"{metric} needs {error.name}, which is not installed: pip install 'tunebook[scores]'"
        ) from error
