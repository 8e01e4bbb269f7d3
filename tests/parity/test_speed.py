"""`python -m tunebook doctor --gpu`: run whole, on a tiny model."""

import getpass
import io
import json
import math
import re
import socket
import statistics
import sys
from contextlib import redirect_stdout
from pathlib import Path

import mlx.core as mx
import pytest
from mlx_lm.utils import load_model

import tunebook
from tunebook.__main__ import main
from tunebook.machine import runtime
from tunebook.parity.speed import report
from tunebook.parity.speed.random_model import SMOLLM2, random_model

pytestmark = pytest.mark.cpu("a report on the machine as it is")

TINY = SMOLLM2 | {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
}


@pytest.fixture(scope="module")
def smaller():
    """Nothing but sizes is other than it is for people."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "SMOLLM2", TINY)
        patch.setattr(report, "SIZES", dict.fromkeys(report.SIZES, (2, 16)))
        yield


@pytest.fixture(scope="module")
def text(smaller):
    """What the command prints."""
    printed = io.StringIO()
    with redirect_stdout(printed):
        assert main(["doctor", "--gpu"]) == 0
    return printed.getvalue()


@pytest.fixture(scope="module")
def found(text):
    return json.loads(text)


def test_both_trainers_took_the_steps_on_the_same_weights_and_rows(found):
    steps = found["steps"]
    assert steps["predicted_tokens"] == 32
    for name in ("tunebook", "mlx-lm"):
        one = steps[name]
        assert len(one["seconds"]) == 8
        assert len(one["losses"]) == 8 + report.WARMUP
        assert one["losses"] == sorted(one["losses"], reverse=True)  # the same rows each time: they are learnt
        assert one["tokens_per_second"] == pytest.approx(32 / statistics.median(one["seconds"]), rel=0.01)
        weights = 4 * (300 * 64 + 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128)) / 1e9
        assert weights < one["peak_gb"] < 1
    ours, theirs = (steps[name]["losses"][0] for name in ("tunebook", "mlx-lm"))
    assert ours == pytest.approx(theirs, rel=1e-5)
    assert ours == pytest.approx(math.log(300), rel=0.1)


def test_every_form_of_the_pass_that_the_self_test_tried_has_its_line(found):
    assert found["self_test"]
    for form in found["self_test"]:
        assert form["why_not"] == ""
        assert form["distance"] < 1e-3
        assert (form["seconds"] is None) == (runtime.backend() == "cpu")  # where nothing is chosen by time


def test_it_says_what_the_machine_is(found):
    assert found["layout"] == report.LAYOUT
    assert found["chip"]["backend"] == runtime.backend()
    assert found["chip"]["name"] == runtime.device_name()
    assert found["versions"]["mlx"] == mx.__version__
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", found["made"])
    assert found["refused_allocation"]["refused"] is (None if runtime.backend() == "cpu" else True)


def test_nothing_in_it_tells_whose_machine_it_is(text):
    assert "/" not in text.replace("Apple/", "")
    for name in (getpass.getuser(), socket.gethostname(), str(Path.home()), str(Path.cwd()), sys.prefix):
        assert not re.search(rf"\b{re.escape(name)}\b", text), name


def test_a_trainer_that_fails_is_told_of_without_its_words_and_the_other_stands(smaller, monkeypatch, capfd):
    monkeypatch.setattr(report, "TRAINERS", {"tunebook": "ours", "mlx-lm": "nobody"})
    failed = report.machine_report(shape=TINY, size=(1, 8), steps=1)
    told = capfd.readouterr().err  # for the person who runs it
    assert "steps: mlx-lm" in told
    assert "KeyError: 'nobody'" in told
    assert failed.found["steps"]["mlx-lm"] == {"failed": "exit code 1"}
    assert "tokens_per_second" in failed.found["steps"]["tunebook"]
    assert "child.py" not in failed.json()
    assert re.search(r"^mlx-lm +exit code 1$", str(failed), re.MULTILINE)


def test_a_trainer_that_gives_no_answer_is_ended(smaller, monkeypatch):
    monkeypatch.setattr(report, "SECONDS", 0.01)
    failed = tunebook.doctor(gpu=True)
    assert failed.found["steps"]["tunebook"] == {"failed": "no answer in 0.01 seconds"}
    assert failed.found["self_test"] == []
    assert json.loads(failed.json())["chip"]["backend"] == runtime.backend()


def test_numbers_that_are_not_finite_are_still_json(found):
    broken = found | {"made": report.finite([math.nan, math.inf])}
    assert json.loads(report.MachineReport(broken).json())["made"] == ["nan", "inf"]


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_a_random_model_is_one_mlx_lm_opens(tmp_path, dtype):
    module, config = load_model(random_model(tmp_path, TINY, dtype))
    assert config["vocab_size"] == 300
    assert module.model.embed_tokens.weight.dtype == dtype
    assert module(mx.array([[1, 2, 3]])).shape == (1, 3, 300)
