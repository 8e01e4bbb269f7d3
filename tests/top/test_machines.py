"""What the README says of machines is what the reports in bench/reports say, and no report tells whose it is."""

import copy
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
REPORTS = sorted((ROOT / "bench" / "reports").glob("*.json"))
BEGIN, END = "<!-- python bench/machines.py --write -->\n", "<!-- /machines -->\n"
NEVER = "Tunebook was never run on a Mac."


def said(folder: Path) -> str:
    command = [sys.executable, str(ROOT / "bench" / "machines.py"), "--reports", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def report():
    return json.loads(REPORTS[0].read_text())


def with_a_report(folder, report, **chip):
    other = copy.deepcopy(report)
    other["chip"].update(chip)
    (folder / "other.json").write_text(json.dumps(other))
    return said(folder)


def test_the_readme_says_of_machines_what_the_reports_say():
    assert README.count(BEGIN) == README.count(END) == 1
    assert README.partition(BEGIN)[2].partition(END)[0] == said(ROOT / "bench" / "reports")


def test_while_no_mac_has_sent_a_report_the_readme_says_it_was_never_run_on_one():
    real = [json.loads(path.read_text())["chip"] for path in REPORTS]
    macs = [chip for chip in real if chip["backend"] == "metal" and not chip["is_virtual"]]
    assert (NEVER in README) == (not macs)


def test_a_report_of_a_mac_takes_that_back_and_one_of_a_virtual_mac_does_not(tmp_path, report):
    assert NEVER in said(tmp_path)
    virtual = with_a_report(tmp_path, report, backend="metal", name="Apple Paravirtual device", is_virtual=True)
    assert NEVER in virtual
    assert re.search(r"^\| Apple Paravirtual device.*\| virtual \|", virtual, re.MULTILINE)
    assert NEVER not in with_a_report(tmp_path, report, backend="metal", name="Apple M3 Max", is_virtual=False)


def test_numbers_of_a_report_stand_in_its_row_as_they_are(tmp_path, report):
    report["steps"]["tunebook"] |= {"tokens_per_second": 12345.6, "peak_gb": 3.456}
    report["steps"]["mlx-lm"] = {"failed": "exit code 1"}
    report["self_test"] = [{"what": "as usual", "why_not": ""}, {"what": "compiled", "why_not": "it is 0.3 away"}]
    text = with_a_report(tmp_path, report, backend="cuda", name="NVIDIA H200")
    assert "| wrong: compiled | 12,346, failed | 3.46, failed |" in text
    assert "NVIDIA GPU" not in text


def test_a_report_of_another_layout_is_refused(tmp_path, report):
    (tmp_path / "old.json").write_text(json.dumps(report | {"layout": 0}))
    with pytest.raises(subprocess.CalledProcessError):
        said(tmp_path)


@pytest.mark.parametrize("path", REPORTS, ids=lambda path: path.stem)
def test_a_report_tells_nothing_of_whose_machine_it_is(path):
    text = path.read_text()
    assert "/" not in text
    assert not re.search(r"uuid|serial|host|user", text, re.IGNORECASE)
