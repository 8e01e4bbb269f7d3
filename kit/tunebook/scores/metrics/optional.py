"""Libraries that some metrics are made of and not everybody needs, imported when such a metric is asked for."""

from importlib import import_module
from types import ModuleType

# What is installed for a module of another name, or of a release of its own; pyproject.toml has the reasons.
INSTALLED_AS = {"math_verify": "'math-verify[antlr4_13_2]'", "lm_eval": "lm-eval==0.4.13"}


def optional(library: str, metric: str) -> ModuleType:
    """The library, imported. Raises ImportError, with how to install it, where it is not there."""
    try:
        return import_module(library)
    except ModuleNotFoundError as error:
        name = INSTALLED_AS.get(str(error.name), error.name)
        raise ImportError(f"{metric} needs {error.name}, which is not installed: pip install {name}") from error
