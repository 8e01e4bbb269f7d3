"""models/generation.py: what a run shows of the model on the way, and that looking changes nothing."""

import json

import mlx.core as mx
import mlx_lm
import numpy as np
import pytest

from tests.makers.tiny import tiny_model_folder
from tunebook import FastModel, Trainer, TrainingConfig, load_run
from tunebook.data.formats import to_examples
from tunebook.events import Command, EndReason, SampleEvent, StepEvent, Working
from tunebook.models.generation import as_prompt, opening
from tunebook.models.tensors import flat


def make(folder, rows, held_out=None, dropout=0.2, **settings):
    model, _ = FastModel.from_pretrained(folder, max_seq_length=128)
    FastModel.get_peft_model(model, r=4, lora_dropout=dropout)
    args = TrainingConfig(**{"max_steps": 4, "learning_rate": 5e-3, "sample_max_tokens": 5, **settings})
    trainer = Trainer(model, train_dataset=rows, eval_dataset=held_out, args=args)
    events = []
    trainer.subscribe(events.append)
    return trainer, events


def weights(trainer):
    return {name: np.array(value) for name, value in flat(trainer.loaded.module.trainable_parameters()).items()}


def test_sampling_leaves_every_weight_of_the_run_as_it_would_have_been(tiny_folder, rows):
    plain, _ = make(tiny_folder, rows)
    plain.train()
    sampled, events = make(tiny_folder, rows, sample_steps=1, sample_prompts=["Say something.", "And again."])
    sampled.train()
    expected, found = weights(plain), weights(sampled)
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
    steps = [event.step for event in events if isinstance(event, SampleEvent)]
    assert steps == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_a_sample_is_what_stock_mlx_lm_writes_with_the_same_weights(tiny_folder, rows, tmp_path):
    trainer, _ = make(tiny_folder, rows, sample_steps=4, sample_prompts=["Say something."], sample_max_tokens=8)
    last = trainer.train().samples[-1]
    FastModel(trainer.loaded).save_pretrained(tmp_path / "lora")
    module, tokenizer = mlx_lm.load(str(tiny_folder), adapter_path=str(tmp_path / "lora"))[:2]
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Say something."}], add_generation_prompt=True, tokenize=True
    )
    assert last.text == mlx_lm.generate(module, tokenizer, prompt, max_tokens=8)
    assert last.prompt == "Say something."


def test_without_prompts_the_openings_of_held_out_rows_are_answered(tiny_folder, rows):
    trainer, events = make(tiny_folder, rows[4:], rows[:4], sample_steps=4)
    trainer.train()
    prompts = [event.prompt for event in events if isinstance(event, SampleEvent) and event.step == 4]
    assert len(prompts) == 2
    assert all(row["messages"][0]["content"] in prompt for row, prompt in zip(rows, prompts, strict=False))
    assert not any(row["messages"][1]["content"] in prompt for row, prompt in zip(rows, prompts, strict=False))


def test_a_sample_can_be_asked_for_also_while_the_run_is_paused(tiny_folder, rows):
    trainer, events = make(tiny_folder, rows)
    asked = [Command.PAUSE, Command.SAMPLE]

    def watch(event):
        if isinstance(event, StepEvent) and event.step == 2 and asked:
            trainer.send(asked.pop(0))
        if isinstance(event, Working) and event.what == "paused" and asked:
            trainer.send(asked.pop(0))
        if isinstance(event, SampleEvent):
            trainer.send(Command.RESUME)

    trainer.subscribe(watch)
    assert trainer.train().reason is EndReason.FINISHED
    assert {event.step for event in events if isinstance(event, SampleEvent)} == {2}


def test_a_stop_ends_a_sample_within_a_token(tiny_folder, rows):
    trainer, events = make(tiny_folder, rows, sample_steps=2, sample_prompts=["Say something."], sample_max_tokens=50)

    def watch(event):
        if isinstance(event, Working) and (event.what, event.step, event.done) == ("sampling", 2, 3):
            trainer.stop()

    trainer.subscribe(watch)
    result = trainer.train()
    assert result.reason is EndReason.STOPPED
    assert not trainer.loaded.module.training
    assert max(event.done for event in events if isinstance(event, Working) and event.step == 2) == 3


def test_an_interrupt_in_a_sample_leaves_the_model_as_the_run_found_it(tiny_folder, rows):
    trainer, _ = make(tiny_folder, rows, sample_steps=2, sample_prompts=["Say something."], sample_max_tokens=50)

    def watch(event):
        if isinstance(event, Working) and (event.what, event.step, event.done) == ("sampling", 2, 3):
            raise KeyboardInterrupt

    trainer.subscribe(watch)
    assert trainer.train().reason is EndReason.INTERRUPTED
    assert not trainer.loaded.module.training


def test_samples_have_a_file_of_their_own_and_are_there_once_after_a_resume(tiny_folder, rows, tmp_path):
    settings = {"sample_steps": 1, "sample_prompts": ["Sag «Grüße»."], "output_dir": str(tmp_path), "save_steps": 2}
    first, _ = make(tiny_folder, rows, **settings)
    first.subscribe(lambda event: first.stop() if isinstance(event, StepEvent) and event.step == 3 else None)
    folder = first.train().run_folder
    second, _ = make(tiny_folder, rows, **settings)
    result = second.train(resume_from_checkpoint=folder / "checkpoints" / "step-00002")
    kept = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert [sample["step"] for sample in kept] == [0, 1, 2, 3, 4]
    assert {sample["prompt"] for sample in kept} == {"Sag «Grüße»."}
    assert [sample.text for sample in load_run(folder).samples] == [sample["text"] for sample in kept]
    assert [sample.step for sample in result.samples] == [0, 1, 2, 3, 4]


def test_the_opening_of_a_conversation_ends_where_the_answer_begins(model):
    row = {"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]}
    prompt = opening(next(to_examples([row], model.loaded.tokenizer)))
    assert prompt.example.text == as_prompt("Why?", model.loaded.tokenizer).example.text
    assert not any(part.supervised for part in prompt.example.parts)


def test_the_opening_of_raw_text_is_its_first_words(model):
    text = "the quick brown fox jumps over the lazy dog and then the dog sleeps in the sun until noon"
    prompt = opening(next(to_examples([{"text": text}], model.loaded.tokenizer)))
    assert text.startswith(f"{prompt.shown} ")
    assert 40 < len(prompt.shown) <= 60
    assert opening(next(to_examples([{"text": "short"}], model.loaded.tokenizer))).shown == "short"


def test_without_a_chat_template_a_string_is_text_to_go_on_from(tmp_path):
    model, tokenizer = FastModel.from_pretrained(tiny_model_folder(tmp_path, chat_template=None))
    assert as_prompt("the quick", tokenizer).example.text == "the quick"
    written = model.generate("the quick", max_tokens=4)
    ids = tokenizer.encode("the quick")
    assert written == mlx_lm.generate(model.module, tokenizer, ids, max_tokens=4)
    assert mx.array(ids).size
    with pytest.raises(ValueError, match="chat template"):
        as_prompt([{"role": "user", "content": "Hello"}], tokenizer)


WEATHER = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
NAMES_TOOLS = (
    "{% if tools %}{% for tool in tools %}[{{ tool | tojson }}]{% endfor %}{% endif %}"
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def test_tools_are_in_the_prompt_as_mlx_lms_own_tokenizer_puts_them(tiny_folder):
    model, tokenizer = FastModel.from_pretrained(tiny_folder, chat_template=NAMES_TOOLS)
    asked = [{"role": "user", "content": "Is it raining?"}]
    ids = tokenizer.apply_chat_template(asked, tools=[WEATHER], add_generation_prompt=True, tokenize=True)
    expected = mlx_lm.generate(model.module, tokenizer, ids, max_tokens=8)
    assert model.generate(asked, tools=[WEATHER], max_tokens=8) == expected
    assert model.generate("Is it raining?", tools=[WEATHER], max_tokens=8) == expected
    (text,) = as_prompt(asked, tokenizer, tools=[WEATHER]).example.parts
    assert text.text == tokenizer.apply_chat_template(
        asked, tools=[WEATHER], add_generation_prompt=True, tokenize=False
    )


def test_tools_that_nobody_would_see_are_refused(tiny_folder):
    model, _ = FastModel.from_pretrained(tiny_folder)
    with pytest.raises(ValueError, match="leaves them out"):
        model.generate("Is it raining?", tools=[WEATHER])
    with pytest.raises(ValueError, match="a list, each a dict"):
        model.generate("Is it raining?", tools=["weather"])
