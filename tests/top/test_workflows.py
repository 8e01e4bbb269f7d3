"""The workflows of .github: sound to a linter, and made of nothing but Makefile targets, which are run here."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()
FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
COLLECT = "--collect-only -q -p no:cacheprovider"
INSTALLED = ("-o", ".venv/dev", "-o", ".venv/user", "-o", ".venv/made")  # make takes them to be there


@pytest.fixture(params=FILES, ids=lambda path: path.name)
def workflow(request) -> dict[str, Any]:
    return yaml.safe_load(request.param.read_text())


def make(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """GNU make with this very environment in the place of .venv."""
    return subprocess.run(
        ["make", *INSTALLED, f"VENV={Path(sys.executable).parent}", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def commands(job: dict[str, Any]) -> list[list[str]]:
    """The words of each command of a job, once for every point of its matrix."""
    matrix = job.get("strategy", {}).get("matrix", {})
    points = [dict(zip(matrix, values, strict=True)) for values in product(*matrix.values())]
    lines = [line for step in job["steps"] for line in step.get("run", "").splitlines()]
    filled = [
        re.sub(r"\$\{\{ matrix\.(\w+) \}\}", lambda match, point=point: str(point[match[1]]), line)
        for line in lines
        for point in points
    ]
    return [shlex.split(line) for line in dict.fromkeys(filled)]


def actionlint(*files: Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("actionlint", path=f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}")
    assert program, "actionlint is not installed: pip install -e '.[dev]'"
    return subprocess.run([program, "-no-color", *map(str, files)], capture_output=True, text=True, check=False)


def test_a_linter_of_workflows_finds_nothing():
    assert len(FILES) == 4
    done = actionlint(*FILES)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("runs-on: macos-15", "runs-on: macos-9", "macos-9"),
        ("actions/checkout@v6", "actions/checkout@v2", "checkout@v2"),
        ("if: always()", "if: allways()", "allways"),
        ("timeout-minutes:", "timeout-minuts:", "timeout-minuts"),
    ],
)
def test_what_is_wrong_in_a_workflow_the_linter_names(right, wrong, said, tmp_path):
    text = (ROOT / ".github" / "workflows" / "macos.yml").read_text()
    assert right in text
    path = tmp_path / "macos.yml"
    path.write_text(text.replace(right, wrong))
    done = actionlint(path)
    assert done.returncode == 1
    assert said in done.stdout


def test_every_command_is_a_target_of_the_makefile_with_variables_it_has(workflow):
    for job in workflow["jobs"].values():
        assert commands(job)
        for program, target, *variables in commands(job):
            assert (program, target in TARGETS) == ("make", True), target
            for variable in variables:
                assert re.search(rf"^{variable.partition('=')[0]} \?=", MAKEFILE, re.MULTILINE), variable
            done = make("--dry-run", target, *variables)
            assert done.returncode == 0, done.stderr


def test_no_workflow_may_write_to_the_repository_and_every_job_ends_some_time(workflow):
    assert workflow["permissions"] == {"contents": "read"}
    assert all(job["timeout-minutes"] <= 180 for job in workflow["jobs"].values())


def test_what_is_uploaded_is_where_the_job_leaves_it(workflow):
    for job in workflow["jobs"].values():
        dry = "".join(make("--dry-run", *words[1:]).stdout for words in commands(job))
        for step in job["steps"]:
            if "upload-artifact" in step.get("uses", ""):
                path = step["with"]["path"].removesuffix("*.ipynb")
                assert path in dry or (path == "out/" and "tunebook demo" in dry), path


def test_every_notebook_has_its_job():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "notebooks.yml").read_text())["jobs"]
    names = [path.stem for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]
    assert jobs["notebook"]["strategy"]["matrix"]["notebook"] == names


def test_nbmake_finds_every_notebook_in_a_folder_of_its_own(tmp_path):
    names = [path.name for path in (ROOT / "notebooks").glob("*.ipynb")]
    done = make("test-notebooks", f"OUT={tmp_path}", PYTEST_ADDOPTS=COLLECT)
    assert done.returncode == 0, done.stdout
    assert all(name in done.stdout and (tmp_path / "notebooks" / name).exists() for name in names)
    one = make("test-notebooks", "NOTEBOOK=02_vision", f"OUT={tmp_path}", PYTEST_ADDOPTS=COLLECT)
    assert "1 test collected" in one.stdout


def test_on_a_mac_all_is_tested_but_browsers_and_parity(tmp_path):
    done = make("test-mac", PYTEST_ADDOPTS=f"{COLLECT} -n 0", HYPOTHESIS_STORAGE_DIRECTORY=str(tmp_path))
    assert done.returncode == 0, done.stdout
    collected = {line.partition("::")[0] for line in done.stdout.splitlines() if "::" in line}
    every = [path for path in (ROOT / "tests").rglob("test_*.py") if "parity" not in path.parts]
    browser = {str(path.relative_to(ROOT)) for path in every if "pytest.mark.browser" in path.read_text()}
    browser.remove("tests/top/test_workflows.py")  # which says so here
    assert browser
    assert collected == {str(path.relative_to(ROOT)) for path in every} - browser
