"""What differs here on purpose, said once in a process."""

_SAID: set[str] = set()


def tell(sentence: str) -> None:
    """Print `sentence`, unless that was done before."""
    if sentence not in _SAID:
        _SAID.add(sentence)
        print(f"tunebook.compat: {sentence}")
