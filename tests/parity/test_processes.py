"""mlx-lm in two processes takes another update than in one, and the lab tells why."""

import pytest

from tests.makers.tiny import tiny_model_folder
from tunebook.parity.processes import mlx_lm_in_processes

SHORT = [[5, 9, 40], [7, 11, 13, 80]]
LONG = [list(range(20, 50)), list(range(60, 85))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_model_folder(tmp_path_factory.mktemp("processes") / "llama")


def test_a_token_counts_for_more_where_a_process_has_few(folder):
    found = mlx_lm_in_processes(folder, [SHORT, LONG])
    assert found.tokens == (5, 53)
    assert found.off > 0.1
    assert found.unexplained < 1e-5
    assert "5 and 53 tokens" in str(found)


def test_processes_with_as_many_tokens_take_the_update_of_one(folder):
    found = mlx_lm_in_processes(folder, [[LONG[0][:10], SHORT[0]], [LONG[1][:10], SHORT[0]]])
    assert found.off < 1e-5
