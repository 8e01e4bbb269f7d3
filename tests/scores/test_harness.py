"""Tasks of lm-eval on a live model: each request as its own `hf` backend has it, under torch on the same weights."""

import os
import random
import subprocess
import sys

import mlx.core as mx
import numpy as np
import pytest

from tests.makers.lm_eval_tasks import TASKS, check_replies, judged, offline, write_tasks
from tests.makers.tiny import tiny_model_folder
from tunebook import FastModel, scores


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_model_folder(tmp_path_factory.mktemp("harness") / "llama", max_position_embeddings=96)


@pytest.fixture(scope="module")
def task_folder(tmp_path_factory):
    return write_tasks(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="module")
def no_network(tmp_path_factory):
    with offline(tmp_path_factory.mktemp("datasets")):
        yield


@pytest.fixture(scope="module")
def theirs(folder, task_folder, no_network):
    return judged(folder, task_folder)


@pytest.fixture(scope="module")
def model(folder):
    return FastModel.from_pretrained(folder)[0]


@pytest.fixture(scope="module")
def ours(model, task_folder, no_network):
    return scores.harness(model, [*TASKS], include_path=task_folder, batch_size=3)


@pytest.mark.parametrize("task", TASKS)
def test_every_request_is_answered_as_by_lm_evals_own_backend_under_torch(task, ours, theirs):
    check_replies(task, ours.results, theirs)


@pytest.mark.parametrize("task", TASKS)
def test_scores_are_lm_evals_and_so_are_those_of_the_marks(task, ours, theirs):
    marks = ours.marks[task]
    names = [name.partition(",")[0] for name in theirs["results"][task] if "," in name and "stderr" not in name]
    assert [metric.name for metric in marks.metrics] == names
    for metric in marks.metrics:
        assert marks[metric.name] == pytest.approx(theirs["results"][task][f"{metric.name},none"], rel=1e-5)
    assert not marks.notices


def test_two_models_marks_of_a_task_are_told_apart_like_those_of_an_exam(model, ours, task_folder, no_network, folder):
    again = scores.harness(model, ["tiny_choice"], include_path=task_folder, name="again").marks["tiny_choice"]
    other = scores.harness(model, ["tiny_choice"], include_path=task_folder, limit=4).marks["tiny_choice"]
    shown = repr(scores.compare(again, again))
    assert "acc: none of 8 rows changed" in shown
    with pytest.raises(ValueError, match="different exams"):
        scores.compare(again, other)


def test_what_is_too_long_is_cut_on_the_left_and_told_of_and_an_answer_without_a_place_is_refused(model):
    from lm_eval.api.instance import Instance

    from tunebook.scores.tasks.lm_eval_model import AskedByTasks

    class Replies:
        name, tokenizer, longest = "replies", model.loaded.tokenizer, 20

        def likelihoods(self, rows):
            self.lengths = [len(row.tokens) for row in rows]
            return iter((place, -1.0, True) for place in range(len(rows)))

        def answers(self, prompts, max_tokens, stop):
            self.lengths = [len(prompt) for prompt in prompts]
            return iter((place, []) for place in range(len(prompts)))

    def asked(kind, *arguments):
        return Instance(request_type=kind, doc={}, arguments=arguments, idx=0)

    replies = Replies()
    posed = AskedByTasks(replies, batch_size=1)
    long, most = " fox" * 30, len(model.loaded.tokenizer.encode(" fox" * 30))
    posed.loglikelihood([asked("loglikelihood", "a", " dog"), asked("loglikelihood", long, " dog")])
    assert max(replies.lengths) == 21
    (said,) = posed.notices
    assert said.startswith("1 of 2 requests were cut on the left, as by lm-eval, by up to ")
    posed.generate_until([asked("generate_until", long, {"until": ["e"], "max_gen_toks": 8})])
    assert replies.lengths == [12]
    assert f"by up to {most - 12} tokens: the model takes 20." in posed.notices[1]
    with pytest.raises(ValueError, match="answers of up to 24 tokens, and the model takes 20"):
        posed.generate_until([asked("generate_until", long, {"until": ["e"], "max_gen_toks": 24})])


def test_no_torch_is_imported(folder, task_folder, tmp_path):
    script = f"""
import sys
from tunebook import FastModel, scores
print(scores.harness(FastModel.from_pretrained({str(folder)!r})[0], ["tiny_choice"], include_path={str(task_folder)!r}))
print("torch" in sys.modules)
"""
    environment = {**os.environ, "HF_DATASETS_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True)
    assert "tiny_choice  acc_norm" in done.stdout
    assert done.stdout.splitlines()[-1] == "False"


def test_a_run_goes_on_as_if_no_task_had_been_run(model, task_folder, no_network):
    mx.random.seed(3)
    random.seed(3)
    np.random.seed(3)
    expected = (float(mx.random.uniform()), random.random(), np.random.rand())
    mx.random.seed(3)
    random.seed(3)
    np.random.seed(3)
    model.module.train()
    scores.harness(model, ["tiny_choice", "tiny_answer"], include_path=task_folder, limit=2)
    assert model.module.training
    assert (float(mx.random.uniform()), random.random(), np.random.rand()) == expected
