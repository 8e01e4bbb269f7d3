"""An exam of exports: in the program they are for they come to what the live model does, and a damaged one fails."""

import json
import shutil

import mlx.core as mx
import pytest

from tests.makers.gguf_facts import weights_of
from tests.makers.tiny import tiny_model_folder
from tunebook import FastModel, Trainer, TrainingConfig, scores
from tunebook.__main__ import main
from tunebook.export.readback.asking import DidNotReply, Elsewhere, Opening
from tunebook.gguf import write_gguf
from tunebook.models.fetch import ModelNotFound

ROWS = [
    {"prompt": f"Say {word}.", "completion": f"{word} it is"}
    for word in ("tune", "fox", "dog", "sun", "noon", "June", "Paris")
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("exports")


@pytest.fixture(scope="module")
def learnt(place):
    """A model that knows ROWS by heart, by its adapters."""
    model, tokenizer = FastModel.from_pretrained(tiny_model_folder(place / "llama"), max_seq_length=64)
    FastModel.get_peft_model(model, r=16, lora_alpha=32)
    settings = TrainingConfig(
        max_steps=80, learning_rate=2e-2, warmup_steps=2, per_device_train_batch_size=7, hold_out=0, save_steps=None
    )
    Trainer(model, tokenizer, train_dataset=ROWS, args=settings).train()
    return model


@pytest.fixture(scope="module")
def exam():
    likely = scores.Metric(
        name="likely",
        asks=lambda question: [question.reference, "never"],
        judge=lambda _, found: [one.is_greedy for one in found] == [True, False] and found[0].nats > found[1].nats,
    )
    return scores.Exam(ROWS, metrics=["exact_match", "perplexity", likely], max_tokens=12)


@pytest.fixture(scope="module")
def live(learnt, exam):
    return exam.take(learnt, adapters=False), exam.take(learnt)


@pytest.fixture(scope="module")
def merged(learnt, place):
    return learnt.save_pretrained_merged(place / "merged")


@pytest.fixture(scope="module")
def merged_marks(exam, merged):
    return exam.take(merged)


@pytest.fixture(scope="module")
def ggufs(learnt, place):
    """Base and tuned, in two types each."""
    pytest.importorskip("xllamacpp")
    base, _ = FastModel.from_pretrained(place / "llama")
    kinds = ["f16", "q8_0"]
    return [
        model.save_pretrained_gguf(place / name, quantization_method=kinds)
        for name, model in (("base", base), ("tuned", learnt))
    ]


def verdicts(before, after):
    return {metric: found.verdict for metric, found in after.against(before).items()}


def answers(marks):
    return [row.answer for row in marks.rows]


def test_base_and_tuned_as_gguf_give_the_verdict_of_the_live_ones_by_llama_cpp(ggufs, exam, live):
    assert verdicts(*live) == {"exact_match": "better", "perplexity": "better", "likely": "better"}
    for before, after in zip(*ggufs, strict=True):
        there = exam.take(before), exam.take(str(after.path))
        assert there[1].name == after.path.name
        assert len(there[1].notices) == 1
        assert "llama.cpp" in there[1].notices[0]
        assert verdicts(*there) == verdicts(*live)
        assert answers(there[1]) == answers(live[1])
        for mine, its in zip(live, there, strict=True):
            assert its["perplexity"] == pytest.approx(mine["perplexity"], rel=0.02)
        there[1].require(better_than=there[0], by=0.9)
        there[1].require(no_worse_than=live[1])


def test_a_merged_folder_is_asked_by_stock_mlx_lm_and_comes_to_what_the_live_model_does(merged_marks, live):
    assert merged_marks.name == "merged"
    (said,) = merged_marks.notices
    assert said.startswith("mlx-lm ")
    assert answers(merged_marks) == answers(live[1])
    assert merged_marks["likely"] == live[1]["likely"] == 1
    assert merged_marks["perplexity"] == pytest.approx(live[1]["perplexity"], rel=0.02)
    merged_marks.require(no_worse_than=live[1])


def test_an_export_with_one_tensor_swapped_fails_the_gate(ggufs, exam, live, merged, tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(merged.path, damaged)
    weights = weights_of(damaged)
    one, other = (f"model.layers.{layer}.mlp.down_proj.weight" for layer in (0, 1))
    weights[one], weights[other] = weights[other], weights[one]
    mx.save_safetensors(str(damaged / "model.safetensors"), weights, metadata={"format": "mlx"})
    marks = exam.take(write_gguf(damaged, tmp_path / "damaged.gguf", "f16").path)
    base = exam.take(ggufs[0][0])
    for metric in ("exact_match", "perplexity"):
        with pytest.raises(scores.ScoreTooLow, match=r"damaged\.gguf is to be no worse than tuned\."):
            marks.require(no_worse_than=live[1], metric=metric)
    with pytest.raises(scores.ScoreTooLow, match=r"damaged\.gguf is to be better than llama\.f16\.gguf"):
        marks.require(better_than=base)


def test_the_shell_asks_adapters_and_their_base_as_exported_and_its_exit_code_is_the_verdict(learnt, live, place):
    learnt.save_pretrained(place / "lora")
    file, report = place / "exam.jsonl", place / "scores.json"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    asked = ["score", str(place / "lora"), "--as-exported", "--exam", str(file), "--max-tokens", "12"]
    assert main([*asked, "--fail-below", "0.9", "--better-than-base", "--by", "0.9", "--report", str(report)]) == 0
    base, tuned = json.loads(report.read_text())["marks"]
    assert (base["name"], tuned["name"]) == ("base", "lora")
    assert base["notices"][0].startswith("mlx-lm ")
    for mine, its in zip(live, (base, tuned), strict=True):
        assert answers(mine) == [row["answer"] for row in its["rows"]]


def test_only_adapters_have_a_base_to_be_better_than(merged, exam):
    with pytest.raises(ValueError, match="merged holds no adapters to leave out"):
        exam.take(merged, adapters=False)


def test_prompts_of_which_the_program_makes_other_tokens_are_told_of(ggufs, exam, monkeypatch):
    monkeypatch.setattr(Elsewhere, "tokenize", lambda _, texts: [[0] for _ in texts])
    said = exam.take(ggufs[1][0]).notices[1]
    assert said.startswith("Of 7 of 7 prompts (first: row 0) llama.cpp")


def test_rows_that_were_asked_as_other_tokens_are_told_of_beside_the_difference(merged_marks, live, exam, place):
    assert [one.asked for one in merged_marks.rows] == [one.asked for one in live[1].rows]
    assert "other tokens" not in repr(scores.compare(live[1], merged_marks))
    other, tokenizer = FastModel.from_pretrained(place / "llama")
    tokenizer.chat_template = tokenizer.chat_template.replace("<|im_start|>", "<|im_start|> ", 1)
    said = repr(scores.compare(live[1], exam.take(other, name="other")))
    assert "other: 7 of 7 rows (first: row 0) were asked as other tokens than of tuned" in said


def test_what_does_not_open_is_said_in_the_programs_own_words(ggufs, exam, tmp_path):
    with pytest.raises(ModelNotFound, match="There is no file or folder"):
        exam.take(tmp_path / "none.gguf")
    whole, cut = ggufs[1][0].path.read_bytes(), tmp_path / "cut.gguf"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="cut"):
        exam.take(cut)
    with pytest.raises(DidNotReply, match=r"llama\.cpp .* does not answer for .*cut\.gguf: "):
        list(Elsewhere(Opening(path=cut)).write([[1]], max_tokens=1))


def test_an_exam_that_is_left_halfway_ends_the_process(ggufs, exam, monkeypatch):
    closed = []
    plain = Elsewhere.close
    monkeypatch.setattr(Elsewhere, "close", lambda self: closed.append(plain(self)))
    taking = exam.taking_elsewhere(ggufs[1][0].path)
    assert next(taking)[0] == 1
    taking.close()
    assert closed
