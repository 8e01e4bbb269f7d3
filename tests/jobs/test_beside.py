"""beside.py: what something cost a run is told by the steps it took meanwhile, without the one that had begun."""

from tunebook.jobs.beside import cost

USUAL = [1.0, 2.0, 3.0, 4.0]


def test_steps_that_took_longer_meanwhile_are_told_of_beside_those_before():
    assert cost("runs/run-001", USUAL, [*USUAL, 5.5, 8.0, 10.5]) == (
        "The run in runs/run-001 took 2.50 s a step meanwhile, 1.00 s before."
    )
    assert "took 1.50 s a step meanwhile" in cost("runs/run-001", USUAL, [*USUAL, 5.5])


def test_where_no_step_ended_there_is_nothing_to_compare():
    for before, after in ((USUAL, USUAL), ([], []), ([1.0], [1.0, 2.0])):
        assert cost("here", before, after) == "The run in here trains meanwhile; both share this machine."
