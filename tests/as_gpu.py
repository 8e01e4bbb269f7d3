"""`pytest --as-gpu`: the kit takes the machine for an Apple GPU and holds weights in bfloat16, as it does there.

MLX's CPU build computes, so this shows the forms, the proofs and the types that Metal meets, not Metal's kernels. Where
a test has to have float32 to say anything, it is marked `float32` and has the weights as they are on the disk, in the
forms of Metal all the same: comparisons with torch, PEFT and stock mlx-lm to four digits and more, of forms with one
another, derivatives by finite differences, and experts, which the CPU build multiplies in float32 alone.

Left out, with its reason (`pytest -rs`), is what is marked `cpu`: two cores, C++ compilers and long sums of the CPU
build; peaks of memory, which its stand-ins for Metal's kernels decide; launches, which are counted as on Metal in any
case; and reports on the machine as it is. `make test-as-gpu` leaves out browsers and released models too, and folders
whose tests compute nothing. It takes a quarter of an hour on two cores, bfloat16 being slow there, and is a pass by
itself, no part of `make test`.
"""

import os
from pathlib import Path

import pytest

from tunebook.machine import runtime

# Put before the path of children: what Python imports first there does the same in them.
CHILD = str(Path(__file__).parent / "makers" / "child_as_gpu")


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option."""
    parser.addoption("--as-gpu", action="store_true", help="take the backend for Metal, and hold weights in bfloat16")


def pytest_configure(config: pytest.Config) -> None:
    """The markers."""
    config.addinivalue_line("markers", "float32: compares more closely than bfloat16 can; weights stay float32")
    config.addinivalue_line("markers", "cpu(reason): about MLX's CPU build alone, or as the reason says")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is about the CPU, where another computes or is taken to."""
    for item in items if config.getoption("--as-gpu") or runtime.backend() != "cpu" else ():
        if mark := item.get_closest_marker("cpu"):
            item.add_marker(pytest.mark.skip(reason=mark.args[0] if mark.args else "about MLX's CPU build alone"))


@pytest.fixture(scope="session", autouse=True)
def _as_on_a_gpu(request, _away_from_the_checkout):
    """Around everything, models that are made once too, and in the processes that tests start."""
    if not request.config.getoption("--as-gpu"):
        yield
        return
    from tests.makers.metal import CHILDS_DTYPE, hold_in_bfloat16, take_for_metal

    with pytest.MonkeyPatch.context() as patch:
        take_for_metal(patch.setattr)
        hold_in_bfloat16(patch.setattr)
        patch.setenv("PYTHONPATH", os.pathsep.join([CHILD, os.environ["PYTHONPATH"]]))
        patch.setenv(CHILDS_DTYPE, "bfloat16")
        yield


@pytest.fixture(scope="module", autouse=True)
def _modules_in_float32(request, _as_on_a_gpu):
    """In modules that are marked, what they make once and share too."""
    with pytest.MonkeyPatch.context() as patch:
        _as_marked(request, patch)
        yield


@pytest.fixture(autouse=True)
def _tests_in_float32(request, monkeypatch, _modules_in_float32):
    """In tests that are marked by themselves."""
    _as_marked(request, monkeypatch)


def _as_marked(request: pytest.FixtureRequest, patch: pytest.MonkeyPatch) -> None:
    if request.config.getoption("--as-gpu") and request.node.get_closest_marker("float32"):
        from tests.makers.metal import CHILDS_DTYPE, hold_as_on_the_disk

        hold_as_on_the_disk(patch.setattr)
        patch.setenv(CHILDS_DTYPE, "as on the disk")
