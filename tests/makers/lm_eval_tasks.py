"""Tasks for lm-eval over a few local rows, one of each kind, and lm-eval's own results for a model, under torch."""

import json
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

WORDS = ("fox", "dog", "sun", "tune", "noon", "June")

TASKS = {
    "tiny_choice": """
        output_type: multiple_choice
        doc_to_text: "Question: {{question}}\\nAnswer:"
        doc_to_choice: choices
        doc_to_target: answer
        metric_list: [{metric: acc}, {metric: acc_norm}]
        """,
    "tiny_cloze": """
        output_type: multiple_choice
        doc_to_text: "{{question}} Then comes"
        doc_to_choice: choices
        doc_to_target: answer
        fewshot_split: test
        fewshot_config: {sampler: first_n}
        num_fewshot: 2
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


def write_tasks(place: Path) -> Path:
    """Write the tasks to the folder `place` and return it; some texts of them are longer than 96 tokens."""
    with (place / "rows.jsonl").open("w") as file:
        for number in range(8):
            choices = [f"the {WORDS[(number + step) % 6]}{' and the dog' * step}" for step in range(3)]
            text = " ".join(["the quick brown", *WORDS, "jumps over"] * (1 + 4 * (number % 3)))
            question = f"What is {WORDS[number % 6]} {number} " + "and then " * number
            row = {"question": question.strip(), "choices": choices, "answer": number % 3, "text": text}
            file.write(json.dumps(row) + "\n")
    for name, body in TASKS.items():
        head = f"task: {name}\ndataset_path: json\ntest_split: test\n"
        head += "" if "num_fewshot" in body else "num_fewshot: 0\n"
        head += f"dataset_kwargs: {{data_files: {{test: {place / 'rows.jsonl'}}}}}\n"
        (place / f"{name}.yaml").write_text(head + textwrap.dedent(body))
    return place


@contextmanager
def offline(caches: Path) -> Iterator[None]:
    """No network, and the caches of libraries in the folder `caches`."""
    with pytest.MonkeyPatch.context() as patch:
        import datasets.config

        patch.setattr(datasets.config, "HF_DATASETS_CACHE", caches)
        patch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
        yield


def judged(model: Path, tasks: Path, *, limit: int | None = None, dtype: str = "float32") -> dict[str, Any]:
    """lm-eval's own results for a model folder."""
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    judge = HFLM(pretrained=str(model), device="cpu", dtype=dtype, batch_size=1)
    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    loaded = manager.load([*TASKS])
    for task in loaded["tasks"].values():
        task.set_fewshot_seed(seed=1234)
    return evaluate(judge, loaded, limit=limit, bootstrap_iters=0)


def check_replies(task: str, ours: dict[str, Any], theirs: dict[str, Any], *, off: float = 1e-4) -> None:
    """Every reply of both results to `task` is the same but for `off` nats."""
    for mine, other in zip(ours["samples"][task], theirs["samples"][task], strict=True):
        assert mine["doc_hash"] == other["doc_hash"]
        assert [request[0] for request in mine["arguments"]] == [request[0] for request in other["arguments"]]
        for found, expected in zip(mine["resps"], other["resps"], strict=True):
            if task == "tiny_answer":
                assert found == expected
            elif task == "tiny_text":
                assert found[0] == pytest.approx(expected[0], abs=off)
            else:
                assert found[0][0] == pytest.approx(expected[0][0], abs=off)
                assert found[0][1] == expected[0][1]
