"""The preference stages of the parity lab, on tiny models: TRL agrees, and every planted fault is at its own stage."""

import json
from dataclasses import replace

import numpy as np
import pytest

from tests.makers.tiny import tiny_model_folder
from tunebook.objectives import CPO, DPO, KTO, ORPO, SimPO

pytest.importorskip("torch")
pytest.importorskip("peft")
pytest.importorskip("trl")

from tunebook import parity
from tunebook.parity.__main__ import main
from tunebook.parity.preferences.run import answer_losses

STAGES = list(parity.PREFERENCE_CHAIN)
FEW = replace(parity.TRAINING, max_steps=6, warmup_steps=2)
WORDS = ("the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "then", "sleeps")


def text(numbers, longest):
    return " ".join(numbers.choice(WORDS, numbers.integers(1, longest)))


def pairs(count=9):
    numbers = np.random.default_rng(0)
    return [
        {
            "prompt": [{"role": "user", "content": text(numbers, 6) + "?"}],
            "chosen": [{"role": "assistant", "content": text(numbers, 9)}],
            "rejected": [{"role": "assistant", "content": "not " + text(numbers, 12)}],
        }
        for _ in range(count)
    ]


def rows_for(objective):
    if objective.rows == "pairs":
        return pairs()
    sides = ["chosen" if index % 2 else "rejected" for index in range(9)]
    return [
        {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
        for row, side in zip(pairs(), sides, strict=True)
    ]


OBJECTIVES = {
    "DPO": DPO(),
    "DPO, mixed": DPO(loss_type=["sigmoid_norm", "sft"], loss_weights=[1.0, 0.5], ld_alpha=0.5),
    "DPO, sorting": DPO(loss_type="aot", label_smoothing=0.1),
    "ORPO": ORPO(),
    "SimPO": SimPO(beta=2.0),
    "KTO": KTO(undesirable_weight=1.5),
}


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_the_whole_chain_agrees_with_trl(kind, tiny_folder):
    objective = OBJECTIVES[kind]
    found = parity.bisect(tiny_folder, rows_for(objective), objective=objective, training=FEW)
    assert found.first is None, found.sentence
    assert list(found.seconds) == STAGES
    asked = {finding.stage for finding in found.findings}
    assert set(STAGES) - asked == (set() if objective.needs_reference else {"reference"})
    [curve] = [finding for finding in found.findings if finding.stage == "curve"]
    assert curve.measured < 1e-4


def test_the_whole_chain_agrees_on_gemma3(tmp_path):
    folder = tiny_model_folder(tmp_path, "gemma3", num_hidden_layers=2, sliding_window_pattern=2)
    found = parity.bisect(folder, pairs(), objective=DPO(), training=FEW)
    assert found.first is None, found.sentence


@pytest.mark.parametrize(
    "rows",
    [
        [{"prompt": "Say " + " ".join(WORDS * 3), "chosen": " the dog", "rejected": " the lazy dog " * 9}, *pairs(0)],
        [{"chosen": "the quick brown fox", "rejected": "the quick dog"}],
    ],
    ids=["cut strings", "implied prompts"],
)
def test_rows_that_are_no_conversations_agree_too(rows, tiny_folder):
    found = parity.bisect(tiny_folder, rows, objective=DPO(), max_seq_length=64, stages=["tokens", "supervision"])
    assert found.first is None, found.sentence


# What is planted is found

# What the sentence says beside the stage, so that a person knows what is wrong.
SAID = {
    "end token missing": "It is the end token.",
    "prompt counted": "The first is token 0 of the prompt of row 0, before its chosen answer, counted here alone.",
    "answer off by one": "The first is token 0 of the chosen answer of row 0, counted there alone.",
    "pad counted": "of a padded batch, counted here alone. It is padding.",
    "labels of answers not shifted": "log-probability of each token",
    "moving reference": "It is what the model itself says by now: the reference moves with it.",
    "detached reference": "It is what the model says without its adapters, with which the run began.",
    "sum over tokens in place of their mean": "a known fault: sum over tokens in place of their mean.",
    "sum over pairs in place of their mean": "a known fault: sum over pairs in place of their mean.",
    "answers without a gradient": "The gradient here is zero, so nothing is learnt.",
    "odds ratio left out": "a known fault: odds ratio left out.",
}


@pytest.mark.parametrize("name", parity.PREFERENCE_FAULTS)
def test_a_planted_fault_is_found_at_its_own_stage_and_told_what_it_is(name, tiny_folder):
    fault = parity.PREFERENCE_FAULTS[name]
    until = STAGES[: STAGES.index(fault.stage) + 1]
    mine = replace(fault.procedure, name="Mine")
    found = parity.bisect(tiny_folder, pairs(5), objective=fault.objective, procedure=mine, stages=until)
    assert found.first is not None
    assert found.first.stage == fault.stage, found.sentence
    assert SAID[name] in found.sentence


@pytest.mark.parametrize(
    "objective", [DPO(loss_type="ipo"), DPO(loss_type="sigmoid_norm"), ORPO(), CPO(loss_type="ipo")]
)
def test_a_sum_in_place_of_a_mean_is_named_for_each_objective_that_takes_means(objective, tiny_folder):
    fault = parity.PREFERENCE_FAULTS["sum over tokens in place of their mean"]
    found = parity.bisect(tiny_folder, pairs(5), objective=objective, procedure=fault.procedure, stages=["loss"])
    assert "a known fault: sum over tokens in place of their mean." in found.sentence


@pytest.mark.parametrize("name", ["moving reference", "pad counted", "prompt counted"])
def test_the_same_faults_are_found_in_answers_that_were_judged(name, tiny_folder):
    fault = parity.PREFERENCE_FAULTS[name]
    until = STAGES[: STAGES.index(fault.stage) + 1]
    found = parity.bisect(tiny_folder, rows_for(KTO()), objective=KTO(), procedure=fault.procedure, stages=until)
    assert found.first.stage == fault.stage, found.sentence


def test_a_part_of_every_run_that_is_wrong_is_found_in_one_over_answers_too(tiny_folder):
    fault = parity.FAULTS["no bias correction"]
    found = parity.bisect(tiny_folder, pairs(), objective=DPO(), procedure=fault.procedure, training=FEW)
    assert {finding.stage for finding in found.findings if finding.verdict == "beyond"} == {"optimizer", "curve"}


def test_the_parts_put_together_are_the_trainers_own_steps(tiny_folder):
    curves = []
    for procedure in (parity.KIT, replace(parity.KIT, name="by parts")):
        loaded = parity.KIT.load(tiny_folder, 128)
        parity.KIT.adapt(loaded, parity.LORA)
        encoded = parity.KIT.answers.encode(pairs(), loaded, 128, "pairs")
        curves.append(list(answer_losses(procedure, DPO(), loaded, encoded, FEW, 128)))
    assert curves[0] == pytest.approx(curves[1], rel=1e-5)


# What is told of it


def test_the_command_compares_an_objective_by_its_name(tiny_folder, tmp_path, capsys):
    (tmp_path / "rows.json").write_text(json.dumps(rows_for(KTO())))
    given = ["--model", str(tiny_folder), "--objective", "KTO", "--json", str(tmp_path / "out" / "KTO.json")]
    (tmp_path / "out").mkdir()
    page = tmp_path / "out.html"
    code = main([*given, "--rows", str(tmp_path / "rows.json"), "--stages", "tokens", "loss", "--report", str(page)])
    assert code == 0
    assert "made-up logits as one loss of KTO (kto), here and in TRL" in capsys.readouterr().out
    assert "Parity of tunebook by KTO on" in page.read_text()
    assert main(["--together", str(tmp_path / "out")]) == 1
    assert "No report tells of supervision, batches, logits" in capsys.readouterr().out


def test_without_rows_the_command_makes_some(tiny_folder, capsys):
    assert main(["--model", str(tiny_folder), "--objective", "KTO", "--stages", "tokens"]) == 0
    assert "ids of 24 rows" in capsys.readouterr().out


def test_stages_of_the_other_chain_are_refused_with_those_there_are(tiny_folder):
    with pytest.raises(ValueError, match="stages names exports; choose from tokens, supervision, batches, logits, ad"):
        parity.bisect(tiny_folder, pairs(), objective=DPO(), stages=["exports"])
    with pytest.raises(ValueError, match="stages names log-probs"):
        parity.bisect(tiny_folder, pairs(), stages=["log-probs"])
