"""runtime.py: the backend, the memory readings and the cache folder, against MLX's own counters and real folders."""

import contextlib
import platform
import sys
import tempfile
from pathlib import Path

import mlx.core as mx
import pytest

from tunebook.machine import runtime
from tunebook.machine.runtime import (
    backend,
    cache_folder,
    default_dtype,
    memory,
    memory_for_training,
    reset_peak_memory,
)


def test_backend_is_the_device_mlx_computes_on():
    assert (backend() == "cpu") == (mx.default_device().type == mx.DeviceType.cpu)


def test_weights_are_held_in_float32_on_the_cpu_and_as_they_are_on_a_gpu():
    expected = mx.float32 if mx.default_device().type == mx.DeviceType.cpu else mx.bfloat16
    assert default_dtype(mx.bfloat16) == expected
    assert default_dtype(mx.float32) == mx.float32


@pytest.mark.parametrize(
    ("backend", "machine", "slow"),
    [("cpu", "x86_64", True), ("cpu", "arm64", False), ("cpu", "aarch64", False), ("cuda", "x86_64", False)],
)
def test_exponentials_are_slow_in_the_cpu_build_for_x86_alone(monkeypatch, backend, machine, slow):
    monkeypatch.setattr(runtime, "backend", lambda: backend)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert runtime.has_slow_exponentials() is slow


def test_memory_counts_a_live_array_and_remembers_the_peak_after_it_is_gone():
    mx.clear_cache()
    reset_peak_memory()
    before = memory().active_gb
    array = mx.zeros((50_000_000,), dtype=mx.uint8) + mx.array(1, dtype=mx.uint8)
    mx.eval(array)
    assert memory().active_gb - before == pytest.approx(0.05, rel=0.1)
    del array
    assert memory().active_gb - before < 0.01
    assert memory().peak_gb - before >= 0.05
    mx.clear_cache()
    assert memory().cache_gb == 0
    reset_peak_memory()
    assert memory().peak_gb < before + 0.05


def cache_limit() -> int:
    """In bytes; MLX tells it only when it is set."""
    found = mx.set_cache_limit(0)
    mx.set_cache_limit(found)
    return found


@pytest.mark.parametrize("ends", ["well", "badly"])
def test_the_memory_limits_of_a_run_on_metal_are_put_back_however_it_ends(monkeypatch, ends):
    """The CPU build has a cache limit like Metal's; the wired limit it only pretends to set, so the calls are kept."""
    wired = []
    monkeypatch.setattr(runtime, "backend", lambda: "metal")
    monkeypatch.setattr(runtime, "_device_limit_gb", lambda: 8.0)
    monkeypatch.setattr(mx, "set_wired_limit", lambda size: wired.append(size) or 123)
    before = cache_limit()
    with contextlib.suppress(KeyboardInterrupt), memory_for_training():
        assert (cache_limit(), wired) == (2_000_000_000, [8_000_000_000])
        if ends == "badly":
            raise KeyboardInterrupt
    assert (cache_limit(), wired) == (before, [8_000_000_000, 123])


@pytest.mark.skipif(mx.default_device().type != mx.DeviceType.cpu, reason="a GPU has limits to set")
def test_on_the_cpu_no_limit_is_touched():
    before = cache_limit()
    with memory_for_training():
        assert cache_limit() == before


@pytest.mark.skipif(mx.default_device().type != mx.DeviceType.cpu, reason="a GPU has a limit")
def test_the_cpu_has_no_memory_limit():
    assert memory().limit_gb is None


def test_cache_folder_is_the_one_the_user_names(monkeypatch, tmp_path):
    monkeypatch.setenv("TUNEBOOK_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    assert (tmp_path / "mine").is_dir()


def test_a_named_cache_folder_that_cannot_be_used_is_an_error(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TUNEBOOK_CACHE", str(tmp_path / "file"))
    with pytest.raises(OSError, match="file"):
        cache_folder()


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has no XDG_CACHE_HOME")
def test_cache_folder_is_below_xdg_cache_home(monkeypatch, tmp_path):
    monkeypatch.delenv("TUNEBOOK_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "tunebook"


def test_without_a_writable_home_the_cache_is_a_private_temporary_folder(monkeypatch, tmp_path):
    _no_home(monkeypatch, tmp_path)
    folder = cache_folder()
    assert folder.parent == tmp_path
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_temporary_cache_that_others_can_write_to_is_refused(monkeypatch, tmp_path):
    _no_home(monkeypatch, tmp_path)
    cache_folder().chmod(0o777)
    with pytest.raises(PermissionError, match="TUNEBOOK_CACHE"):
        cache_folder()


def _no_home(monkeypatch, temporary: Path) -> None:
    monkeypatch.delenv("TUNEBOOK_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/dev/null")
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
