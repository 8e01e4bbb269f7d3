"""Reports of single stages read as one."""

import json
import math
from dataclasses import replace

import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")

from tunebook import parity
from tunebook.parity.__main__ import main

STAGES = list(parity.CHAIN)


@pytest.fixture(scope="module")
def whole(tiny_folder, rows):
    return parity.bisect(tiny_folder, rows, stages=["tokens", "supervision", "rates", "optimizer"])


def apart(report, folder):
    """A file for each stage of a report, as the jobs of a matrix leave them."""
    for stage in report.seconds:
        part = replace(
            report,
            findings=tuple(finding for finding in report.findings if finding.stage == stage),
            seconds={stage: report.seconds[stage]},
        )
        part.to_json(folder / f"{stage}.json")


def test_reports_of_single_stages_are_the_report_of_all_of_them(whole, tmp_path, capsys):
    apart(whole, tmp_path)
    code = main(["--together", str(tmp_path), "--json", str(tmp_path / "all")])
    assert json.loads((tmp_path / "all").read_text()) == json.loads(whole.to_json(tmp_path / "one").read_text())
    assert str(whole) in capsys.readouterr().out
    assert code == 1  # thirteen stages are missing


def test_a_stage_no_job_tells_of_is_named_and_is_a_failure(whole, tmp_path, capsys):
    findings = tuple(replace(whole.findings[0], stage=stage) for stage in STAGES)
    full = replace(whole, findings=findings, seconds=dict.fromkeys(STAGES, 1.0))
    apart(full, tmp_path)
    assert main(["--together", str(tmp_path)]) == 0
    (tmp_path / "curve.json").unlink()
    (tmp_path / "mlx-lm.json").unlink()
    assert main(["--together", str(tmp_path)]) == 1
    assert "No report tells of curve, mlx-lm." in capsys.readouterr().out


def test_a_difference_one_job_found_is_found_in_all_of_them(whole, tmp_path, capsys):
    apart(replace(whole, findings=(replace(whole.findings[0], measured=math.nan), *whole.findings[1:])), tmp_path)
    assert main(["--together", str(tmp_path)]) == 1
    assert "parts from its references at the stage tokens" in capsys.readouterr().out


def test_reports_of_two_models_and_a_folder_without_any_are_refused(whole, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file there ends in \.json"):
        main(["--together", str(tmp_path)])
    apart(whole, tmp_path)
    replace(whole, model="another").to_json(tmp_path / "another.json")
    with pytest.raises(ValueError, match=r"different runs: .* on another"):
        main(["--together", str(tmp_path)])
