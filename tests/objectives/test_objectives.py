"""What an objective says of itself, and what it refuses."""

import json
from dataclasses import fields, replace

import mlx.core as mx
import numpy as np
import pytest

from tests.objectives.made_up import batch_of, made_up_pairs
from tunebook.objectives import CPO, DPO, KTO, ORPO, AlphaPO, SimPO
from tunebook.objectives.token_logps import TokenLogps


def of_trl(name):
    from trl.experimental.cpo import CPOConfig
    from trl.experimental.orpo import ORPOConfig
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.kto_config import KTOConfig

    return {"DPO": DPOConfig, "KTO": KTOConfig, "CPO": CPOConfig, "ORPO": ORPOConfig}[name]


def default(field):
    return field.default_factory() if callable(field.default_factory) else field.default


@pytest.mark.parametrize("kind", [DPO, KTO, CPO, ORPO])
def test_every_setting_of_trls_record_is_ours_by_its_name_and_default_or_refused_by_its_name(kind):
    from transformers import TrainingArguments

    transformers_own = {field.name for field in fields(TrainingArguments)}
    ours = {field.name: default(field) for field in fields(kind)}
    for field in fields(of_trl(kind.__name__)):
        if field.name in ours:
            theirs = default(field)
            found = ours[field.name]
            assert (list(found) if isinstance(theirs, list) else found) == theirs, field.name
        elif field.name not in transformers_own:
            with pytest.raises(ValueError, match=f"{kind.__name__} takes no {field.name}: "):
                kind(**{field.name: None})
    with pytest.raises(ValueError, match="learning_rate: it is TrainingConfig's"):
        kind(learning_rate=1e-6)
    with pytest.raises(TypeError, match="betta"):
        kind(betta=1.0)


WRONG = {
    "beta is 0": lambda: DPO(beta=0),
    "beta is nan": lambda: KTO(beta=float("nan")),
    "loss_type is 'sigmod'; it is one of": lambda: DPO(loss_type="sigmod"),
    "loss_weights holds 1 numbers for 2 loss types": lambda: DPO(loss_type=["sigmoid", "sft"], loss_weights=[1.0]),
    "loss_type is empty": lambda: DPO(loss_type=[]),
    "'forward_kl', with which aot, nca_pair has no form": lambda: DPO(
        loss_type=["aot", "nca_pair"], f_divergence_type="forward_kl"
    ),
    "f_divergence_type is 'kl'": lambda: DPO(f_divergence_type="kl"),
    "ld_alpha is 1.5; it must lie between 0 and 1": lambda: DPO(ld_alpha=1.5),
    "robust needs less than 0.5": lambda: DPO(loss_type="robust", label_smoothing=0.5),
    "exo_pair needs some": lambda: DPO(loss_type="exo_pair"),
    "label_smoothing is 0.1, which sigmoid would not read": lambda: DPO(label_smoothing=0.1),
    "label_smoothing is 0.1, which hinge would not read": lambda: CPO(loss_type="hinge", label_smoothing=0.1),
    "sft is no loss of one pair": lambda: DPO(loss_type=["sigmoid", "sft"], use_weighting=True),
    "desirable_weight is -1": lambda: KTO(desirable_weight=-1),
    "rpo_alpha: it is loss_type=": lambda: DPO(rpo_alpha=1.0),
}


@pytest.mark.parametrize("said", WRONG)
def test_what_is_wrong_is_said(said):
    with pytest.raises(ValueError, match=said.replace("=[", "=")):
        WRONG[said]()


def test_all_that_is_wrong_is_said_at_once():
    with pytest.raises(ValueError, match=r"(?s)DPO\.beta .*DPO\.ld_alpha .*DPO\.loss_type"):
        DPO(beta=-1, ld_alpha=2, loss_type="other")


@pytest.mark.parametrize("objective", [DPO(loss_type="ipo"), KTO(), CPO(), ORPO(), SimPO(), AlphaPO(alpha=0.25)])
def test_an_objective_is_known_by_values_for_json(objective):
    said = json.loads(json.dumps(objective.identity()))
    assert said.pop("objective") == type(objective).__name__
    assert type(objective)(**said) == objective
    assert replace(objective, beta=0.77).identity() != objective.identity()


def test_settings_are_taken_by_their_types_as_those_of_a_run_are():
    objective = CPO(beta=np.float32(0.5), simpo_gamma=np.int64(1), disable_dropout=np.False_)
    assert objective == CPO(beta=0.5, simpo_gamma=1, disable_dropout=False)
    weighed = DPO(loss_type=["sigmoid", "sft"], loss_weights=np.array([1.0, 0.25], np.float32))
    assert json.loads(json.dumps(weighed.identity()))["loss_weights"] == [1.0, 0.25]
    for wrong in (
        lambda: DPO(loss_weights=[float("nan")]),
        lambda: DPO(loss_weights=["1"]),
        lambda: CPO(simpo_gamma="0.5"),
        lambda: CPO(cpo_alpha=float("inf")),
        lambda: AlphaPO(alpha=None),
        lambda: KTO(disable_dropout="no"),
    ):
        with pytest.raises(ValueError, match="it must be"):
            wrong()
    with pytest.raises(TypeError, match="did you mean beta"):
        DPO(betta=1.0)


def test_losses_that_look_at_several_pairs_at_once_say_so():
    assert "aot sorts" in DPO(loss_type=["sigmoid", "aot"]).couples_rows
    assert "KL" in KTO().couples_rows
    assert not any(each.couples_rows for each in (DPO(), CPO(), ORPO(), KTO(loss_type="apo_zero_unpaired")))


OBJECTIVES = [DPO(loss_type=["sigmoid", "sft"], ld_alpha=0.4), DPO(loss_type="ipo"), CPO(), ORPO(), SimPO()]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
def test_splitting_a_step_over_pairs_changes_neither_its_loss_nor_what_is_logged(objective):
    """Mean tokens of other lengths too, given how many one pair of the whole step has."""
    made, pairs = made_up_pairs(8, pairs=6), 6
    whole = batch_of(made) | {"reference_logps": mx.array(made["reference"]).sum(axis=1)}
    mask = made["loss_mask"][:pairs, 1:]
    counted = made["lengths"][:pairs] - 1 if isinstance(objective, ORPO) else mask.sum(axis=1)
    total, sums = objective.loss(TokenLogps(mx.array(made["logps"])), whole)
    parts, added = 0.0, {}
    for some in ([0, 1], [2], [3, 4, 5]):
        rows = np.array([*some, *(pairs + number for number in some)])
        batch = {name: value[mx.array(rows)] for name, value in whole.items()}
        batch["tokens_per_pair"] = mx.array(float(counted.mean()))
        part, its_sums = objective.loss(TokenLogps(mx.array(made["logps"][rows])), batch)
        parts += part.item()
        added = {name: added.get(name, mx.zeros(2)) + value for name, value in its_sums.items()}
    assert parts == pytest.approx(total.item(), rel=1e-5)
    assert objective.metrics(added) == pytest.approx(objective.metrics(sums), rel=1e-5)
