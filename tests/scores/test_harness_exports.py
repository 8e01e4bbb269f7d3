"""Tasks of lm-eval put to exports: the programs they are for reply as the live model does."""

import pytest

from tests.makers.lm_eval_tasks import TASKS, check_replies, offline, write_tasks
from tests.makers.tiny import tiny_model_folder
from tunebook import FastModel, Trainer, TrainingConfig, scores
from tunebook.export.readback.asking import Elsewhere

LIMIT = 3  # rows of each task


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("exports")


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    with offline(tmp_path_factory.mktemp("datasets")):
        yield write_tasks(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="module")
def tuned(place):
    """A model whose adapters act."""
    folder = tiny_model_folder(place / "llama")
    model, tokenizer = FastModel.from_pretrained(folder, max_seq_length=64)
    FastModel.get_peft_model(model, r=8, lora_alpha=32)
    settings = TrainingConfig(max_steps=4, learning_rate=2e-2, warmup_steps=0, hold_out=0, save_steps=None)
    rows = [{"text": "the quick brown fox jumps over the lazy dog"}] * 4
    Trainer(model, tokenizer, train_dataset=rows, args=settings).train()
    return model


@pytest.fixture(scope="module")
def live(tuned, tasks):
    return scores.harness(tuned, [*TASKS], include_path=tasks, limit=LIMIT)


@pytest.fixture(scope="module")
def lora(tuned, place):
    return tuned.save_pretrained(place / "lora")


@pytest.fixture(scope="module")
def merged(tuned, place):
    return tuned.save_pretrained_merged(place / "merged", dtype="float32")


@pytest.fixture(scope="module")
def gguf(tuned, place):
    pytest.importorskip("xllamacpp")
    return tuned.save_pretrained_gguf(place / "gguf", quantization_method="f32")[0]


@pytest.mark.parametrize("kind", ["lora", "merged", "gguf"])
def test_an_export_replies_as_the_live_model_does_in_the_program_it_is_for(kind, request, live, tasks):
    export = request.getfixturevalue(kind)
    there = scores.harness(export, [*TASKS], include_path=tasks, limit=LIMIT)
    program = "llama.cpp" if kind == "gguf" else "mlx-lm"
    for task in TASKS:
        check_replies(task, there.results, live.results, off=2e-3 if kind == "gguf" else 1e-3)
        marks = there.marks[task]
        assert marks.name == export.path.name
        assert program in marks.notices[0]
        scores.compare(live.marks[task], marks)


def test_a_text_longer_than_a_gguf_takes_is_asked_in_pieces(tasks, place):
    pytest.importorskip("xllamacpp")
    model, _ = FastModel.from_pretrained(tiny_model_folder(place / "short", max_position_embeddings=96))
    export = model.save_pretrained_gguf(place / "short-gguf", quantization_method="f32")[0]
    marks = scores.harness(export, ["tiny_text"], include_path=tasks, limit=LIMIT).marks["tiny_text"]
    live = scores.harness(model, ["tiny_text"], include_path=tasks, limit=LIMIT).marks["tiny_text"]
    # It has a token less of context, so that the pieces are not quite the same.
    assert marks["byte_perplexity"] == pytest.approx(live["byte_perplexity"], rel=0.05)


def test_the_base_of_adapters_is_asked_without_them(lora, tuned, tasks):
    base = scores.harness(tuned, ["tiny_cloze"], include_path=tasks, limit=LIMIT, adapters=False)
    there = scores.harness(str(lora.path), ["tiny_cloze"], include_path=tasks, limit=LIMIT, adapters=False)
    assert there.marks["tiny_cloze"].name == "base"
    check_replies("tiny_cloze", there.results, base.results, off=1e-3)


def test_what_cannot_be_asked_is_refused_by_name_and_no_process_is_left(lora, gguf, tasks, place, monkeypatch):
    closed = []
    plain = Elsewhere.close
    monkeypatch.setattr(Elsewhere, "close", lambda self: closed.append(plain(self)))
    with pytest.raises(ValueError, match="holds no adapters to leave out"):
        scores.harness(gguf, ["tiny_choice"], include_path=tasks, adapters=False)
    (place / "cut.gguf").write_bytes(gguf.path.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"cut\.gguf"):
        scores.harness(place / "cut.gguf", ["tiny_choice"], include_path=tasks)
    scores.harness(lora, ["tiny_choice"], include_path=tasks, limit=1)
    assert closed
