"""Learning rates, held against those of transformers."""

import pytest

from tunebook import TrainingConfig
from tunebook.config import Schedule
from tunebook.train import optim

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("kind", [kind for kind in Schedule.__args__ if kind != "warmup_stable_decay"])
@pytest.mark.parametrize(
    ("warmup", "steps"), [({"warmup_steps": 0}, 0), ({"warmup_steps": 3}, 3), ({"warmup_ratio": 0.2}, 3), ({}, 5)]
)
def test_every_rate_is_the_one_transformers_gives(kind, warmup, steps):
    name = "constant_with_warmup" if kind == "constant" else kind
    own = {"lr_end": 0.0} if kind == "polynomial" else {}
    assert rates(lr_scheduler_type=kind, **warmup) == pytest.approx(theirs(name, warmup_steps=steps, **own), abs=1e-12)


@pytest.mark.parametrize("warmup", [0, 4])
@pytest.mark.parametrize(
    ("kind", "told", "floor", "there"),
    [
        ("cosine_with_restarts", {"num_cycles": 3}, 0.0, {}),
        ("polynomial", {"power": 2.0}, 0.0, {"lr_end": 0.0}),
        ("polynomial", {"power": 0.5}, 0.1, {"lr_end": 0.001}),
        ("inverse_sqrt", {"timescale": 7}, 0.0, {}),
        ("warmup_stable_decay", {"num_decay_steps": 4}, 0.0, {}),
        ("warmup_stable_decay", {"num_decay_steps": 5, "decay_type": "linear"}, 0.25, {"min_lr_ratio": 0.25}),
        ("warmup_stable_decay", {"num_decay_steps": 3, "decay_type": "1-sqrt"}, 0.1, {"min_lr_ratio": 0.1}),
    ],
)
def test_what_a_schedule_is_told_means_what_it_means_to_transformers(kind, told, floor, there, warmup):
    found = rates(lr_scheduler_type=kind, lr_scheduler_kwargs=told, min_lr_rate=floor, warmup_steps=warmup)
    assert found == pytest.approx(theirs(kind, warmup_steps=warmup, **told, **there), abs=1e-12)


def test_the_last_fifth_of_a_run_decays_where_nothing_else_is_said():
    rate = optim.learning_rate(TrainingConfig(lr_scheduler_type="warmup_stable_decay", warmup_steps=0), 50)
    assert [rate(step) for step in (1, 41)] == [2e-4, 2e-4]
    assert rate(42) < 2e-4
    assert rate(51) == 0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"lr_scheduler_kwargs": {"num_cycles": 2}}, "num_cycles', which linear does not take; it takes none"),
        ({"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"powr": 2}}, "it takes power"),
        ({"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"min_lr": 1e-5}}, "write min_lr_rate"),
        (
            {"lr_scheduler_type": "cosine_with_restarts", "lr_scheduler_kwargs": {"num_cycles": 0.5}},
            r"lr_scheduler_kwargs\['num_cycles'\] is 0.5; it must be a whole number",
        ),
    ],
)
def test_what_a_schedule_does_not_take_is_said(settings, said):
    with pytest.raises(ValueError, match=said):
        TrainingConfig(**settings)


def test_a_share_of_warm_up_is_rounded_as_transformers_rounds_it(tmp_path):
    from transformers import TrainingArguments

    for ratio in (0.0, 0.01, 0.07, 0.1, 0.5):
        args = TrainingArguments(output_dir=str(tmp_path), warmup_steps=ratio, use_cpu=True)
        for total in (1, 7, 100, 1001):
            assert TrainingConfig(warmup_ratio=ratio).warmup(total) == args.get_warmup_steps(total)


def test_cosine_with_a_minimum_is_that_of_transformers():
    reference = theirs("cosine_with_min_lr", warmup_steps=3, min_lr_rate=0.1)
    assert rates(lr_scheduler_type="cosine", warmup_steps=3, min_lr_rate=0.1) == pytest.approx(reference, abs=1e-12)


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_a_minimum_rate_is_where_the_schedule_ends(kind):
    config = TrainingConfig(learning_rate=0.01, lr_scheduler_type=kind, warmup_steps=0, min_lr_rate=0.1)
    rate = optim.learning_rate(config, total_steps=100)
    assert rate(1) == pytest.approx(0.01)
    assert rate(101) == pytest.approx(0.001)


def rates(**settings):
    rate = optim.learning_rate(TrainingConfig(learning_rate=0.01, **settings), total_steps=12)
    return [rate(step) for step in range(1, 13)]


def theirs(name, *, warmup_steps, **specific):
    from transformers import get_scheduler

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.01)
    scheduler = get_scheduler(
        name,
        optimizer,
        num_warmup_steps=warmup_steps,
        num_training_steps=12,
        scheduler_specific_kwargs=specific or None,
    )
    found = []
    for _ in range(12):
        found += scheduler.get_last_lr()
        optimizer.step()
        scheduler.step()
    return found
