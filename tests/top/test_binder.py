"""Binder's own steps, as far as they go without Docker: its Python, an empty environment, `postBuild`, then `start`.

Installing takes minutes, so the whole of it is for `make test-binder`, which names the Python.
"""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BINDER = ROOT / "binder"
PYTHON = os.environ.get("TUNEBOOK_BINDER", "")
[VERSION] = re.findall(r"- python=([\d.]+)$", (BINDER / "environment.yml").read_text(), re.MULTILINE)


@pytest.mark.parametrize(
    ("limit", "threads"),
    [(None, "1"), ("", "1"), ("0.5", "1"), ("1.0", "1"), ("2", "2"), ("3.7", "3")],
)
def test_a_visitor_gets_a_thread_for_each_core_that_is_theirs(limit, threads):
    environment = {"PATH": os.environ["PATH"], **({} if limit is None else {"CPU_LIMIT": limit})}
    shown = ["bash", str(BINDER / "start"), "printenv", "OPENBLAS_NUM_THREADS"]
    done = subprocess.run(shown, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == threads


def test_what_a_visitor_asked_for_is_kept_and_words_stay_whole():
    environment = {"PATH": os.environ["PATH"], "OPENBLAS_NUM_THREADS": "7", "CPU_LIMIT": "2"}
    shown = ["bash", str(BINDER / "start"), "bash", "-c", 'echo "$OPENBLAS_NUM_THREADS $1"', "-", "a word"]
    done = subprocess.run(shown, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "7 a word\n"


def test_its_python_and_its_extras_are_the_projects():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert tuple(map(int, VERSION.split("."))) >= (3, 11)
    assert project["requires-python"].startswith(">=3.11")
    [extras] = re.findall(r"--editable '\.\[([\w,]+)\]'", (BINDER / "postBuild").read_text())
    assert set(extras.split(",")) <= set(project["optional-dependencies"])


@pytest.mark.skipif(not PYTHON, reason="installs everything anew: make test-binder")
def test_its_steps_make_an_environment_in_which_a_tutorial_runs(tmp_path):
    said = subprocess.run([PYTHON, "--version"], capture_output=True, text=True, check=True).stdout
    assert said.startswith(f"Python {VERSION}.")
    checkout, environment = tmp_path / "checkout", tmp_path / "environment"
    checkout.mkdir()
    archive = subprocess.run(["git", "-C", str(ROOT), "archive", "HEAD"], capture_output=True, check=True)
    subprocess.run(["tar", "-x", "-C", str(checkout)], input=archive.stdout, check=True)
    subprocess.run([PYTHON, "-m", "venv", str(environment)], check=True)
    own = {
        **{name: value for name, value in os.environ.items() if name.startswith("PIP_") or name.endswith("_CERT")},
        "PATH": f"{environment / 'bin'}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(tmp_path / "home"),
    }
    subprocess.run(["bash", "binder/postBuild"], cwd=checkout, env=own, check=True)
    tutorial = ["jupyter", "execute", "--inplace", "notebooks/04_continued_pretraining.ipynb"]
    subprocess.run(["bash", "binder/start", *tutorial], cwd=checkout, env=own, check=True)
