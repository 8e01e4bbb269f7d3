"""The parity lab on tiny models: nothing is found where nothing is wrong, and every planted fault at its own stage."""

import json
import math
import os
import statistics
from dataclasses import replace
from itertools import product

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.utils import load_model, quantize_model, save_model

from tests.makers.arrays import in_numpy
from tests.makers.tiny import tiny_model_folder
from tunebook import FastModel, LoraConfig
from tunebook.tokens.batch_order import torch_randperm

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from tunebook import parity  # noqa: E402
from tunebook.parity.__main__ import main  # noqa: E402
from tunebook.parity.exact import permutation_p, sign_p  # noqa: E402
from tunebook.parity.probes.quantization import nf4_by_torch  # noqa: E402
from tunebook.parity.procedure import by_parts, losses  # noqa: E402
from tunebook.parity.references import mlx_lm_run, torch_model  # noqa: E402
from tunebook.parity.references.nf4 import BLOCK, LEVELS, nf4_dense, nf4_rounded  # noqa: E402

STAGES = list(parity.CHAIN)
BEFORE_RUNS = STAGES[: STAGES.index("reference")]
SEEDS = int(os.environ.get("TUNEBOOK_PARITY_SEEDS", "3"))  # 20 were run by hand
FEW = replace(parity.TRAINING, max_steps=6, warmup_steps=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Eighteen layers, so that sixteen are not all."""
    return tiny_model_folder(tmp_path_factory.mktemp("parity") / "llama", num_hidden_layers=18, hidden_size=32)


@pytest.fixture(scope="module")
def report(tiny_folder, rows):
    return parity.bisect(tiny_folder, rows)


@pytest.fixture(scope="module")
def faulty(tiny_folder, rows):
    """A whole report on a run whose micro-batches all weigh the same."""
    fault = parity.FAULTS["mean of means"]
    return parity.bisect(tiny_folder, rows, procedure=fault.procedure, training=FEW)


# Nothing is found where nothing is wrong


def test_the_whole_chain_agrees_on_a_tiny_llama(report):
    assert [finding for finding in report.findings if finding.verdict == "beyond"] == []
    assert list(report.seconds) == STAGES
    assert "agree" in report.sentence


@pytest.mark.parametrize(
    ("architecture", "sizes"),
    [
        ("qwen2", {}),
        ("qwen3", {}),
        ("gemma3", {"num_hidden_layers": 2, "sliding_window_pattern": 2}),  # a sliding layer and a global one
        ("phi3", {}),
    ],
)
def test_the_whole_chain_agrees_on_other_architectures(architecture, sizes, tmp_path, rows):
    found = parity.bisect(tiny_model_folder(tmp_path, architecture, **sizes), rows)
    assert found.first is None, found.sentence
    assert {finding.stage for finding in found.findings} == set(STAGES)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_nothing_is_found_over_seeds(seed, tmp_path, rows):
    """Weights, adapters, order and rows are drawn anew."""
    folder = tiny_model_folder(tmp_path, ("llama", "qwen2", "qwen3", "phi3")[seed % 4], seed=seed)
    some = [rows[index] for index in np.random.default_rng(seed).permutation(len(rows))[:9]]
    found = parity.bisect(
        folder,
        some,
        lora=replace(parity.LORA, random_state=seed),
        training=replace(parity.TRAINING, seed=seed),
        stages=[stage for stage in STAGES if stage not in ("exports", "mlx-lm")],
    )
    assert found.first is None, found.sentence


def test_losses_are_those_of_mlx_lm_to_the_last_digits(report):
    [finding] = [finding for finding in report.findings if finding.stage == "mlx-lm"]
    here, there = finding.numbers["here"], finding.numbers["there"]
    assert len(here) == 10
    assert here == pytest.approx(there, rel=1e-6)
    assert max(here) - min(here) > 0.01


# What is planted is found


@pytest.mark.parametrize("name", parity.FAULTS)
def test_a_planted_fault_is_found_at_its_own_stage(name, folder, rows):
    fault = parity.FAULTS[name]
    until = STAGES[: STAGES.index(fault.stage) + 1]
    found = parity.bisect(folder, rows[:11], procedure=fault.procedure, stages=until)
    assert found.first is not None
    assert found.first.stage == fault.stage, found.sentence
    assert name in found.sentence


def test_the_evidence_names_the_layer_and_the_token(folder, rows):
    fault = parity.FAULTS["one weight off"]
    found = parity.bisect(folder, rows, procedure=fault.procedure, stages=["logits"])
    assert "first layer whose output differs is 17 of 18" in found.first.evidence
    assert "Largest behind token " in found.first.evidence


def test_a_difference_stops_nothing_and_shows_in_its_own_stage_and_the_whole_run(faulty):
    assert list(faulty.seconds) == STAGES
    assert {finding.stage for finding in faulty.findings if finding.verdict == "beyond"} == {"reduction", "curve"}
    here, there = faulty.curves["curve"]
    assert len(here) == 6
    assert abs(here[0] - there[0]) > 1e-3


# The parts of a run


def test_the_parts_put_together_are_the_trainers_own_steps(tiny_folder, rows):
    """To rounding: the trainer computes attention in blocks and keeps fewer activations."""
    curves = []
    for run in (losses, by_parts):
        loaded = parity.KIT.load(tiny_folder, 128)
        parity.KIT.adapt(loaded, parity.LORA)
        encoded = parity.KIT.encode(rows, loaded, 128)
        curve = list(run(parity.KIT, loaded, encoded, FEW, 128))
        curves.append((curve, mlx_lm_run.adapters(loaded.module)))
    assert curves[0][0] == pytest.approx(curves[1][0], rel=1e-6)
    assert all(np.allclose(array, curves[1][1][name], atol=1e-5) for name, array in curves[0][1].items())


def test_the_order_of_torch_is_torchs_for_up_to_a_hundred_thousand_rows_and_fifty_seeds():
    """Every count to 200, then ever sparser ones; each count has seeds of its own, all fifty in turn."""
    counts = [*range(1, 201), *np.geomspace(201, 100_000, 40).astype(int).tolist()]
    seeds = [0, 1, 2**31 - 1, 2**32 - 1, *range(3400, 3446)]
    assert len(set(seeds)) == 50
    for index, count in enumerate(counts):
        for seed in (seeds[index % 50], seeds[(7 * index + 3) % 50]):
            theirs = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
            assert torch_randperm(count, seed) == theirs, (count, seed)


def test_the_reference_leaves_out_the_layers_that_are_left_out_here(tiny_folder):
    theirs = torch_model.open_with_adapters(tiny_folder, LoraConfig(r=2, finetune_last_n_layers=1))
    assert {name.split(".")[2] for name in torch_model.adapters(theirs)} == {"1"}


# NF4


def test_the_levels_of_nf4_are_the_quantiles_they_are_said_to_be():
    """Eight quantiles of a normal distribution above 0, seven below, scaled to 1 (bitsandbytes, create_normal_map)."""
    inverse, offset = statistics.NormalDist().inv_cdf, 0.9677083
    above = [inverse(point) for point in np.linspace(offset, 0.5, 9)[:-1]]
    below = [-inverse(point) for point in np.linspace(offset, 0.5, 8)[:-1]]
    levels = np.sort([*above, 0.0, *below]) / max(above)
    assert np.allclose(levels, LEVELS, atol=1e-6)


def test_nf4_takes_the_nearest_level_of_each_block_and_zeros_stay_zeros():
    weight = np.random.default_rng(0).standard_normal((5, 48)).astype(np.float32)
    weight.reshape(-1)[BLOCK : 2 * BLOCK] = 0.0  # a whole block
    rounded = np.array(nf4_rounded(mx.array(weight)))
    assert np.isfinite(rounded).all()
    assert (rounded.reshape(-1)[BLOCK : 2 * BLOCK] == 0).all()
    for start in range(0, weight.size, BLOCK):
        block = weight.reshape(-1)[start : start + BLOCK]
        largest = np.abs(block).max()
        nearest = [min(LEVELS, key=lambda level, value=value: abs(value - level * largest)) for value in block]
        assert np.allclose(rounded.reshape(-1)[start : start + BLOCK], np.array(nearest) * largest, atol=1e-7)
    assert np.allclose(nf4_by_torch(weight), rounded, atol=1e-7)


def test_nf4_leaves_embeddings_and_norms_alone(tiny_folder):
    loaded = parity.KIT.load(tiny_folder, 128)
    before = {name: np.array(array) for name, array in tree_flatten(loaded.module.parameters())}
    names = nf4_dense(loaded.module)
    after = {name: np.array(array) for name, array in tree_flatten(loaded.module.parameters())}
    changed = {name for name in after if not np.array_equal(after[name], before[name])}
    assert changed == set(names)
    assert len(names) == 14
    assert not [name for name in names if "embed" in name or "norm" in name]


# Seeds


def test_exact_tests_count_every_pattern():
    differences = [0.3, -0.1, 0.2, 0.5, 0.4]
    sums = [
        sum(sign * abs(value) for sign, value in zip(signs, differences, strict=True))
        for signs in product((1, -1), repeat=5)
    ]
    assert permutation_p(differences) == sum(abs(value) >= sum(differences) - 1e-9 for value in sums) / 32
    assert permutation_p([0.1] * 8) == 2 / 256
    assert permutation_p([0.0] * 8) == 1.0
    assert sign_p(differences) == pytest.approx(2 * (1 + 5) / 32)  # one of five below 0
    assert sign_p([0.0, 0.0]) == 1.0
    with pytest.raises(ValueError, match="21 pairs"):
        permutation_p([0.1] * 21)


def test_settings_that_are_the_same_cannot_be_told_apart(tiny_folder, rows):
    same = parity.Setting(name="one", training=FEW)
    found = parity.sweep(
        tiny_folder, rows[:8], same, replace(same, name="two"), held_out=rows[8:], seeds=range(2), steps=2
    )
    assert found.differences == [0.0, 0.0]
    assert found.p == 1.0
    assert "too few" in found.sentence
    assert len({first.loss for first, _ in found.outcomes}) == 2  # the seeds do differ


def test_a_rate_of_nearly_nothing_is_worse_on_every_seed(tiny_folder, rows):
    first = parity.Setting(name="as it is", training=replace(FEW, learning_rate=1e-2, warmup_steps=0))
    second = replace(first, name="slow", training=replace(first.training, learning_rate=1e-6))
    found = parity.sweep(tiny_folder, rows[:8], first, second, held_out=rows[8:], seeds=range(6), steps=4)
    assert all(difference > 0 for difference in found.differences)
    assert found.p == 2 / 64
    assert "slow is worse than as it is" in found.sentence
    assert "slow" in str(found)


def test_a_seed_that_comes_twice_is_refused(tiny_folder, rows):
    setting = parity.Setting(name="one")
    with pytest.raises(ValueError, match="comes twice"):
        parity.sweep(tiny_folder, rows, setting, setting, held_out=rows, seeds=[1, 1])


# What is told of it


def test_a_report_says_the_same_in_text_html_and_json(faulty, tmp_path):
    page = faulty.to_html(tmp_path / "report.html").read_text()
    numbers = json.loads(faulty.to_json(tmp_path / "report.json").read_text())
    assert "stage reduction" in faulty.sentence
    assert numbers["first_beyond"] == "reduction"
    assert len(numbers["findings"]) == len(faulty.findings) == page.count("<tr ")
    assert str(faulty).count("beyond") == page.count('class="beyond"')
    assert page.count("<svg") == len(faulty.curves) == 2
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")


def test_a_number_that_is_none_is_beyond_every_tolerance_and_still_json(tmp_path, faulty):
    broken = replace(faulty.findings[0], measured=math.nan)
    assert broken.verdict == "beyond"
    path = replace(faulty, findings=(broken,)).to_json(tmp_path / "report.json")
    assert json.loads(path.read_text())["findings"][0]["measured"] == "nan"


def test_what_a_model_writes_is_text_in_the_page_and_never_markup(faulty, tmp_path):
    evil = replace(faulty.findings[0], evidence="token '<script>alert(1)</script>'")
    page = replace(faulty, findings=(evil,), model="<b>").to_html(tmp_path / "report.html").read_text()
    assert "<script>" not in page
    assert "<b>" not in page.replace("<p><b>", "")


def test_the_command_writes_both_files_and_its_exit_code_says_whether_all_agree(tiny_folder, rows, tmp_path, capsys):
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    files = ["--report", str(tmp_path / "out.html"), "--json", str(tmp_path / "out.json")]
    given = ["--model", str(tiny_folder), "--rows", str(tmp_path / "rows.json"), *files]
    code = main([*given, "--stages", "rates", "optimizer"])
    assert code == 0
    assert "agree in all 2 comparisons" in capsys.readouterr().out
    assert json.loads((tmp_path / "out.json").read_text())["first_beyond"] is None


# What is refused, and what is left alone


def test_a_stage_that_is_none_and_settings_without_a_reference_are_refused(tiny_folder, rows):
    with pytest.raises(ValueError, match="stages names nonsense; choose from tokens"):
        parity.bisect(tiny_folder, rows, stages=["nonsense"])
    with pytest.raises(ValueError, match=r"lora_dropout is not 0; .*packing is on"):
        parity.bisect(
            tiny_folder, rows, lora=LoraConfig(lora_dropout=0.1), training=replace(parity.TRAINING, packing=True)
        )


def test_a_model_quantized_for_mlx_is_refused_where_torch_would_have_to_open_it(tiny_folder, tmp_path, rows):
    module, config = quantize_model(*load_model(tiny_folder), group_size=64, bits=4)
    save_model(tmp_path, module)
    for file in (*tiny_folder.glob("*.json"), *tiny_folder.glob("*.jinja")):
        (tmp_path / file.name).write_text(file.read_text())
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert parity.bisect(tmp_path, rows, stages=["tokens"]).first is None
    with pytest.raises(ValueError, match="quantized for MLX"):
        parity.bisect(tmp_path, rows, stages=["logits"])


def test_a_loaded_model_is_left_as_it_was(tuned, rows):
    before = {name: in_numpy(array) for name, array in tree_flatten(tuned.module.parameters())}
    found = parity.bisect(tuned, rows, stages=["tokens", "logits", "gradients", "generation", "quantization"])
    assert found.first is None
    assert all(np.array_equal(before[name], in_numpy(array)) for name, array in tree_flatten(tuned.module.parameters()))


@pytest.mark.parametrize("format", ["text", "prompt"])
def test_rows_that_are_no_conversations_agree_too(tiny_folder, format):
    words = ["the quick brown fox", "the dog sleeps in the warm sun until noon " * 12, "jumps"]
    rows = [{"text": text} if format == "text" else {"prompt": "Say it.", "completion": text} for text in words]
    found = parity.bisect(tiny_folder, rows, max_seq_length=64, stages=["tokens", "supervision"])
    assert found.first is None, found.sentence


def test_a_miniature_has_the_tokenizer_and_architecture_of_its_model_and_passes(tmp_path, rows):
    real = tiny_model_folder(tmp_path / "real", "qwen3", hidden_size=96, num_hidden_layers=3)
    small = parity.miniature(real, tmp_path / "small", layers=1, width=32)
    model, tokenizer = FastModel.from_pretrained(small)
    assert len(model.module["model"]["layers"]) == 1
    assert type(model.module).__module__ == "mlx_lm.models.qwen3"
    assert tokenizer.encode("the quick fox") == FastModel.from_pretrained(real)[1].encode("the quick fox")
    assert parity.bisect(small, rows, stages=["tokens", "logits", "gradients"]).first is None
