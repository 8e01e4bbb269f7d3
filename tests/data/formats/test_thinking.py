"""The switch for thoughts of a chat template: prompts and rows are written as it is set, and refused without one."""

from importlib.resources import files

import pytest

from tests.makers.small_runs import ignore
from tests.makers.tiny import CHAT_TEMPLATE
from tunebook import FastModel, Trainer, TrainingConfig
from tunebook.data.formats import render_prompt, to_examples
from tunebook.data.formats.templates import ChatTemplate
from tunebook.events import SampleEvent

QWEN3 = (files("trl") / "chat_templates" / "qwen3.jinja").read_text()
ROW = {"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]}
THOUGHT = {
    "messages": [ROW["messages"][0], {"role": "assistant", "content": "<think>\nWell, why.\n</think>\n\nBecause."}]
}
EMPTY = "<think>\n\n</think>\n\n"


@pytest.fixture
def thinker(tiny_folder):
    """A tiny model with the chat template of Qwen3."""
    return FastModel.from_pretrained(tiny_folder, max_seq_length=128, chat_template=QWEN3)[0]


def in_transformers(tokenizer, thinking):
    """The prompt as transformers writes it from the template's own source."""
    inner = vars(tokenizer)["_tokenizer"]
    options = {"tokenize": False, "add_generation_prompt": True, "enable_thinking": thinking}
    return inner.apply_chat_template(ROW["messages"][:1], **options)


@pytest.mark.parametrize("thinking", [True, False])
def test_a_prompt_is_what_transformers_writes_with_the_switch(thinker, thinking):
    tokenizer = thinker.loaded.tokenizer
    prompt = render_prompt(ROW["messages"][:1], tokenizer, thinking=thinking).text
    assert prompt == in_transformers(tokenizer, thinking)
    assert prompt.endswith(EMPTY) is not thinking


@pytest.mark.parametrize("thinking", [True, False])
def test_without_thoughts_a_row_trains_the_answer_alone_and_with_them_the_block_too(thinker, thinking):
    (example,) = to_examples([ROW], thinker.loaded.tokenizer, thinking=thinking)
    trained = "".join(part.text for part in example.parts if part.supervised)
    assert trained.rstrip() == ("" if not thinking else EMPTY) + "Because.<|im_end|>"
    assert example.text.startswith(in_transformers(thinker.loaded.tokenizer, thinking))


def test_deepseeks_name_of_the_switch_is_known_too(tiny_folder):
    template = CHAT_TEMPLATE + "{% if add_generation_prompt and not thinking %}{{ '</think>' }}{% endif %}"
    _, tokenizer = FastModel.from_pretrained(tiny_folder, chat_template=template)
    assert ChatTemplate(tokenizer, thinking=False).generation_prompt.endswith("</think>")
    assert not ChatTemplate(tokenizer, thinking=True).generation_prompt.endswith("</think>")


@pytest.mark.parametrize("thinking", [True, False])
def test_a_template_without_the_switch_refuses_it_wherever_it_is_asked(adapted, rows, thinking):
    with pytest.raises(ValueError, match=rf"thinking is {thinking}, .* no switch .*Leave thinking out"):
        adapted.generate("Hi", thinking=thinking, max_tokens=1)
    with pytest.raises(ValueError, match=r"no switch \(enable_thinking\)"):
        Trainer(adapted, train_dataset=rows, args=TrainingConfig(thinking=thinking))
    with pytest.raises(ValueError, match="no switch"):
        ChatTemplate(adapted.loaded.tokenizer, thinking)
    assert adapted.generate("Hi", max_tokens=1) is not None
    assert Trainer(adapted, train_dataset=rows, args=TrainingConfig())


def test_generate_answers_the_prompt_that_the_switch_makes(thinker):
    tokenizer = thinker.loaded.tokenizer
    for thinking in (True, False):
        tokens = tokenizer.encode(in_transformers(tokenizer, thinking), add_special_tokens=False)
        (encoded,) = thinker.family.encode([render_prompt(ROW["messages"][:1], tokenizer, thinking=thinking)])
        assert list(encoded.tokens) == tokens
    with_it, without = (thinker.generate("Why?", thinking=thinking, max_tokens=12) for thinking in (True, False))
    assert with_it != without


def test_a_run_trains_and_samples_with_the_switch_of_its_configuration(thinker):
    FastModel.get_peft_model(thinker, r=4)
    shown = {}
    for thinking in (True, False):
        args = TrainingConfig(
            max_steps=1, warmup_steps=0, hold_out=0, thinking=thinking, sample_steps=1, sample_max_tokens=4
        )
        trainer = Trainer(thinker, train_dataset=[ROW] * 4, args=args)
        trainer.subscribe(ignore)
        samples = trainer.train().samples
        assert all(isinstance(sample, SampleEvent) for sample in samples)
        shown[thinking] = (samples[0].prompt, sum(row.supervised_tokens for row in trainer.train_rows))
        assert TrainingConfig(**args.as_plain()).thinking is thinking
    assert EMPTY.strip() in shown[False][0]
    assert EMPTY.strip() not in shown[True][0]
    assert shown[True][1] > shown[False][1]


@pytest.mark.parametrize(
    "answer", [THOUGHT["messages"][1], {"role": "assistant", "content": "Because.", "reasoning_content": "Well, why."}]
)
def test_a_row_with_thoughts_is_refused_where_they_are_switched_off_and_trained_where_they_are_on(thinker, answer):
    row = {"messages": [ROW["messages"][0], answer]}
    with pytest.raises(ValueError, match=r"turn 1 has thoughts, and thinking=False .* pass thinking=True"):
        list(to_examples([row], thinker.loaded.tokenizer, thinking=False))
    (example,) = to_examples([row], thinker.loaded.tokenizer, thinking=True)
    trained = "".join(part.text for part in example.parts if part.supervised)
    assert trained.rstrip() == "<think>\nWell, why.\n</think>\n\nBecause.<|im_end|>"


def test_a_set_of_rows_with_and_without_thoughts_is_told_of_and_others_are_not(thinker):
    def notices(rows):
        trainer = Trainer(thinker, train_dataset=rows, args=TrainingConfig(hold_out=0, thinking=True))
        return [notice for notice in trainer.data.notices if "thoughts" in notice]

    (said,) = notices([THOUGHT, ROW, ROW])
    assert said.startswith("1 of 3 chats of train_dataset have thoughts before an answer")
    assert not notices([THOUGHT, THOUGHT])
    assert not notices([ROW, ROW])
    assert not notices([{"text": "No chat."}, {"text": "<think>None</think> either."}])
