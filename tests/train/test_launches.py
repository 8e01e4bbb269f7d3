"""How many primitives a step launches on Metal, counted by `bench/launches.py`, and whether it counts right."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.makers.processes.program import run_program

pytestmark = pytest.mark.cpu("launches are counted as on Metal in any case, in processes of their own")

BENCH = Path(__file__).parents[2] / "bench"
BENCH_PROGRAM = """
import os, runpy, sys
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""
SLACK = 0.02  # for a layer's small change; less would be in the way of any work, more would let a habit creep in

# python bench/launches.py --kit --settings default checkpointing preferences
FROZEN = {
    "smollm2": {"default": (3_244, 17), "checkpointing": (4_354, 17), "preferences": (3_762, 17)},
    "llama3": {"default": (3_065, 17)},
    "gemma3": {"default": (3_414, 17)},
    "qwen3_5": {"default": (3_445, 17)},
    "qwen3_vl": {"default": (4_829, 17), "checkpointing": (6_201, 17)},
}  # (launches of a step, of them the update's)


@pytest.mark.parametrize("model", FROZEN)
def test_a_step_launches_as_many_primitives_as_were_counted_and_none_that_metal_lacks(model):
    others = [setting for setting in FROZEN[model] if setting != "default"]
    results = [usual(model), *(counted(model, "--kit", "--settings", *others) if others else [])]
    assert {result["setting"] for result in results} == FROZEN[model].keys()
    for result in results:
        step, update = FROZEN[model][result["setting"]]
        assert result["step"] == pytest.approx(step, rel=SLACK), result
        assert result["update"] == pytest.approx(update, rel=SLACK), result
        assert result["lacking"] == []
    launched = {result["setting"]: result["step"] for result in results}
    for result in results:
        if (
            result["forward"] is not None
        ):  # DPO is a step on the next token and what its reference says without a gradient
            assert result["step"] <= (launched["default"] + result["forward"]) * (1 + SLACK)


# Of the primitives mlx-lm has; the fifth, whose loop takes long to count, has a two-hundredth.
SHARES = {"smollm2": 0.9, "llama3": 0.9, "gemma3": 0.9, "qwen3_vl": 1.0}


@pytest.mark.parametrize("model", SHARES)
def test_a_step_launches_no_more_than_mlx_lms_compiled_one_and_has_fewer_primitives(model):
    result = usual(model)
    assert result["step"] <= result["stock"]
    assert result["primitives"] <= SHARES[model] * result["stock_primitives"]


@cache
def usual(model: str) -> dict[str, Any]:
    """A step with the usual settings; beside it mlx-lm's, where there is a share of it to hold it against."""
    (result,) = counted(model, *([] if model in SHARES else ["--kit"]), "--settings", "default")
    return result


def counted(*options: str) -> list[dict[str, Any]]:
    done = run_program(BENCH_PROGRAM, str(BENCH / "launches.py"), "--json", *options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["results"]


def test_the_counting_is_right_about_graphs_that_are_counted_by_hand():
    program = """
import mlx.core as mx
from graphs.counting import COPIES, lacking, launches, noted_types
from graphs.metal import as_on_metal
from tunebook.machine import runtime

x = mx.ones((4, 4)); mx.eval(x)
twice = mx.exp(x)
assert launches(mx.exp(x).T + twice, {"again": twice}) == {"Exp": 2, "Add": 1}
assert launches(mx.concatenate([twice, x, twice])) == {"Exp": 1, "Concatenate": 1, COPIES: 2}

own = mx.fast.rms_norm
with as_on_metal():
    assert runtime.backend() == "metal"
    value, slope = mx.value_and_grad(lambda x: mx.fast.rms_norm(x, None, 1e-5).sum())(x)
    assert launches(value) == {"Softmax": 1, "Sum": 1}
    assert launches(slope) == {"Sort": 1}
assert mx.fast.rms_norm is own and runtime.backend() == "cpu"

def said(make):
    with noted_types() as types:
        made = make()
    return lacking(launches(made), types)

index = mx.array([1, 2])
inverse, wide = said(lambda: mx.linalg.inv(x, stream=mx.cpu)), said(lambda: x.astype(mx.float64) + 1)
eight = said(lambda: mx.zeros((4,), mx.int64).at[index].add(1))
assert [len(some) for some in (inverse, wide, eight)] == [1, 1, 1], (inverse, wide, eight)
assert "Inverse" in inverse[0] and "float64" in wide[0] and "int64" in eight[0] and "Scatter" in eight[0]
assert said(lambda: mx.zeros((4,), mx.int32).at[index].add(1)) == []
"""
    done = run_program(f"import sys; sys.path.insert(0, {str(BENCH)!r})\n{program}")
    assert done.returncode == 0, done.stderr
