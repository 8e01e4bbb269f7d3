"""Parameters that are updated as one array: many small ones in, one buffer out, and back.

A step on hundreds of adapters is thousands of operations on arrays of a few kilobytes, and a GPU takes microseconds to
launch each. In a buffer they are one array: end to end where the rule looks at single elements, stacked by their shape
where it looks at matrices.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

import mlx.core as mx

from ...machine import runtime

Arrays = dict[str, mx.array]  # by dotted name

SMALL = 2**18  # elements of the largest parameter that shares a buffer: beyond it a launch costs less than a copy
# Elements of a buffer at most: on a CPU, what stays in its caches from one operation of a step to the next.
MOST = {"cpu": 2**18, "metal": 2**27, "cuda": 2**27}


@dataclass(frozen=True)
class Buffer:
    """Which parameters lie in it, in order, and how.

    One alone keeps its shape, several lie end to end as (elements,), or `stacked` as (how many, *shape).
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    stacked: bool

    @property
    def size(self) -> int:
        """Elements."""
        return sum(map(prod, self.shapes))

    def gathered(self, arrays: Arrays) -> mx.array:
        """The buffer of the parameters in `arrays`, or of anything of their shapes and one type."""
        own = [arrays[name] for name in self.names]
        if len(own) == 1:
            return own[0]
        return mx.stack(own) if self.stacked else mx.concatenate([array.reshape(-1) for array in own])

    def spread(self, buffer: mx.array) -> Arrays:
        """Each parameter's part of `buffer`, by its name: views, which copy nothing.

        Of a stack the parts may have any shape, such as that of what a rule remembers of a matrix.
        """
        if len(self.names) == 1:
            return {self.names[0]: buffer}
        if self.stacked:
            return dict(zip(self.names, buffer, strict=True))
        found, start = {}, 0
        for name, shape in zip(self.names, self.shapes, strict=True):
            found[name] = buffer[start : start + prod(shape)].reshape(shape)
            start += prod(shape)
        return found


def buffers_of(shapes: dict[str, tuple[int, ...]], *, by_shape: bool) -> list[Buffer]:
    """Buffers for parameters of one type that share a rule and a rate; `by_shape` where it is a rule on matrices."""
    most, found = MOST[runtime.backend()], []
    rooms: dict[tuple[int, ...] | None, list[str]] = {}
    for name, shape in shapes.items():
        if prod(shape) > SMALL:
            found.append([name])
        else:
            rooms.setdefault(shape if by_shape else None, []).append(name)
    for names in rooms.values():
        found += _filled(names, shapes, most)
    return [Buffer(tuple(names), tuple(shapes[name] for name in names), stacked=by_shape) for names in found]


def _filled(names: Iterable[str], shapes: dict[str, tuple[int, ...]], most: int) -> list[list[str]]:
    """`names` in their order, in as many lists as `most` elements each ask for."""
    lists: list[list[str]] = []
    held = most
    for name in names:
        size = prod(shapes[name])
        if held + size > most:
            lists.append([])
            held = 0
        lists[-1].append(name)
        held += size
    return lists
