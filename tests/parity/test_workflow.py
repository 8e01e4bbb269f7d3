"""The matrix of .github/workflows/parity.yml, and the two commands its jobs run, on a tiny model."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytest.importorskip("torch")
pytest.importorskip("peft")

from tunebook import parity
from tunebook.parity.__main__ import OBJECTIVES

ROOT = Path(__file__).parents[2]


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    given = ["-o", ".venv/dev", f"VENV={Path(sys.executable).parent}", *arguments]
    return subprocess.run(["make", *given], cwd=ROOT, capture_output=True, text=True, check=False)


def test_every_stage_of_the_chain_and_every_objective_has_its_job():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "parity.yml").read_text())["jobs"]
    assert jobs["stage"]["strategy"]["matrix"]["stage"] == list(parity.CHAIN)
    assert jobs["preferences"]["strategy"]["matrix"]["objective"] == list(OBJECTIVES)


def test_a_job_leaves_a_report_of_its_stage_and_the_last_one_prints_what_there_is(tiny_folder, tmp_path):
    done = make("parity", "STAGE=token losses", f"PARITY_MODEL={tiny_folder}", f"OUT={tmp_path}")
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "parity" / "token losses.json").read_text())
    assert list(written["seconds"]) == ["token losses"]
    done = make("parity-together", f"OUT={tmp_path}")
    assert "agree in all 1 comparisons made" in done.stdout
    assert "No report tells of tokens, supervision, batches, logits, reduction, adapters" in done.stdout
    assert done.returncode == 2  # make's own, where a command fails


def test_a_job_leaves_a_report_of_its_objective(tiny_folder, tmp_path):
    given = ("OBJECTIVE=ORPO", "STAGE=rates", f"PARITY_MODEL={tiny_folder}", f"OUT={tmp_path}")
    done = make("parity-preferences", *given)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "preferences" / "ORPO.json").read_text())["objective"] == "ORPO"
