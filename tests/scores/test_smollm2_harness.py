"""SmolLM2-135M's replies to tasks of lm-eval are those of its own `hf` backend, under torch on the same weights.

torch computes in float64: in float32 some of its own replies are off by 1e-4, and ours by a fifth of that.
"""

import pytest

from tests.makers.lm_eval_tasks import TASKS, check_replies, judged, offline, write_tasks
from tunebook import FastModel, scores

pytestmark = [pytest.mark.real_model, pytest.mark.float32]

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
LIMIT = 3  # rows of each task


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """(our results, lm-eval's own)."""
    tasks = write_tasks(tmp_path_factory.mktemp("tasks"))
    model, _ = FastModel.from_pretrained(MODEL, dtype="float32")
    with offline(tmp_path_factory.mktemp("datasets")):
        ours = scores.harness(model, [*TASKS], include_path=tasks, limit=LIMIT)
        return ours, judged(model.loaded.folder, tasks, limit=LIMIT, dtype="float64")


@pytest.mark.parametrize("task", TASKS)
def test_every_reply_and_every_score_is_that_of_lm_evals_own_backend(task, both):
    ours, theirs = both
    check_replies(task, ours.results, theirs)
    for metric in ours.marks[task].metrics:
        expected = theirs["results"][task][f"{metric.name},none"]
        assert ours.marks[task][metric.name] == pytest.approx(expected, rel=1e-5)
