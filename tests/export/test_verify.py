"""What the verification of an export sees: another loss, other token ids, another program asked for by name."""

import json
import math

import mlx.core as mx
import pytest

from tunebook import FastModel, verify_export
from tunebook.export.report import Export, ExportTable

pytestmark = pytest.mark.float32


@pytest.fixture(scope="module")
def model(tiny_folder):
    """One model for all tests here, none of which may change it."""
    model, _ = FastModel.from_pretrained(tiny_folder, max_seq_length=128)
    FastModel.get_peft_model(model, r=4)
    mx.random.seed(1)
    for _, layer in model.module.named_modules():
        if "lora_b" in layer:
            layer.lora_b = mx.random.normal(layer.lora_b.shape) * 0.1
    return model


@pytest.fixture(scope="module")
def merged(model, tmp_path_factory):
    return model.save_pretrained_merged(tmp_path_factory.mktemp("out") / "merged", dtype="float32").path


@pytest.fixture(scope="module")
def check(merged, model, rows):
    """By stock mlx-lm."""
    return verify_export(merged, model, rows[:3])


def test_the_losses_the_ids_the_size_and_the_speed_are_in_the_table(check, merged):
    assert check.passed
    assert check.reader.startswith("mlx-lm ")
    assert abs(check.difference) < 1e-4
    assert (check.texts, check.texts_alike) == (4, 4)  # three rows, and a prompt the chat template there rendered
    files = [path for path in merged.iterdir() if path.name != "tunebook.json"]
    assert check.bytes == sum(path.stat().st_size for path in files)
    assert check.tokens_sec > 0
    html = check._repr_html_()
    for cell in (merged.name, "mlx-lm", f"{check.loss_there:.4f}", "4 of 4", "PASS", "MB"):
        assert cell in html
    text = str(ExportTable([Export(kind="merged_16bit", path=merged, verification=check)]))
    assert text.splitlines()[0].split()[-1] == "check"
    assert text.splitlines()[1].endswith("PASS")


def test_rows_of_no_format_are_refused_before_anything_is_written_with_rows_to_pass(model, merged, tmp_path):
    rows = [{"ask": "What color is the sky?", "answer": "It is blue."}]
    for refuses in (
        lambda: model.save_pretrained(tmp_path / "lora", verify_with=rows),
        lambda: verify_export(merged, model, rows),
    ):
        with pytest.raises(ValueError, match="Pass what a formatting_func would make of them") as refused:
            refuses()
        assert "Cannot tell the format" in str(refused.value)
    assert not (tmp_path / "lora").exists()
    rows = [{"question": "What color is the sky?", "answer": "It is blue."}]
    with pytest.raises(ValueError, match="Pass what") as refused:
        model.save_pretrained(tmp_path / "lora", verify_with=rows)
    advice = str(refused.value).partition("make of them: ")[2].rstrip(".")
    made = eval(advice, {"rows": rows})
    assert model.save_pretrained(tmp_path / "lora", verify_with=made).verification.passed


def test_of_pairs_the_chosen_answers_are_compared(merged, model):
    asked, said = [{"role": "user", "content": "What color is the sky?"}], {"role": "assistant"}
    chosen, rejected = ([{**said, "content": text}] for text in ("It is blue.", "Green, as a rule."))
    pair = {"prompt": asked, "chosen": chosen, "rejected": rejected}
    theirs = verify_export(merged, model, [{"messages": asked + chosen}])
    implied = {"chosen": asked + chosen, "rejected": asked + rejected}
    found = [verify_export(merged, model, [row]) for row in (pair, implied)]
    assert [(one.loss_there, one.tokens) for one in found] == [(pytest.approx(theirs.loss_there), theirs.tokens)] * 2


def test_transformers_is_asked_when_it_is_named(merged, model, rows, check):
    pytest.importorskip("peft")
    theirs = verify_export(merged, model, rows[:3], reader="transformers")
    assert theirs.reader.startswith("transformers ")
    assert theirs.passed
    assert theirs.loss_there == pytest.approx(check.loss_there, abs=1e-4)


def test_a_tokenizer_that_makes_other_ids_of_the_rows_fails_the_export(merged, model, rows, tmp_path):
    spoiled = tmp_path / "spoiled"
    spoiled.mkdir()
    for path in merged.iterdir():
        (spoiled / path.name).write_bytes(path.read_bytes())
    document = json.loads((spoiled / "tokenizer.json").read_text())
    document["model"]["merges"] = document["model"]["merges"][:20]
    (spoiled / "tokenizer.json").write_text(json.dumps(document))
    (spoiled / "chat_template.jinja").write_text("{{ messages[0].content }}")
    check = verify_export(spoiled, model, rows[:3])
    assert abs(check.difference) < 1e-4  # the loss is of the live model's ids
    assert check.texts_alike == 0
    assert not check.passed
    assert "only 0 of 4 texts the same ids" in str(check)


def test_a_reader_that_does_not_open_such_an_export_is_refused(merged, model, rows):
    with pytest.raises(ValueError, match=r"merged is opened by mlx-lm or transformers, not by llama\.cpp"):
        verify_export(merged, model, rows, reader="llama.cpp")
    with pytest.raises(ValueError, match="There is no reader 'vllm'"):
        verify_export(merged, model, rows, reader="vllm")
    with pytest.raises(FileNotFoundError, match="is no export"):
        verify_export(merged.parent, model, rows)


def test_a_reader_that_fails_tells_in_its_own_words(merged, model, rows, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_bytes((merged / "config.json").read_bytes())
    with pytest.raises(RuntimeError, match=r"could not open .*broken(.|\n)*No safetensors found"):
        verify_export(broken, model, rows[:1])


def test_a_loss_that_is_not_a_number_does_not_pass(check):
    assert not type(check)(**{**vars(check), "loss_there": math.nan}).passed
