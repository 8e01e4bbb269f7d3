"""train/astray/overoptimization.py: told of once, where it is, and never of what is healthy or noise."""

import math
import random

import numpy as np
import pytest

from tunebook.objectives import CPO, DPO, KTO, ORPO, AlphaPO, SimPO
from tunebook.train.astray.overoptimization import BLOCK, CHOSEN, KL, LEAST, MARGINS, MOST_NATS, SHARE, Overoptimization


def told_at(steps, objective=None):
    """(step, text) of what is said in a run that reports `steps`."""
    watch = Overoptimization(objective or DPO())
    return [(at, text) for at, metrics in enumerate(steps, start=1) for text in watch.look_at(metrics)]


def rewards(steps, *, chosen, margin, noise=0.0, seed=0):
    """What each of `steps` reports whose chosen reward and margin go straight from 0 to these in all."""
    draw = random.Random(seed)
    for step in range(steps):
        share, wobble = step / steps, draw.gauss(0, noise)
        yield {CHOSEN: chosen * share + wobble, MARGINS: margin * share + draw.gauss(0, noise) + wobble}


@pytest.mark.parametrize("objective", [DPO(), CPO()], ids=["with a reference", "without"])
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_a_margin_that_grows_while_the_chosen_reward_falls_is_told_of_once(noise, objective):
    [(step, text)] = told_at(rewards(200, chosen=-2.0, margin=3.0, noise=noise), objective)
    assert BLOCK <= step <= 100  # before the chosen reward has lost half of what it will
    assert step % BLOCK == 0
    assert "likelihood displacement, arXiv 2410.08847" in text


@pytest.mark.parametrize(
    ("chosen", "margin"),
    [(0.5, 3.0), (0.0, 3.0), (-0.3, 3.0), (-2.0, -1.0), (-2.0, 0.0), (0.0, 0.0), (-0.09, 0.3)],
    ids=["both rise", "chosen stays", "falls a little", "unlearnt", "both fall alike", "nothing", "too little"],
)
def test_what_is_no_displacement_is_not_told_of(chosen, margin):
    assert told_at(rewards(400, chosen=chosen, margin=margin, noise=0.02)) == []


@pytest.mark.parametrize("objective", [DPO(), CPO()], ids=["with a reference", "without"])
@pytest.mark.parametrize("noise", [0.05, 0.5, 5.0])
def test_noise_sounds_no_alarm(noise, objective):
    for seed in range(40):
        for margin in (0.0, 3.0):
            assert told_at(rewards(400, chosen=0.0, margin=margin, noise=noise, seed=seed), objective) == []


def test_one_hard_batch_sounds_no_alarm():
    steps = list(rewards(200, chosen=0.0, margin=3.0, noise=0.01))
    steps[70] = {CHOSEN: -50.0, MARGINS: 60.0}
    assert told_at(steps) == []


def test_the_least_that_is_told_of_is_a_quarter_of_what_the_rejected_reward_fell():
    fall = 4 * LEAST
    for share, said in [(SHARE * 1.05, 1), (SHARE * 0.95, 0)]:
        first, last = {CHOSEN: 0.0, MARGINS: 0.0}, {CHOSEN: -fall, MARGINS: fall / share - fall}
        assert len(told_at([first] * BLOCK + [last] * BLOCK)) == said


def test_what_fell_in_the_first_steps_is_told_of_where_rewards_are_known_to_begin_at_0():
    steps = [{CHOSEN: -1.0, MARGINS: 2.0}] * 100
    assert [step for step, _ in told_at(steps, DPO())] == [BLOCK]
    assert told_at(steps, CPO()) == []


def test_steps_that_do_not_report_both_or_were_not_finite_are_passed_over():
    steps = list(rewards(200, chosen=-2.0, margin=3.0))
    gaps = [each for step in steps for each in (step, {CHOSEN: -9.0}, {CHOSEN: math.nan, MARGINS: math.nan}, {})]
    [(step, text)], [(later, same)] = told_at(steps), told_at(gaps)
    assert (later + 3, same) == (4 * step, text)


def test_a_kl_that_runs_off_is_told_of_once_and_one_rough_estimate_is_not():
    grows = [{KL: 0.1 * step} for step in range(300)]
    [(step, text)] = told_at(grows, KTO())
    assert 0.1 * (step - BLOCK / 2) == pytest.approx(MOST_NATS, abs=0.1 * BLOCK)
    assert "The KL runs off" in text
    calm = np.abs(np.random.default_rng(0).normal(size=300))
    calm[::7] += 80.0  # a batch with one answer that is far off
    assert told_at([{KL: value} for value in calm], KTO()) == []
    assert told_at([{KL: 0.0}] * 300, KTO()) == []


def test_it_is_an_alarm_that_names_the_settings_to_change():
    watch = Overoptimization(DPO(beta=0.05))
    steps = rewards(200, chosen=-2.0, margin=3.0)
    [notice] = [notice for at, metrics in enumerate(steps, 1) for notice in watch.notices(at, metrics, 5e-5)]
    assert notice.alarm
    assert notice.text.endswith(
        "What helps: lower learning_rate (now 5e-05); raise beta (now 0.05); imitate the chosen answers too: "
        "DPO(loss_type=['sigmoid', 'sft'], loss_weights=[1.0, 1.0])."
    )


@pytest.mark.parametrize(
    "objective",
    [
        DPO(),
        DPO(loss_type=["ipo", "sft"], loss_weights=[1, 0.2]),
        DPO(loss_type="apo_down"),
        DPO(use_weighting=True),
        DPO(f_divergence_type="js_divergence"),
        CPO(),
        SimPO(),
        AlphaPO(alpha=0.25),
        ORPO(),
        KTO(),
    ],
    ids=repr,
)
def test_every_move_names_a_setting_with_its_value_or_a_call_that_runs(objective):
    settings = objective.identity()
    assert objective.held_nearer_by
    for move in objective.held_nearer_by:
        call = next((move[move.index(name) :] for name in ("DPO(", "CPO(") if name in move), None)
        if call is not None:
            assert eval(call) != objective
        if "(now" in move and "loss_weights" not in move:
            name, value = move.split()[1], float(move.partition("(now ")[2].partition(")")[0])
            assert settings[name] == pytest.approx(value)
