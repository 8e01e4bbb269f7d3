"""Loading, adapters, templates and writing by Unsloth's names."""

import numpy as np
import pytest

from tunebook import FastModel as KitModel
from tunebook import Trainer, TrainingConfig
from tunebook.compat.unsloth import (
    FastLanguageModel,
    FastVisionModel,
    SFTConfig,
    SFTTrainer,
    TextStreamer,
    UnslothVisionDataCollator,
    get_chat_template,
    standardize_sharegpt,
)
from tunebook.compat.unsloth.chat_templates import GEMMA, KINDS, LLAMA_3
from tunebook.compat.unsloth.loading import _in_place_of_bitsandbytes


@pytest.fixture
def pair(tiny_folder):
    return FastLanguageModel.from_pretrained(model_name=str(tiny_folder), max_seq_length=128, load_in_4bit=False)


def test_weights_for_bitsandbytes_are_answered_with_the_model_they_were_made_of(capsys):
    for name in ("unsloth/Llama-3.2-3B-Instruct-bnb-4bit", "unsloth/Llama-3.2-3B-Instruct-unsloth-bnb-4bit"):
        assert _in_place_of_bitsandbytes(name, None) == ("unsloth/Llama-3.2-3B-Instruct", True)
        said = capsys.readouterr().out
        assert "from_pretrained('unsloth/Llama-3.2-3B-Instruct', load_in_4bit=True)" in said
    assert _in_place_of_bitsandbytes("unsloth/Qwen3-4B", None) == ("unsloth/Qwen3-4B", False)
    with pytest.raises(ValueError, match="without a revision"):
        _in_place_of_bitsandbytes("unsloth/Qwen3-4B-bnb-4bit", "main")


def test_a_model_is_held_in_four_bits_unless_it_is_told_otherwise(tiny_folder):
    model, _ = FastLanguageModel.from_pretrained(str(tiny_folder), max_seq_length=128)
    assert model.loaded.config["quantization"]["bits"] == 4
    model, _ = FastLanguageModel.from_pretrained(str(tiny_folder), full_finetuning=True, device_map="auto")
    assert "quantization" not in model.loaded.config


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"bias": "all"}, "biases are not trained"),
        ({"loftq_config": {"loftq_bits": 4}}, "A begins at random"),
        ({"init_lora_weights": "pissa"}, "A begins at random"),
        ({"layers_to_transform": [1]}, "finetune_last_n_layers"),
        ({"rr": 4}, "rr"),
    ],
)
def test_settings_of_adapters_that_would_be_ignored_are_refused(pair, given, said):
    with pytest.raises(TypeError, match=said):
        FastLanguageModel.get_peft_model(pair[0], **given)


def test_a_head_that_is_the_embedding_is_trained_with_it(pair, capsys):
    model = FastLanguageModel.get_peft_model(pair[0], target_modules=["q_proj", "embed_tokens", "lm_head"], r=4)
    assert "lm_head with it" in capsys.readouterr().out
    names = {name.rpartition(".")[2] for name, part in model.module.named_modules() if part.trainable_parameters()}
    assert {"embed_tokens", "q_proj"} <= names
    assert "k_proj" not in names


def test_a_model_that_reads_text_alone_is_none_for_images(tiny_folder):
    with pytest.raises(ValueError, match="FastLanguageModel"):
        FastVisionModel.from_pretrained(str(tiny_folder), load_in_4bit=False)


def test_what_is_written_is_what_the_kit_writes_and_a_streamer_hears_each_token(pair, capsys):
    model, tokenizer = pair
    messages = [{"role": "user", "content": "Say 2 words."}]
    inputs = tokenizer.apply_chat_template(messages, tokenize=True, add_generation_prompt=True, return_tensors="pt").to(
        "cuda"
    )
    heard = []

    class Streamer:
        def put(self, value):
            heard.append(np.asarray(value).reshape(-1).tolist())

        def end(self):
            heard.append("end")

    outputs = model.generate(input_ids=inputs, streamer=Streamer(), max_new_tokens=6, use_cache=True, do_sample=False)
    written = outputs[0, inputs.shape[1] :].tolist()
    assert heard == [inputs[0].tolist(), *([token] for token in written), "end"]
    text = tokenizer.decode(written, skip_special_tokens=True)
    assert text.strip() == KitModel.generate(model, messages, max_tokens=6).strip()
    assert model.generate(messages, max_new_tokens=6) == KitModel.generate(model, messages, max_tokens=6)
    capsys.readouterr()
    model.generate(input_ids=inputs, streamer=TextStreamer(tokenizer, skip_prompt=True), max_new_tokens=6)
    assert text in capsys.readouterr().out


def test_transformers_own_streamer_is_taken(pair, capsys):
    from transformers import TextStreamer as Theirs

    model, tokenizer = pair
    outputs = model.generate(
        **tokenizer("the quick", return_tensors="pt"), streamer=Theirs(tokenizer), max_new_tokens=4
    )
    assert tokenizer.decode(outputs[0]) in capsys.readouterr().out


def test_rows_of_unequal_length_are_written_as_each_is_alone(pair):
    model, tokenizer = pair
    texts = ["the quick brown fox jumps", "A tune"]
    with pytest.raises(ValueError, match="padding=True"):
        tokenizer(texts, return_tensors="pt")
    inputs = tokenizer(texts, return_tensors="pt", padding=True).to("cuda")
    together = model.generate(**inputs, max_new_tokens=4)
    for row, text in zip(together, texts, strict=True):
        alone = model.generate(**tokenizer([text], return_tensors="pt"), max_new_tokens=4)
        new = alone.shape[1] - tokenizer(text, return_tensors="pt").input_ids.shape[1]
        width = inputs.input_ids.shape[1]
        assert row[width : width + new].tolist() == alone[0, alone.shape[1] - new :].tolist()


def test_drawing_is_by_temperature_and_by_what_is_left_out(pair):
    import mlx.core as mx

    model, tokenizer = pair
    inputs = tokenizer(["the quick"], return_tensors="pt")
    greedy = model.generate(**inputs, max_new_tokens=6, do_sample=False)
    mx.random.seed(3)
    drawn = model.generate(**inputs, max_new_tokens=6, temperature=1.5)
    assert drawn.tolist() != greedy.tolist()
    for all_but_the_likeliest in ({"min_p": 1.0}, {"top_k": 1}):
        written = model.generate(**inputs, max_new_tokens=6, temperature=1.5, **all_but_the_likeliest)
        assert written.tolist() == greedy.tolist()


@pytest.mark.parametrize("name", ["repetition_penalty", "num_beams", "nonsense"])
def test_ways_of_writing_that_are_not_here_are_refused(pair, name):
    model, tokenizer = pair
    with pytest.raises(TypeError, match=name):
        model.generate(**tokenizer("A tune", return_tensors="pt"), **{name: 3})


def test_a_template_of_the_models_own_kind_is_kept_and_one_of_another_is_refused(pair, capsys):
    _, tokenizer = pair
    own = tokenizer.chat_template
    assert get_chat_template(tokenizer, "qwen-2.5") is tokenizer
    assert tokenizer.chat_template == own
    assert "is kept" in capsys.readouterr().out
    for name in ("llama-3.1", "gemma-3", "mistral", "nonsense"):
        with pytest.raises(ValueError, match=name):
            get_chat_template(tokenizer, name)
    get_chat_template(tokenizer, ("{{ messages[0]['content'] }}", "<|endoftext|>"))
    assert tokenizer.apply_chat_template([{"role": "user", "content": "A tune"}], tokenize=False) == "A tune"
    assert tokenizer.own.eos_token == "<|endoftext|>"


@pytest.mark.parametrize("kind", [KINDS["chatml"], LLAMA_3, GEMMA])
def test_templates_that_are_written_here_begin_turns_as_their_kind_does(kind):
    import jinja2

    turns = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
    assert kind.source is not None
    text = jinja2.Template(kind.source).render(messages=turns, bos_token="<s>", add_generation_prompt=True)
    assert f"{kind.instruction_part}Q{kind.end}" in text
    assert f"{kind.response_part}A{kind.end}" in text
    assert text.endswith(kind.response_part)


def test_a_function_that_uses_the_tokenizer_is_known_again_by_datasets_without_the_model(pair):
    import dill

    _, tokenizer = pair
    kept = dill.dumps(tokenizer)
    assert dill.loads(kept).apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False) == (
        "<|im_start|>user\nHi<|im_end|>\n"
    )
    assert b"safetensors" not in kept
    assert len(kept) < 500_000


def test_turns_of_other_names_are_read_by_their_mapping(pair):
    _, tokenizer = pair
    names = {"role": "speaker", "content": "said", "user": "me", "assistant": "it"}
    get_chat_template(tokenizer, "chatml", mapping=names)
    turns = [{"speaker": "me", "said": "Hi"}, {"speaker": "it", "said": "Ho"}]
    text = tokenizer.apply_chat_template(turns, tokenize=False)
    assert text == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHo<|im_end|>\n"


def test_trainers_refuse_what_would_make_another_run(pair, rows):
    model, tokenizer = pair
    FastLanguageModel.get_peft_model(model, r=4)
    given = {"model": model, "tokenizer": tokenizer, "train_dataset": rows}
    refused = {
        "TrainingConfig": {"args": TrainingConfig(max_steps=2)},
        "Mine": {"data_collator": type("Mine", (), {})()},
        "callback": {"callbacks": [print]},
        "get_peft_model": {"peft_config": object()},
    }
    for said, more in refused.items():
        with pytest.raises(TypeError, match=said):
            SFTTrainer(**given, **more)
    with pytest.raises(ValueError, match=r"dataset_text_field is 'story', .*; theirs are text"):
        SFTTrainer(model, SFTConfig(max_steps=2, dataset_text_field="story"), train_dataset=[{"text": "A tune"}])
    with pytest.raises(TypeError, match="resize"):
        UnslothVisionDataCollator(model, tokenizer, resize=(10, 10))
    with pytest.raises(ValueError, match="conversations"):
        standardize_sharegpt([{"text": "A tune"}])


def test_a_trainer_of_these_names_is_one_of_the_kit(pair, rows):
    from tunebook_widgets import Dashboard

    model, tokenizer = pair
    FastLanguageModel.get_peft_model(model, r=4)
    trainer = SFTTrainer(model=model, tokenizer=tokenizer, train_dataset=rows, args=SFTConfig(max_steps=2))
    assert isinstance(trainer, Trainer)
    assert Dashboard(trainer)
    assert trainer.memory().total > 0
    folder = trainer.save_job("job")
    assert (folder / "job" / "job.json").is_file()
