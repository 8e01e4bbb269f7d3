"""Chance that is the same on every machine and in every Python.

Of `random.Random` only `random()` is promised to give the same numbers for a seed; all else here is made of it.
"""

from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import TypeVar

T = TypeVar("T")

TRIES = 1_000  # without anything new, before there is taken to be no more


def one(chance: Random, items: Sequence[T]) -> T:
    """Any of `items`."""
    return items[int(chance.random() * len(items))]


def whole_number(chance: Random, low: int, high: int) -> int:
    """Any from `low` to `high`, both among them."""
    return low + int(chance.random() * (high - low + 1))


def shuffled(chance: Random, items: Sequence[T]) -> list[T]:
    """All of `items` in any order."""
    return [item for _, _, item in sorted((chance.random(), place, item) for place, item in enumerate(items))]


def some(chance: Random, items: Sequence[T], count: int) -> list[T]:
    """`count` of `items`, none twice."""
    return shuffled(chance, items)[:count]


def different(make: Callable[[], T], key: Callable[[T], str]) -> Iterator[T]:
    """What `make` gives, but nothing whose `key` came before, until nothing new comes."""
    seen: set[str] = set()
    tries = 0
    while tries < TRIES:
        made = make()
        tries += 1
        if key(made) not in seen:
            seen.add(key(made))
            tries = 0
            yield made


def with_choices(chance: Random, question: str, right: str, wrong: Sequence[str]) -> dict:
    """A row for `multiple_choice`, the right answer anywhere among the choices."""
    choices = shuffled(chance, [right, *wrong])
    return {"question": question, "choices": choices, "answer": choices.index(right)}
