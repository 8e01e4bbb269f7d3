"""The tests, in folders as the kit's wings are."""

from pathlib import Path

# Programs outside of the project make their models with `tests.tiny` and `tests.tiny_vision`.
__path__.append(str(Path(__file__).parent / "makers"))
