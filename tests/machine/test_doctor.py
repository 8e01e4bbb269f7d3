"""machine/doctor.py, as a person meets it: `python -m tunebook doctor` in sound and in broken environments."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tunebook.machine.doctor import Diagnosis, Problem

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="macOS has Accelerate")


def test_a_sound_environment_has_exit_code_0_and_shows_its_versions():
    done = _doctor()
    assert done.returncode == 0
    assert re.search(r"^mlx +\d+\.\d+", done.stdout, re.MULTILINE)
    assert re.search(r"^Backend +(cpu|metal|cuda) \(", done.stdout, re.MULTILINE)


@on_linux
def test_the_measured_speed_is_of_the_order_of_numpys():
    """NumPy's wheel has an OpenBLAS too: a wrong unit or a slow BLAS would show. Wide, because the cores are shared."""
    n = 1024
    a = np.ones((n, n), dtype=np.float32)
    times = []
    for _ in range(5):
        began = time.perf_counter()
        _ = a @ a
        times.append(time.perf_counter() - began)
    numpys = 2 * n**3 / min(times) / 1e9
    match = re.search(r"^fp32 products +([\d,]+) GFLOP/s", _doctor().stdout, re.MULTILINE)
    assert match
    assert numpys / 8 < float(match[1].replace(",", "")) < numpys * 8


@on_linux
def test_a_slow_blas_is_a_problem_with_its_fix_but_stops_nothing():
    done = _doctor(TUNEBOOK_BLAS="off")
    assert "slower than they could be. The variable TUNEBOOK_BLAS is set to off.\n" in done.stdout
    assert "Fix: unset TUNEBOOK_BLAS" in done.stdout
    assert done.returncode == 0


def test_an_mlx_that_cannot_be_loaded_has_exit_code_1_and_the_command_that_mends_it(tmp_path):
    broken = tmp_path / "mlx"
    broken.mkdir()
    (broken / "__init__.py").touch()
    (broken / "core.py").write_text("raise ImportError('libmlx.so: cannot open shared object file')\n")
    done = _doctor(PYTHONPATH=str(tmp_path))
    assert "libmlx.so: cannot open shared object file" in done.stdout
    assert re.search(r"Fix: \S+ -m pip install .*mlx", done.stdout)
    assert done.returncode == 1


def test_an_old_ipykernel_is_a_problem_with_the_command_that_mends_it(tmp_path):
    _pretend_installed(tmp_path, "ipykernel", "7.1.0")
    done = _doctor(PYTHONPATH=str(tmp_path))
    assert "ipykernel is 7.1.0." in done.stdout
    assert re.search(r"Fix: \S+ -m pip install 'ipykernel>=7\.4'", done.stdout)
    assert done.returncode == 0


def test_a_missing_requirement_has_exit_code_1_and_one_for_another_platform_does_not_matter(tmp_path):
    elsewhere = "Requires-Dist: not-needed-here>=1; sys_platform == 'beos'"
    _pretend_installed(tmp_path, "tunebook", "0.1.0", elsewhere, "Requires-Dist: surely-missing>=2")
    done = _doctor(PYTHONPATH=str(tmp_path))
    assert "surely-missing is not installed." in done.stdout
    assert "not-needed-here" not in done.stdout
    assert done.returncode == 1


def test_text_from_the_machine_is_shown_in_a_notebook_as_text():
    diagnosis = Diagnosis(
        facts=(("Chip", "<script>alert(1)</script>"),),
        problems=(Problem(text="a < b", fix="pip install 'x>=1' && echo"),),
    )
    shown = diagnosis._repr_html_()
    assert "<script" not in shown
    assert "a &lt; b" in shown
    assert "&amp;&amp; echo" in shown


def _doctor(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tunebook", "doctor"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def _pretend_installed(folder: Path, name: str, version: str, *lines: str) -> None:
    metadata = folder / f"{name}-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        "\n".join(["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *lines])
    )
