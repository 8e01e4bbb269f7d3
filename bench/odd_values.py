"""What may stand in a row where something else is meant: some 200 values, from null to a dict that holds itself."""

import copy
import json
import math
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas

from tests.makers.tiny_vision import noise_images

IMAGE = "good.png"  # lies in the folder that `odd_values` is given


def odd_values(folder: Path, dice: random.Random) -> list[Callable[[], Any]]:
    """What may stand where something else is meant; each is made when it is chosen."""
    picture = (folder / IMAGE).read_bytes()
    tool = {"type": "function", "function": {"name": "f", "description": "", "parameters": {}}}
    call = {"type": "function", "function": {"name": "f", "arguments": "{}"}}
    plain = [
        *(None, True, False, 0, 1, -1, 7, 1 << 40, 1 << 63, 1 << 64, -(1 << 70), 10**5000, 0.0, 0.5, 1e308, 1e400),
        *(math.nan, -math.inf, 1j, "", " ", "\0", "\ud800", "a\udfffb", "\ufeffx", "\u202e", "x" * 100_000, "e\u0301"),
        *("the quick brown fox " * 20_000, "🏳️‍🌈" * 500, "\n" * 5000, "<|im_end|>", "<|im_start|>assistant\n"),
        *(
            "{{ 1/0 }}",
            "{% raw %}",
            "[]",
            "{}",
            "null",
            '[{"type": 1}]',
            "[" * 100_000,
            '{"a":' * 100_000,
            "NaN",
            "1e999",
        ),
        *("<image>", "<|image_pad|>", "<|vision_start|>", "[1, 2]", "9" * 5000, "true"),
        *(b"", b"text", b"\xff\xfe", bytearray(b"x"), memoryview(b"x"), [], [[]], [None], [1], ["a"], [[1, 2], [3]]),
        *(
            {},
            {"a": 1},
            {1: 2},
            {None: "x"},
            {(1, 2): "x", "b": 1},
            (),
            ("a", "b"),
            set(),
            {1, 2},
            {"a"},
            frozenset("ab"),
        ),
        *(object(), print, int, range(3), slice(1), ValueError("x"), Path("x"), complex, iter([1]), 5 == 5),
        *(np.array([1, 2]), np.array([]), np.array(3), np.zeros((2, 2)), np.float32("nan"), np.int64(3), np.str_("x")),
        *(np.array(["a", "b"]), np.array([{"role": "user", "content": "x"}], dtype=object), np.bool_(True)),
        *(np.array([1.5]), np.datetime64("2024-01-01"), pandas.NA, pandas.NaT, pandas.Timestamp(0), pandas.Series([1])),
        *(
            [tool],
            [call],
            tool,
            call,
            json.dumps([tool]),
            [{"name": 1}],
            [{"function": None}],
            [{"function": [1]}],
            [[call]],
        ),
        *(
            [5, 9],
            [5, 9, 7, -100],
            [-100] * 4,
            [5.0, 9.0],
            [True, False],
            [1 << 40],
            [1 << 70],
            [-1],
            [math.nan],
            ["5"],
        ),
        *(
            {"role": "user", "content": "x"},
            [{"role": "user"}],
            [{"role": None, "content": "x"}],
            [{"from": 1, "value": 2}],
        ),
        *({"type": "text"}, [{"type": "text"}], [{"type": "text", "text": None}], [{"type": "text", "text": 3}]),
        *([{"type": None}], [{"type": "image"}], [{"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/x"}}]),
        *([{"type": "image_url", "image_url": 3}], [{"type": "image", "image": None}], [{"type": ["image"]}], [{}]),
        *([{"type": "image", "image": picture}], [{"type": "image", "image": picture[:90]}], picture, picture[:200]),
        *(
            {"bytes": picture},
            {"bytes": picture[:50], "path": "x"},
            {"path": 3},
            {"bytes": None, "path": None},
            {"bytes": "x"},
        ),
        *(
            [{"type": "image", "path": "no.png"}],
            "no.png",
            "data:image/png;base64,AAAA",
            "data:",
            "http://x/y.png",
            ["no.png"],
        ),
        *(
            "file:///etc/passwd",
            "/dev/zero",
            "/",
            "~",
            "a" * 5000 + ".png",
            "a\0b.png",
            [[picture]],
            [picture, picture],
            [3],
        ),
        *([["a", "b", "c"]], [["a"]], [["a", None]], [["a", 3]], [[["a", "b"]]], {"a": {"b": {"c": [1]}}}),
    ]
    made: list[Callable[[], Any]] = [partial(copy_of, value) for value in plain]
    made += [
        partial(nested, depth, kind) for depth in (50, 900, 50_000) for kind in ("list", "dict", "function", "turn")
    ]
    made += [
        circle,
        lambda: noise_images(1)[0],
        lambda: noise_images(1, size=(1, 1))[0],
        lambda: np.array(noise_images(1)[0]),
    ]
    made += [
        lambda: [noise_images(1)[0]],
        lambda: [np.array(noise_images(1)[0])],
        lambda: noise_images(1, size=(1, 900))[0],
    ]
    made += [lambda: (value for value in ("a", "b")), lambda: dice.randbytes(500), lambda: [dice.random()] * 5000]
    return made


def copy_of(value: Any) -> Any:
    """A value that may be changed."""
    return copy.copy(value) if isinstance(value, list | dict) else value


def nested(depth: int, kind: str) -> Any:
    """A value in `depth` others."""
    value: Any = "x"
    for _ in range(depth):
        match kind:
            case "list":
                value = [value]
            case "dict":
                value = {"a": value}
            case "function":
                value = {"function": value}
            case _:
                value = {"role": "user", "content": [value]}
    return [value] if kind == "function" else value


def circle() -> Any:
    """A dict that holds itself."""
    value: dict[str, Any] = {"role": "user"}
    value["content"] = [value]
    return value
