"""`pytest --as-gpu`: the kit takes the machine for an Apple GPU and holds weights in bfloat16, as it does there.

MLX's CPU build computes, so this shows the forms, the proofs and the types that Metal meets, not Metal's kernels. Where
a test has to have float32 to say anything, such as a comparison with torch to six digits, it is marked `float32` and
has the weights as they are on the disk.
"""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option."""
    parser.addoption("--as-gpu", action="store_true", help="take the backend for Metal, and hold weights in bfloat16")


def pytest_configure(config: pytest.Config) -> None:
    """The markers."""
    config.addinivalue_line("markers", "float32: compares more closely than bfloat16 can; weights stay float32")
    config.addinivalue_line("markers", "cpu: about MLX's CPU build alone")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is about the CPU."""
    for item in items if config.getoption("--as-gpu") else ():
        if item.get_closest_marker("cpu"):
            item.add_marker(pytest.mark.skip(reason="about MLX's CPU build alone"))


@pytest.fixture(scope="session", autouse=True)
def _as_on_a_gpu(request):
    """Around everything, models that are made once too."""
    if not request.config.getoption("--as-gpu"):
        yield
        return
    from tunebook.machine import runtime

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runtime, "backend", lambda: "metal")
        yield


@pytest.fixture(scope="module", autouse=True)
def _in_bfloat16(request, _as_on_a_gpu):
    """In modules that are not marked, what they make once and share too."""
    with pytest.MonkeyPatch.context() as patch:
        if request.config.getoption("--as-gpu") and not request.node.get_closest_marker("float32"):
            _hold_in_bfloat16(patch)
        yield


@pytest.fixture(autouse=True)
def _in_float32(request, monkeypatch, _in_bfloat16):
    """In a test that is marked by itself."""
    if request.config.getoption("--as-gpu") and request.node.get_closest_marker("float32"):
        from tunebook.machine import runtime

        monkeypatch.setattr(runtime, "default_dtype", lambda checkpoint: checkpoint)


def _hold_in_bfloat16(patch: pytest.MonkeyPatch) -> None:
    import mlx.core as mx

    from tunebook.machine import runtime

    patch.setattr(runtime, "default_dtype", lambda _checkpoint: mx.bfloat16)
