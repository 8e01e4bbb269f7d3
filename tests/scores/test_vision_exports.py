"""An exam of exports of models that read images: stock mlx-vlm comes to what the live model does, or it is said."""

import mlx.core as mx
import pytest

from tests.makers.gguf_facts import weights_of
from tests.makers.tiny_vision import FAMILIES, asked, noise_images, tiny_vision_folder
from tunebook import FastModel, scores

pytestmark = pytest.mark.float32

# Of these mlx-vlm's own call is the live model's; Gemma 3's sees no later token of the same image, and it is said.
ALIKE = tuple(family for family in FAMILIES if family != "gemma3")


def rows(expected=(None, None, None)):
    """One image, two of different sizes over two turns, and none; and what is to be answered."""
    small, wide, tall = noise_images(1)[0], noise_images(2, size=(90, 60))[1], noise_images(3, size=(56, 84))[2]
    two = asked("And this?", [wide], "a brown fox")["messages"] + asked("Then?", [tall], "two dogs")["messages"]
    text = [{"role": "user", "content": "Say it."}, {"role": "assistant", "content": "the lazy dog sleeps"}]
    made = [asked("What is it?", [small], "a dog"), {"messages": two}, {"messages": text}]
    return [row | {"expected": said} for row, said in zip(made, expected, strict=True)]


def as_expected(prompt, answer, row):
    return answer == row["expected"]


def exam(expected=(None, None, None)):
    """Of answers, of how likely the row's own is, and of how much likelier than another."""
    likelier = scores.Metric(
        name="likelier",
        asks=lambda question: [question.reference, "never"],
        judge=lambda _, found: found[0].nats - found[1].nats,
    )
    return scores.Exam(rows(expected), metrics=[as_expected, "perplexity", likelier], max_tokens=12)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("exports")


@pytest.fixture(scope="module")
def tuned(place):
    """family -> (a model whose adapters change what it says, what is expected of it: its own answers)."""
    made = {}

    def model(family):
        if family not in made:
            model, _ = FastModel.from_pretrained(tiny_vision_folder(place / family, family), max_seq_length=256)
            FastModel.get_peft_model(model, r=4, finetune_vision_layers=True)
            mx.random.seed(1)
            for _, layer in model.module.named_modules():
                if "lora_b" in layer:
                    layer.lora_b = mx.random.normal(layer.lora_b.shape) * 0.1
            made[family] = model, exam([row.answer for row in exam().take(model).rows])
        return made[family]

    return model


def answers(marks):
    return [row.answer for row in marks.rows]


def same(marks, live):
    assert answers(marks) == answers(live)
    for metric in ("perplexity", "likelier"):
        for one, other in zip(marks.rows, live.rows, strict=True):
            assert one.marks[metric].value == pytest.approx(other.marks[metric].value, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("family", ALIKE)
def test_a_merged_folder_is_asked_by_stock_mlx_vlm_and_answers_as_the_live_model_token_for_token(tuned, place, family):
    model, asked_of = tuned(family)
    live = asked_of.take(model)
    assert live["as_expected"] == 1
    assert answers(asked_of.take(model, adapters=False)) != answers(live)
    marks = asked_of.take(model.save_pretrained_merged(place / f"{family}-merged", dtype="float32"))
    same(marks, live)
    assert marks.notices[0].startswith("mlx-vlm ")
    assert not any("other tokens" in said for said in marks.notices)
    marks.require(no_worse_than=live)


@pytest.mark.parametrize("family", ["qwen3_vl", "smolvlm"])
def test_adapters_and_their_base_are_asked_by_mlx_vlm_too(tuned, place, family):
    model, asked_of = tuned(family)
    folder = model.save_pretrained(place / f"{family}-lora")
    same(asked_of.take(folder), asked_of.take(model))
    base = asked_of.take(folder, adapters=False)
    same(base, asked_of.take(model, adapters=False))
    assert base.name == "base"


def test_where_mlx_vlm_sees_an_image_otherwise_it_is_said_and_a_text_is_answered_alike(tuned, place):
    model, asked_of = tuned("gemma3")
    live = asked_of.take(model)
    marks = asked_of.take(model.save_pretrained_merged(place / "gemma3-merged", dtype="float32"))
    assert "all of one image see one another" in marks.notices[1]
    assert marks.rows[2].answer == live.rows[2].answer
    assert marks.rows[2].marks["perplexity"].value == pytest.approx(live.rows[2].marks["perplexity"].value, rel=1e-4)
    assert marks.rows[0].marks["perplexity"].value != pytest.approx(live.rows[0].marks["perplexity"].value, rel=1e-4)


def test_an_export_with_one_tensor_swapped_fails_the_gate(tuned, place):
    model, _ = tuned("qwen2_vl")
    asked_rows = [asked("What is it?", [image], "a dog") for image in noise_images(8)]
    live = scores.Exam(asked_rows, metrics=[as_expected], max_tokens=12).take(model)
    known = [row | {"expected": one.answer} for row, one in zip(asked_rows, live.rows, strict=True)]
    gate = scores.Exam(known, metrics=[as_expected], max_tokens=12)
    damaged = model.save_pretrained_merged(place / "damaged", dtype="float32").path
    weights = weights_of(damaged)
    one, other = sorted(name for name in weights if "language" in name and name.endswith("mlp.down_proj.weight"))
    weights[one], weights[other] = weights[other], weights[one]
    (file,) = damaged.glob("*.safetensors")
    mx.save_safetensors(str(file), weights, metadata={"format": "mlx"})
    with pytest.raises(scores.ScoreTooLow, match=r"damaged is to be no worse than tuned\. as_expected: 0 of 8 flipped"):
        gate.take(damaged).require(no_worse_than=gate.take(model))
