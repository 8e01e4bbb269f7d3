"""The panels that show a model: the chat beside its base, the fit check, the export panel."""

import asyncio
import contextlib
import json
import re
from dataclasses import replace

import mlx.core as mx
import pytest

from tunebook import FastModel, Trainer, TrainingConfig
from tunebook.memory import estimate
from tunebook.memory.footprint import readable
from tunebook.models.base_model import without_adapters
from tunebook.models.tensors import flat
from tunebook.objectives import DPO, KTO
from tunebook_widgets import Chat, ExportPanel, FitCheck

GREEDY = {"temperature": 0.0, "top_p": 1.0, "max_tokens": 12}


def said(chat: Chat, text: str) -> dict[str, str]:
    return asyncio.run(chat.ask(text))


def pressed(chat: Chat, message: dict) -> None:
    """Have the browser send `message`, and wait until what it began is over."""

    async def press():
        chat._receive(chat, message, [])
        if chat._answering is not None:
            with contextlib.suppress(ValueError):
                await chat._answering
            await asyncio.sleep(0)

    asyncio.run(press())


def message(text: str, **settings) -> dict:
    return {"say": text, "settings": {"system": "", **GREEDY, **settings}}


# ---- chat


@pytest.mark.parametrize("use_dora", [False, True])
def test_without_adapters_a_tuned_model_is_its_base_to_the_last_bit_and_then_itself_again(model, use_dora):
    tokens = mx.array([[5, 9, 300, 17]])
    base = model.module(tokens)
    FastModel.get_peft_model(model, r=4, use_dora=use_dora)
    for name, value in flat(model.module.trainable_parameters()).items():
        model.module.load_weights([(name, value + 0.3)], strict=False)
    tuned, names = model.module(tokens), list(flat(model.module.trainable_parameters()))
    with without_adapters(model.module):
        assert mx.array_equal(model.module(tokens), base)
    assert mx.array_equal(model.module(tokens), tuned)
    assert not mx.allclose(tuned, base)
    assert list(flat(model.module.trainable_parameters())) == names


def test_the_switch_for_thoughts_decides_what_the_model_goes_on_from_and_is_refused_without_one(tuned):
    with pytest.raises(ValueError, match="no switch"):
        Chat(tuned, thinking=False)
    tuned.loaded.tokenizer.chat_template += (
        "{% if add_generation_prompt and enable_thinking is false %}{{ 'No thoughts.' }}{% endif %}"
    )
    answers = {thinking: said(Chat(tuned, thinking=thinking, **GREEDY), "Hi")["tuned"] for thinking in (True, False)}
    assert answers == {thinking: tuned.generate("Hi", thinking=thinking, max_tokens=12) for thinking in (True, False)}


def test_each_side_answers_as_its_model_does_and_remembers_its_own_answers(tuned, tiny_folder):
    base, _ = FastModel.from_pretrained(tiny_folder, max_seq_length=128)
    chat = Chat(tuned, system="Be brief.", **GREEDY)
    questions = ["the quick fox", "and the dog?"]
    for question in questions:
        said(chat, question)
    assert chat.turns[0]["tuned"] != chat.turns[0]["base"]
    for side, one in (("tuned", tuned), ("base", base)):
        talk = [{"role": "system", "content": "Be brief."}]
        for turn, question in zip(chat.turns, questions, strict=True):
            talk.append({"role": "user", "content": question})
            answer = one.generate(talk, **GREEDY)
            assert turn[side] == answer
            talk.append({"role": "assistant", "content": answer})


def test_between_two_slices_the_model_is_as_it_was_found(tuned, monkeypatch):
    monkeypatch.setattr("tunebook_widgets.panels.chat.SLICE", 0)
    tuned.module.train()
    names = list(flat(tuned.module.trainable_parameters()))
    chat, found = Chat(tuned, **GREEDY), []
    chat.observe(
        lambda _: found.append((tuned.module.training, list(flat(tuned.module.trainable_parameters())))), "now"
    )
    said(chat, "the dog")
    assert len(found) > 4
    assert all(each == (True, names) for each in found)


def test_stop_is_heard_between_two_slices_and_what_was_written_stays(tuned, monkeypatch):
    monkeypatch.setattr("tunebook_widgets.panels.chat.SLICE", 0)
    chat = Chat(tuned, **{**GREEDY, "max_tokens": 10_000})

    async def talk():
        answering = asyncio.ensure_future(chat.ask("the quick fox"))
        while not chat.now.get("tuned"):
            await asyncio.sleep(0)
        chat._receive(chat, {"do": "stop"}, [])
        return await asyncio.wait_for(answering, 10)

    turn = asyncio.run(talk())
    assert turn["note"] == "stopped"
    assert turn["tuned"]
    assert turn["base"] == ""
    assert chat.now == {}
    assert chat.turns == [turn]


def test_what_the_model_raises_is_shown_and_the_chat_goes_on(tuned, monkeypatch):
    chat = Chat(tuned, **GREEDY)
    with monkeypatch.context() as patch:
        patch.setattr(tuned.loaded.tokenizer._tokenizer, "chat_template", "{{ raise_exception('No dogs, please.') }}")
        pressed(chat, message("the dog"))
    assert "No dogs, please." in chat.complaint
    assert chat.turns[-1]["note"] == "failed"
    assert chat.now == {}
    pressed(chat, message("the dog"))
    assert chat.complaint == ""
    assert chat.turns[-1]["tuned"]


def test_settings_out_of_range_are_said_and_nothing_is_asked(tuned):
    chat = Chat(tuned, **GREEDY)
    pressed(chat, message("the dog", temperature=-1, max_tokens=0))
    assert "temperature is -1; it must be from 0 to 5" in chat.complaint
    assert "max_tokens is 0" in chat.complaint
    assert chat.turns == []


def test_where_weights_were_trained_whole_the_base_is_said_to_be_gone(tiny_folder):
    whole, _ = FastModel.from_pretrained(tiny_folder, full_finetuning=True)
    chat = Chat(whole, **GREEDY)
    assert "trained whole" in chat.alone
    assert said(chat, "the dog")["base"] == ""
    with pytest.raises(ValueError, match="the base model is not in memory"), without_adapters(whole.module):
        pass


def test_what_crosses_to_the_browser_is_json(tuned):
    chat = Chat(tuned, **GREEDY)
    said(chat, "the dog")
    assert json.loads(json.dumps(chat.turns)) == chat.turns


# ---- fit check


def test_the_bar_shows_the_parts_of_the_estimate_and_they_make_up_its_total(tuned):
    fit = FitCheck(tuned, TrainingConfig(per_device_train_batch_size=4))
    now = fit.estimate
    assert sum(now.at_peak.values()) == now.total
    small = replace(now, device=2 * now.total)
    fit.estimate = small
    widths = [float(width) for width in re.findall(r'<rect class="\S+" x="\S+" y="0" width="(\S+)"', fit._repr_html_())]
    assert widths == pytest.approx([100 * size / small.device for size in now.at_peak.values()], rel=1e-4)
    assert sum(widths) == pytest.approx(50, rel=1e-4)
    for name, size in now.at_peak.items():
        assert f"</i>{name}</th><td>{readable(size)}</td>" in fit._repr_html_()


def test_every_part_of_the_bar_has_a_colour_however_many_there_are(tuned):
    fit = FitCheck(tuned)
    fit.estimate = replace(fit.estimate, reference=1, images=1, layer=10**15, device=10**16)
    assert len(fit.estimate.at_peak) == 8
    shown = fit._repr_html_()
    drawn = re.findall(r'<rect class="(\S+)"', shown)
    colours = [re.search(rf"\.{part} {{ background: var\((\S+)\);", shown)[1] for part in drawn]
    assert len(set(colours)) == len(drawn) == 8
    assert all(f"{colour}: #" in shown for colour in colours)


def test_the_peak_is_the_largest_of_the_moments_of_a_step(tuned):
    now = FitCheck(tuned).estimate
    held = now.weights + now.trained + now.earlier + now.optimizer
    moments = {
        "the loss": now.activations + now.loss,
        "the backward pass": max(now.activations, now.gradients) + now.layer,
        "the end of the backward pass": now.gradients + now.embedding,
        "the update": now.mean + now.update,
    }
    assert now.total == held + max(moments.values())
    assert moments[now.peak] == max(moments.values())


def test_a_run_that_does_not_fit_says_so_with_its_remedies(tuned):
    fit = FitCheck(tuned, TrainingConfig(per_device_train_batch_size=8))
    fit.estimate = replace(fit.estimate, device=fit.estimate.total // 2)
    shown = fit._repr_html_()
    assert "This run may not fit" in shown
    assert "This run may not fit" in repr(fit)
    assert fit.estimate.remedies
    assert all(remedy.advice in shown for remedy in fit.estimate.remedies)


def test_a_trainer_brings_its_rows_and_settings(tuned, rows):
    config = TrainingConfig(per_device_train_batch_size=3, output_dir=None)
    trainer = Trainer(tuned, train_dataset=rows, args=config)
    assert FitCheck(trainer).estimate.batch == trainer.memory().batch
    with pytest.raises(ValueError, match="brings its own settings"):
        FitCheck(trainer, config)


def test_what_an_objective_needs_is_shown_each_pair_being_two_rows(tuned):
    config = TrainingConfig(per_device_train_batch_size=4)
    texts, pairs = FitCheck(tuned, config), FitCheck(tuned, config, objective=DPO())
    assert pairs.estimate.batch == estimate(tuned, config, objective=DPO()).batch
    assert "The largest batch is 4 rows of" in texts._repr_html_()
    assert "The largest batch is 4 pairs, so 8 rows of" in pairs._repr_html_()
    assert pairs.estimate.total > texts.estimate.total
    judged = FitCheck(tuned, config, objective=KTO())
    assert "The largest batch is 4 rows of" in judged._repr_html_()


# ---- export panel


def test_what_is_ticked_is_written_and_read_back_and_nothing_else(tuned, rows, tmp_path):
    panel = ExportPanel(tuned, tmp_path / "out", rows[:1])
    exports = asyncio.run(panel.export(["gguf_f16", "gguf_q8_0"]))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["gguf"]
    assert sorted(path.suffixes[-2] for path in (tmp_path / "out" / "gguf").glob("*.gguf")) == [".f16", ".q8_0"]
    assert [export.verification.passed for export in exports if export.verification] == [True, True]
    for form in ("gguf_f16", "gguf_q8_0"):
        assert panel.progress[form]["state"] == "done"
        assert panel.progress[form]["cells"][-1] == "PASS"
        assert any(command.startswith("llama-cli -m") for command in panel.progress[form]["commands"])
    card = (tmp_path / "out" / "gguf" / "README.md").read_text()
    assert card.count(".f16.gguf")
    assert card.count(".q8_0.gguf")
    assert json.loads(json.dumps(panel.progress)) == panel.progress


def test_a_form_that_fails_says_why_and_the_next_is_made(tuned, tmp_path):
    (tmp_path / "lora_gguf").write_text("in the way")
    panel, states = ExportPanel(tuned, tmp_path), []
    panel.observe(lambda change: states.append({form: each["state"] for form, each in change.new.items()}), "progress")
    exports = asyncio.run(panel.export(["lora_gguf", "peft"]))
    assert panel.progress["lora_gguf"]["state"] == "failed"
    assert "is no folder" in panel.progress["lora_gguf"]["said"]
    assert [export.path.name for export in exports] == ["peft"]
    assert panel.progress["peft"]["cells"][2] == "not read back"
    assert {"lora_gguf": "failed", "peft": "at work"} in states
    assert not panel.busy


def test_a_form_that_cannot_be_had_is_refused_before_anything_is_written(model, tmp_path):
    panel = ExportPanel(model, tmp_path / "out")
    with pytest.raises(ValueError, match=r"lora: the model has no adapters; zip: there is no such form"):
        asyncio.run(panel.export(["lora", "zip", "merged_16bit"]))
    assert not (tmp_path / "out").exists()


def test_adapters_that_mlx_lm_opens_come_with_its_command_and_others_without(tuned, tmp_path):
    panel = ExportPanel(tuned, tmp_path / "a folder")
    asyncio.run(panel.export(["lora"]))
    place = tmp_path / "a folder" / "lora"
    command = f"mlx_lm.chat --model {tuned.loaded.name} --adapter-path '{place}'"
    assert panel.progress["lora"]["commands"] == [command]
    tuned.module.model.norm.unfreeze()
    asyncio.run(panel.export(["lora"]))
    assert panel.progress["lora"]["commands"] == []
    assert "tunebook alone opens it" in panel.progress["lora"]["said"]
