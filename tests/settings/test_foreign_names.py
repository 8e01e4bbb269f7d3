"""A name or a value of another kit is answered with what to write here, and what it says works."""

import re

import pytest

from tests.makers.small_runs import ignore
from tunebook import FastModel, LoraConfig, Trainer, TrainingConfig
from tunebook.settings.foreign_names import NAMES
from tunebook.settings.foreign_values import VALUES

# Each answer once, with the last name or value that it is given to.
EVERY_NAME = [(taker, name) for taker, answers in NAMES.items() for name in {a: n for n, a in answers.items()}.values()]
EVERY_VALUE = [
    (taker, name, value)
    for taker, names in VALUES.items()
    for name, answers in names.items()
    for value in {answer: value for value, answer in answers.items()}.values()
]
# What people give for those of the names that an answer repeats; all others get True.
GIVEN = {
    "learning_rate": 1e-4,
    "lora_dropout": 0.1,
    "dropout": 0.1,
    "max_grad_norm": 1.0,
    "clip_grad_norm": 1.0,
    "gradient_clip": 1.0,
    "target_modules": ["q_proj"],
    "keys": ["q_proj"],
    "modules_to_save": ["embed_tokens"],
    "lr": 1e-4,
    "lr_max": 1e-4,
    "temp": 0.5,
    "use_rslora": True,
    "enable_thinking": False,
    "use_dora": True,
    "gradient_checkpointing": "unsloth",
    "packing": True,
    "dataset_text_field": "body",
    "resume": True,
    "format": "peft",
    "quantization_method": "q8_0",
    "save_method": "merged_16bit",
}
TEXTS = {"run_name", "adapter_path", "save_directory", "path", "model_name", "use_auth_token", "hf_token"}
NAMES_OF_MODELS = {"pretrained_model_name_or_path", "path_or_hf_repo", "model_id", "model", "repo_id"}


def code_of(answer):
    """The Python in a message: what stands in backquotes."""
    return re.findall(r"`([^`]+)`", answer)


@pytest.fixture
def at_hand(model, tiny_folder, rows, tmp_path):
    """What the answers speak of, and what was refused, by the name it has in messages."""
    FastModel.get_peft_model(model, r=4, target_modules=["q_proj", "v_proj"])
    args = TrainingConfig(max_steps=1, save_steps=1, output_dir=str(tmp_path / "runs"))
    trainer = Trainer(model, train_dataset=rows[:4], eval_dataset=rows[4:6], args=args)
    trainer.subscribe(ignore)
    switch = "{% if add_generation_prompt and enable_thinking is false %}{{ '<think></think>' }}{% endif %}"
    model.loaded.tokenizer.chat_template += switch
    from tunebook import bridges

    def fresh():
        return FastModel.from_pretrained(tiny_folder, max_seq_length=64)[0]

    return {
        "FastModel": FastModel,
        "LoraConfig": LoraConfig,
        "Trainer": Trainer,
        "TrainingConfig": TrainingConfig,
        "bridges": bridges,
        "trainer": trainer,
        "rows": rows[:4],
        "held_out_rows": rows[4:6],
        "table": [{"body": "The fox sleeps."}, {"body": "The dog does not."}],
        "prompt": "Say it.",
        "name": str(tiny_folder),
        "folder": str(tmp_path / "out"),
        "template": model.loaded.tokenizer.chat_template,
        "model": model,
        "tokenizer": model.loaded.tokenizer,
        "fresh": fresh,
        "into": tmp_path,
    }


def calls(at_hand):
    """taker -> the call that was refused, whole but for what was wrong with it."""
    model, folder, name = at_hand["model"], at_hand["folder"], at_hand["name"]
    return {
        "TrainingConfig": TrainingConfig,
        "LoraConfig": LoraConfig,
        "FastModel.get_peft_model": lambda **given: FastModel.get_peft_model(at_hand["fresh"](), **given),
        "FastModel.from_pretrained": lambda **given: FastModel.from_pretrained(name, **given),
        "generate": lambda **given: model.generate("Say it.", **{"max_tokens": 2, **given}),
        "stream": lambda **given: list(model.stream("Say it.", **{"max_tokens": 2, **given})),
        "save_pretrained": lambda **given: model.save_pretrained(folder, **given),
        "save_pretrained_merged": lambda **given: model.save_pretrained_merged(folder, **given),
        "save_pretrained_gguf": lambda **given: model.save_pretrained_gguf(folder, **given),
        "push_to_hub": lambda **given: model.push_to_hub("me/it", **given),
        "push_to_hub_merged": lambda **given: model.push_to_hub_merged("me/it", **given),
        "push_to_hub_gguf": lambda **given: model.push_to_hub_gguf("me/it", **given),
        "Trainer": lambda **given: Trainer(model, train_dataset=at_hand["rows"], **given),
        "train": lambda **given: at_hand["trainer"].train(**given),
        "evaluate": lambda **given: at_hand["trainer"].evaluate(**given),
    }


def do(code, taker, at_hand):
    """What a message says to write is written: an argument for the call that was refused, or a call of its own."""
    if "resume_from_checkpoint" in code:
        at_hand["trainer"].train()
    if re.match(r"\w+=(?!=)", code):
        code, at_hand = f"refused({code})", {**at_hand, "refused": calls(at_hand)[taker]}
    elif "get_peft_model(model" in code:
        at_hand = {**at_hand, "model": at_hand["fresh"]()}
    elif "max_seq_length=True" in code:
        code = code.replace("True", "64")
    exec(code, dict(at_hand))


@pytest.fixture
def given(at_hand, tmp_path):
    def value(name, taker):
        if taker.startswith("save_pretrained") and name in TEXTS:
            return at_hand["folder"]
        if name in TEXTS | NAMES_OF_MODELS:
            return at_hand["name"]
        if name in ("max_length", "max_new_tokens", "max_position_embeddings", "max_seq_length"):
            return 64
        return GIVEN.get(name, 1 if name.startswith(("finetune", "num_", "r", "lora_", "rank", "alpha", "max_")) else 2)

    return value


@pytest.mark.parametrize(("taker", "name"), EVERY_NAME)
def test_what_a_name_of_another_kit_is_answered_with_works(taker, name, at_hand, given, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TypeError, match=rf"^{re.escape(taker)} takes no {name}: ") as refused:
        calls(at_hand)[taker](**{name: given(name, taker)})
    message = str(refused.value)
    assert message.endswith(".")
    assert "\n" not in message
    for code in code_of(message):
        do(code, taker, at_hand)
    assert code_of(message) or re.search(r"leave it out|push_to_hub", message), message


@pytest.mark.parametrize(("taker", "name", "value"), EVERY_VALUE)
def test_what_a_value_of_another_kit_is_answered_with_works(taker, name, value, at_hand):
    with pytest.raises(ValueError, match=rf"{re.escape(taker)}\.{name} is {re.escape(repr(value))}; ") as refused:
        calls(at_hand)[taker](**{name: value})
    (code, *_) = code_of(str(refused.value))
    if taker.startswith("push_to_hub"):
        taker = taker.replace("push_to_hub", "save_pretrained")
    do(code, taker, at_hand)


@pytest.mark.parametrize("name", ["learning_rat", "max_step", "weight_decays", "per_device_batch_size", "save_step"])
def test_a_misspelt_name_is_answered_with_the_nearest_and_that_is_taken(name):
    with pytest.raises(TypeError, match=f"TrainingConfig takes no {name}; did you mean ") as refused:
        TrainingConfig(**{name: 1})
    near = str(refused.value).removesuffix("?").rpartition(" ")[2]
    assert TrainingConfig(**{near: 1})


def test_a_name_that_is_a_part_of_others_is_answered_with_those():
    with pytest.raises(TypeError, match=r"takes no warmup; did you mean warmup_steps or warmup_ratio[?]$"):
        TrainingConfig(warmup=3)


def test_a_record_of_many_names_is_looked_up_in_its_help():
    with pytest.raises(TypeError, match=r"takes no frobnicate; help\(TrainingConfig\) says"):
        TrainingConfig(frobnicate=1)


def test_a_name_that_is_like_none_is_answered_with_those_there_are():
    with pytest.raises(TypeError, match="LoraConfig takes no frobnicate; it takes r, lora_alpha"):
        LoraConfig(frobnicate=1)


@pytest.mark.parametrize("method", ["save_pretrained", "save_pretrained_merged", "save_pretrained_gguf"])
def test_a_tokenizer_as_second_argument_is_answered_with_the_call_without_it(adapted, tmp_path, method):
    with pytest.raises(TypeError, match="the model brings its own tokenizer") as refused:
        getattr(adapted, method)(tmp_path / "out", adapted.loaded.tokenizer)
    (code,) = code_of(str(refused.value))
    exec(code, {"model": adapted, "folder": tmp_path / "out"})
    assert any((tmp_path / "out").iterdir())


def test_an_option_by_position_is_answered_with_the_names(adapted, tmp_path):
    with pytest.raises(TypeError, match="names of the others, which are quantization_method, verify_with"):
        adapted.save_pretrained_gguf(tmp_path / "out", "q8_0")


def test_all_names_that_are_not_taken_are_answered_at_once():
    with pytest.raises(TypeError) as refused:
        TrainingConfig(logging_steps=1, report_to="none", bf16=True)
    assert all(f"takes no {name}: " in str(refused.value) for name in ("logging_steps", "report_to", "bf16"))


def test_no_name_and_no_value_in_the_tables_is_taken(at_hand):
    for taker, call in calls(at_hand).items():
        for name in NAMES[taker]:
            with pytest.raises(TypeError, match=f"takes no {name}: .*[.]$"):
                call(**{name: 1})
        for name, answers in VALUES.get(taker, {}).items():
            for value in answers:
                with pytest.raises(ValueError, match=rf"{name} is {re.escape(repr(value))}; .*[.]$"):
                    call(**{name: value})


def test_what_from_pretrained_gave_is_answered_with_the_line_that_takes_it_apart(at_hand):
    pair = FastModel.from_pretrained(at_hand["name"])
    for call in (lambda: FastModel.get_peft_model(pair), lambda: Trainer(pair, train_dataset=at_hand["rows"])):
        with pytest.raises(ValueError, match=r"\.model is a pair; from_pretrained gives two things") as refused:
            call()
        (code,) = code_of(str(refused.value))
        names = dict(at_hand)
        exec(code, names)
        assert Trainer(FastModel.get_peft_model(names["model"]), names["tokenizer"], train_dataset=names["rows"])


def test_a_tokenizer_of_transformers_is_answered_with_the_models_own(adapted, rows):
    inner = vars(adapted.loaded.tokenizer)["_tokenizer"]
    with pytest.raises(ValueError, match="pass the one from_pretrained returned beside it"):
        Trainer(adapted, inner, train_dataset=rows)
