"""Every objective and loss type against TRL's own code: values, gradients and what is logged."""

from functools import partial

import mlx.core as mx
import numpy as np
import pytest

from tests.objectives import trl_judge
from tests.objectives.made_up import batch_of, made_up_labelled, made_up_pairs
from tunebook.objectives import CPO, DPO, KTO, ORPO, AlphaPO, SimPO
from tunebook.objectives.reference import kl_of
from tunebook.objectives.token_logps import TokenLogps

pytestmark = pytest.mark.float32

close = partial(pytest.approx, rel=2e-6, abs=2e-6)

NOT_OURS = {"entropy", "num_tokens", "logits/chosen", "logits/rejected", "mean_token_accuracy"}


def assert_same(ours, theirs):
    """(loss, gradient, metrics) of both; what TRL logs of logits is not ours to log."""
    assert ours[0] == close(theirs[0])
    np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-5, atol=1e-6 * np.abs(theirs[1]).max())
    assert ours[2] == close({name: value for name, value in theirs[2].items() if name not in NOT_OURS})


def of_log_probabilities(objective, made, **known):
    """(loss, gradient for the log-probabilities, metrics), ours."""
    batch = batch_of(made)
    batch |= {"reference_logps": objective.row_logps(mx.array(made["reference"]), batch)} | known

    def loss(logps):
        total, sums = objective.loss(TokenLogps(logps, mx.array(made["squares"])), batch)
        return total / objective.units(batch), sums

    (value, sums), gradient = mx.value_and_grad(loss)(mx.array(made["logps"]))
    return value.item(), np.array(gradient), objective.metrics(sums)


PLAIN = ["sigmoid", "hinge", "ipo", "nca_pair", "bco_pair", "sppo_hard", "aot", "aot_unpaired"]
PLAIN += ["apo_zero", "apo_down", "discopop", "sigmoid_norm", "robust", "sft"]


@pytest.mark.parametrize("loss_type", PLAIN)
@pytest.mark.parametrize("beta", [0.1, 1.7])
def test_each_loss_of_dpo_is_trls(loss_type, beta):
    objective, made = DPO(loss_type=loss_type, beta=beta), made_up_pairs()
    assert_same(of_log_probabilities(objective, made), trl_judge.dpo(objective, made))


@pytest.mark.parametrize("loss_type", ["robust", "exo_pair", "aot", "aot_unpaired"])
@pytest.mark.parametrize("label_smoothing", [0.001, 0.2])
def test_label_smoothing_is_trls(loss_type, label_smoothing):
    objective, made = DPO(loss_type=loss_type, label_smoothing=label_smoothing, beta=0.5), made_up_pairs(1)
    assert_same(of_log_probabilities(objective, made), trl_judge.dpo(objective, made))


@pytest.mark.parametrize("loss_type", ["sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop"])
@pytest.mark.parametrize("divergence", ["forward_kl", "js_divergence", "alpha_divergence"])
@pytest.mark.parametrize("coefficient", [0.5, 1.0])
def test_each_divergence_is_trls(loss_type, divergence, coefficient):
    objective = DPO(
        loss_type=loss_type,
        f_divergence_type=divergence,
        f_alpha_divergence_coef=coefficient,
        label_smoothing=0.1 if loss_type in ("exo_pair", "robust") else 0.0,
    )
    made = made_up_pairs(2)
    assert_same(of_log_probabilities(objective, made), trl_judge.dpo(objective, made))


@pytest.mark.parametrize("ld_alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("loss_type", ["sigmoid", "ipo", "sft"])
def test_a_longer_answers_end_counts_for_less_as_in_trl(ld_alpha, loss_type):
    objective, made = DPO(ld_alpha=ld_alpha, loss_type=["sigmoid", loss_type]), made_up_pairs(3)
    assert_same(of_log_probabilities(objective, made), trl_judge.dpo(objective, made))


# TRL changes the losses in place, which torch refuses for hinge and sft.
@pytest.mark.parametrize("loss_type", [name for name in PLAIN if name not in ("aot", "aot_unpaired", "sft", "hinge")])
def test_pairs_weigh_by_their_likelihood_as_in_trl(loss_type):
    objective, made = DPO(loss_type=loss_type, use_weighting=True, beta=0.3), made_up_pairs(4)
    assert_same(of_log_probabilities(objective, made), trl_judge.dpo(objective, made))


def test_losses_are_mixed_by_their_weights_as_in_trl():
    objective = DPO(loss_type=["sigmoid", "bco_pair", "sft"], loss_weights=[0.8, 0.2, 1.0])
    made = made_up_pairs(5)
    assert_same(of_log_probabilities(objective, made), trl_judge.dpo(objective, made))


@pytest.mark.parametrize("loss_type", ["kto", "apo_zero_unpaired"])
@pytest.mark.parametrize("shift", [-3.0, 3.0])  # of the mismatched: a KL held at 0, and one above
def test_each_loss_of_kto_is_trls(loss_type, shift):
    objective = KTO(loss_type=loss_type, beta=0.2, desirable_weight=1.3, undesirable_weight=0.7)
    made = made_up_labelled()
    made["kl_logps"] = made["kl_logps"] + made["loss_mask"][:, 1:] * np.float32(shift)
    batch = batch_of(made)
    rows = [objective.row_logps(mx.array(made[name]), batch) for name in ("kl_logps", "kl_reference")]
    ours = of_log_probabilities(objective, made | {"squares": made["logps"]}, kl=kl_of(*rows))
    theirs = trl_judge.kto(objective, made)
    assert loss_type != "kto" or (shift > 0) == (theirs[2]["kl"] > 0)
    assert_same(ours, theirs)


def test_kto_of_answers_that_are_all_desirable_is_trls():
    objective, made = KTO(), made_up_labelled(1)
    made["labels"] = np.ones_like(made["labels"])
    batch = batch_of(made)
    rows = [objective.row_logps(mx.array(made[name]), batch) for name in ("kl_logps", "kl_reference")]
    assert_same(of_log_probabilities(objective, made, kl=kl_of(*rows)), trl_judge.kto(objective, made))


def of_logits(objective, made):
    """(loss, gradient for the logits, metrics), ours."""
    batch = batch_of(made)
    rows, width = made["tokens"].shape
    positions = objective.positions(batch)
    asked = mx.zeros(rows * (width - 1)).at[positions].add(1.0).reshape(rows, width - 1)
    targets = batch["tokens"][:, 1:, None]

    def loss(logits):
        of_all = logits[:, :-1] - mx.logsumexp(logits[:, :-1], axis=-1, keepdims=True)
        logps = mx.take_along_axis(of_all, targets, axis=-1)[..., 0] * asked
        total, sums = objective.loss(TokenLogps(logps), batch)
        return total / objective.units(batch), sums

    (value, sums), gradient = mx.value_and_grad(loss)(mx.array(made["logits"]))
    return value.item(), np.array(gradient), objective.metrics(sums)


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_orpo_is_trls(beta):
    objective, made = ORPO(beta=beta), made_up_pairs(6)
    assert_same(of_logits(objective, made), trl_judge.without_reference(objective, made))


CPOS = {
    "sigmoid": CPO(),
    "sigmoid, smoothed": CPO(label_smoothing=0.2, beta=0.4),
    "hinge": CPO(loss_type="hinge"),
    "ipo": CPO(loss_type="ipo", cpo_alpha=0.5),
    "without imitation": CPO(cpo_alpha=0.0),
    "simpo": SimPO(beta=2.0, simpo_gamma=0.7),
    "simpo, smoothed": SimPO(beta=2.0, label_smoothing=0.1),
    "simpo with imitation": CPO(loss_type="simpo", cpo_alpha=1.0),
    "alphapo": AlphaPO(alpha=0.25, beta=2.0),
    "alphapo of sums": CPO(alpha=0.1),
}


@pytest.mark.parametrize("kind", CPOS)
def test_each_loss_of_cpo_is_trls(kind):
    objective, made = CPOS[kind], made_up_pairs(7)
    assert_same(of_logits(objective, made), trl_judge.without_reference(objective, made))
