"""Tasks of lm-eval on a live model: each request as its own `hf` backend has it, under torch on the same weights."""

import json
import os
import random
import subprocess
import sys
import textwrap

import mlx.core as mx
import numpy as np
import pytest

from tests.makers.tiny import tiny_model_folder
from tunebook import FastModel, scores

WORDS = ("fox", "dog", "sun", "tune", "noon", "June")

TASKS = {
    "tiny_choice": """
        output_type: multiple_choice
        doc_to_text: "Question: {{question}}\\nAnswer:"
        doc_to_choice: choices
        doc_to_target: answer
        metric_list: [{metric: acc}, {metric: acc_norm}]
        """,
    "tiny_last_word": """
        output_type: loglikelihood
        doc_to_text: "{{question}}"
        doc_to_target: " {{choices[0]}}"
        metric_list: [{metric: perplexity}, {metric: acc}]
        """,
    "tiny_text": """
        output_type: loglikelihood_rolling
        doc_to_text: ""
        doc_to_target: "{{text}}"
        metric_list: [{metric: word_perplexity}, {metric: byte_perplexity}, {metric: bits_per_byte}]
        """,
    "tiny_answer": """
        output_type: generate_until
        doc_to_text: "{{question}}"
        doc_to_target: "{{choices[0]}}"
        generation_kwargs: {until: ["e", "<|im_end|>"], max_gen_toks: 24}
        metric_list: [{metric: exact_match}]
        """,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_model_folder(tmp_path_factory.mktemp("harness") / "llama", max_position_embeddings=96)


@pytest.fixture(scope="module")
def task_folder(tmp_path_factory):
    """Four tasks over local rows, one text of them longer than the model takes."""
    place = tmp_path_factory.mktemp("tasks")
    with (place / "rows.jsonl").open("w") as file:
        for number in range(8):
            choices = [f"the {WORDS[(number + step) % 6]}{' and the dog' * step}" for step in range(3)]
            text = " ".join(["the quick brown", *WORDS, "jumps over"] * (1 + 4 * (number % 3)))
            question = f"What is {WORDS[number % 6]} {number} " + "and then " * number
            row = {"question": question.strip(), "choices": choices, "answer": number % 3, "text": text}
            file.write(json.dumps(row) + "\n")
    for name, body in TASKS.items():
        head = f"task: {name}\ndataset_path: json\ntest_split: test\nnum_fewshot: 0\n"
        head += f"dataset_kwargs: {{data_files: {{test: {place / 'rows.jsonl'}}}}}\n"
        (place / f"{name}.yaml").write_text(head + textwrap.dedent(body))
    return place


@pytest.fixture(scope="module")
def offline(tmp_path_factory):
    """No network, and the caches of libraries in a folder of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        import datasets.config

        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))
        patch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
        yield


@pytest.fixture(scope="module")
def theirs(folder, task_folder, offline):
    """lm-eval's own results, under torch."""
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    judge = HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=1)
    manager = TaskManager(include_path=str(task_folder), include_defaults=False)
    return evaluate(judge, manager.load([*TASKS]), bootstrap_iters=0)


@pytest.fixture(scope="module")
def model(folder):
    return FastModel.from_pretrained(folder)[0]


@pytest.fixture(scope="module")
def ours(model, task_folder, offline):
    return scores.harness(model, [*TASKS], include_path=task_folder, batch_size=3)


@pytest.mark.parametrize("task", TASKS)
def test_every_request_is_answered_as_by_lm_evals_own_backend_under_torch(task, ours, theirs):
    for mine, other in zip(ours.results["samples"][task], theirs["samples"][task], strict=True):
        assert mine["doc_hash"] == other["doc_hash"]
        for found, expected in zip(mine["resps"], other["resps"], strict=True):
            if task == "tiny_answer":
                assert found == expected
            elif task == "tiny_text":
                assert found[0] == pytest.approx(expected[0], abs=1e-4)
            else:
                assert found[0][0] == pytest.approx(expected[0][0], abs=1e-4)
                assert found[0][1] == expected[0][1]


@pytest.mark.parametrize("task", TASKS)
def test_scores_are_lm_evals_and_so_are_those_of_the_marks(task, ours, theirs):
    marks = ours.marks[task]
    names = [name.partition(",")[0] for name in theirs["results"][task] if "," in name and "stderr" not in name]
    assert [metric.name for metric in marks.metrics] == names
    for metric in marks.metrics:
        assert marks[metric.name] == pytest.approx(theirs["results"][task][f"{metric.name},none"], rel=1e-5)
    assert not marks.notices


def test_two_models_marks_of_a_task_are_told_apart_like_those_of_an_exam(model, ours, task_folder, offline, folder):
    again = scores.harness(model, ["tiny_choice"], include_path=task_folder, name="again").marks["tiny_choice"]
    other = scores.harness(model, ["tiny_choice"], include_path=task_folder, limit=4).marks["tiny_choice"]
    shown = repr(scores.compare(again, again))
    assert "acc: none of 8 rows changed" in shown
    with pytest.raises(ValueError, match="different exams"):
        scores.compare(again, other)


def test_no_torch_is_imported(folder, task_folder, tmp_path):
    script = f"""
import sys
from tunebook import FastModel, scores
print(scores.harness(FastModel.from_pretrained({str(folder)!r})[0], ["tiny_choice"], include_path={str(task_folder)!r}))
print("torch" in sys.modules)
"""
    offline = {**os.environ, "HF_DATASETS_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=offline, check=True)
    assert "tiny_choice  acc_norm" in done.stdout
    assert done.stdout.splitlines()[-1] == "False"


def test_a_run_goes_on_as_if_no_task_had_been_run(model, task_folder, offline):
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
