"""train/ranks/check.py and what is agreed on: who differs is named, and what one process hears counts in all."""

from types import SimpleNamespace

import pytest

from tests.makers.small_runs import trainer_of
from tunebook.events import Command, EndReason, Request
from tunebook.objectives import KTO
from tunebook.runs.controls import Controls
from tunebook.train.ranks import check
from tunebook.train.ranks.check import RanksDiffer, check_alike, check_weights, met
from tunebook.train.ranks.group import ALONE
from tunebook.train.ranks.watch import Peer


class Others:
    """Three ranks of which this is the first; `said` makes what the others say of what it says."""

    size, rank, is_alone = 3, 0, False

    def __init__(self, said=lambda rank, own: own):
        self.peers = [Peer(rank, f"host{rank}", 1, "") for rank in range(3)]
        self._said = said

    def exchange(self, own):
        return [own, *(self._said(rank, own) for rank in (1, 2))]


def plan_of(adapted, rows, **settings):
    return trainer_of(adapted, rows, output_dir=None, **settings)._work().plan


def test_alone_nothing_is_asked(adapted):
    assert met(ALONE, SimpleNamespace()) == []
    check_weights(ALONE, adapted.module, 1)


def test_processes_that_have_the_same_may_train(adapted, rows):
    check_alike(Others(), plan_of(adapted, rows))


@pytest.mark.parametrize(
    "fact", ["training rows", "trained weights", "version of mlx", "learning_rate", "base", "what decides when"]
)
def test_what_a_process_has_otherwise_is_named_with_the_process(fact, adapted, rows):
    others = Others(lambda rank, own: {**own, fact: "another"} if rank == 2 else own)
    with pytest.raises(RanksDiffer, match=rf"{fact}: 'another' on rank 2 \(host2, process 1\), .* on rank 0"):
        check_alike(others, plan_of(adapted, rows))


def test_weights_that_drift_apart_name_the_odd_one(adapted):
    others = Others(lambda rank, own: "0123" if rank == 1 else own)
    with pytest.raises(RanksDiffer, match=r"After step 50 the weights of rank 1 \(host1, process 1\) are others"):
        check_weights(others, adapted.module, 50)
    with pytest.raises(RanksDiffer, match="differ by rank"):
        check_weights(Others(lambda rank, own: str(rank)), adapted.module, 50)


def test_micro_batches_that_cannot_be_split_are_enough_for_all_or_refused():
    objective = KTO()
    config = SimpleNamespace(gradient_accumulation_steps=2)
    with pytest.raises(ValueError, match="gradient_accumulation_steps is 2, and there are 3 processes"):
        check.check_use(3, SimpleNamespace(objective=objective, config=config))


def controls_of(*heard):
    """Controls of a process beside which the others heard what is given, in turn."""
    answers = iter(heard)
    return Controls(lambda own: [own, next(answers)])


def test_what_another_process_heard_counts_from_where_all_agreed():
    controls = controls_of([], [["learning_rate", 0.5], ["stop", None]])
    controls.agree()
    assert not controls.stopping
    controls.agree()
    assert controls.stopping
    assert controls.take_learning_rate() == 0.5


def test_what_this_process_heard_waits_for_all():
    controls = controls_of([])
    controls.ask(Request(Command.DISCARD))
    controls.ask(Request(Command.SAVE))
    assert [event.command for event in controls.listen(3, None)] == [Command.DISCARD, Command.SAVE]
    assert controls.asked_to_stop
    assert not controls.stopping
    assert controls.take_commands() == []
    controls.agree()
    assert controls.stopping
    assert controls.end_reason is EndReason.DISCARDED
    assert controls.take_commands() == [Command.SAVE]
