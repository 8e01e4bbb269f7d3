"""`python -m tunebook score`: its exit codes, what it says, and the reports that other programs read."""

import json
from xml.etree import ElementTree

import pytest

from tests.makers.tiny import tiny_model_folder
from tunebook import FastModel, Trainer, TrainingConfig, scores
from tunebook.__main__ import main

ROWS = [
    {"prompt": f"Say {word}.", "completion": f"{word} it is"} for word in ("tune", "fox", "dog", "sun", "noon", "June")
]


@pytest.fixture(scope="module")
def adapters(tmp_path_factory):
    """A folder of adapters that know ROWS by heart."""
    place = tmp_path_factory.mktemp("gate")
    model, tokenizer = FastModel.from_pretrained(tiny_model_folder(place / "llama"), max_seq_length=64)
    FastModel.get_peft_model(model, r=16, lora_alpha=32)
    settings = TrainingConfig(
        max_steps=70, learning_rate=2e-2, warmup_steps=2, per_device_train_batch_size=6, hold_out=0
    )
    Trainer(model, tokenizer, train_dataset=ROWS, args=settings).train()
    model.save_pretrained(place / "lora")
    return place / "lora"


@pytest.fixture
def exam(tmp_path):
    file = tmp_path / "exam.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return str(file)


def test_a_model_that_is_good_enough_passes_and_the_report_has_every_row(adapters, exam, tmp_path, capsys):
    report = tmp_path / "reports" / "scores.json"
    asked = ["score", str(adapters), "--exam", exam, "--max-tokens", "12", "--report", str(report)]
    assert main([*asked, "--fail-below", "0.8", "--better-than-base", "--by", "0.5", "--metric", "exact_match"]) == 0
    shown = capsys.readouterr()
    assert "lora: metric" in shown.out
    assert shown.err == ""
    plain = json.loads(report.read_text())
    assert plain["failures"] == []
    assert [one["scores"]["exact_match"] for one in plain["marks"]] == [0, 1]
    assert [row["reference"] for row in plain["marks"][1]["rows"]] == [row["completion"] for row in ROWS]


def test_a_base_model_fails_with_the_sentence_on_stderr_and_in_junits_xml(adapters, exam, tmp_path, capsys):
    report = tmp_path / "scores.xml"
    base = str(adapters.parent / "llama")
    asked = ["score", base, "--exam", exam, "--max-tokens", "12", "--fail-below", "0.8", "--report", str(report)]
    assert main(asked) == 1
    said = capsys.readouterr().err.strip()
    assert said.startswith("exact_match of llama is 0 over 6 rows")
    assert said.endswith("at least 0.8 is required.")
    suite = ElementTree.fromstring(report.read_text())
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    assert suite.find("testcase[@name='gate']/failure").get("message") == said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--metric", "accuracy"], "There is no metric 'accuracy'"),
        (["--report", "scores.txt"], "A report is a .json or a .xml file, and 'scores.txt' is neither."),
        (["--max-tokens", "0"], "max_tokens is 0"),
        (["--batch-size", "0"], "batch_size is 0"),
        (["--fail-below", "nan"], "at_least is nan"),
        (["--by", "0.05"], "by is 0.05, and there is no model"),
    ],
)
def test_what_cannot_be_asked_is_said_and_is_no_verdict(arguments, said, adapters, exam, capsys):
    assert main(["score", str(adapters), "--exam", exam, *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_fault_that_nobody_foresaw_is_no_verdict_either(adapters, exam, capsys, monkeypatch):
    def failing(*_, **__):
        raise RuntimeError("out of order")

    monkeypatch.setattr("tunebook.scores.gate.gate", failing)
    assert main(["score", str(adapters), "--exam", exam]) == 2
    assert "RuntimeError: out of order" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [0, 2.5])
def test_an_answer_has_a_whole_number_of_tokens(wrong, exam):
    with pytest.raises(ValueError, match=f"max_tokens is {wrong}; it must be a whole number, at least 1"):
        scores.Exam(exam, ["exact_match"], max_tokens=wrong)


def test_a_folder_or_an_exam_that_is_not_there_is_no_verdict(adapters, exam, tmp_path, capsys):
    assert main(["score", str(adapters), "--exam", str(tmp_path / "none.jsonl")]) == 2
    assert main(["score", str(tmp_path / "none"), "--exam", exam]) == 2
