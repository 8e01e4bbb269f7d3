"""Configs of `mlx_lm.lora`: each gives the losses of the same run in the kit's names, mlx-lm's adapters and rates."""

import json

import mlx.core as mx
import numpy as np
import pytest
import yaml
from mlx.utils import tree_flatten
from mlx_lm.lora import CONFIG_DEFAULTS
from mlx_lm.tuner.utils import build_schedule, linear_to_lora_layers
from mlx_lm.utils import load_model

from tunebook import FastModel, Trainer, TrainingConfig
from tunebook.compat.mlx_lm import __main__ as command
from tunebook.compat.mlx_lm import opened, trainer_from
from tunebook.compat.mlx_lm.config_file import DEFAULTS, read_config
from tunebook.compat.mlx_lm.schedules import schedule_settings
from tunebook.train.optim.schedules import learning_rate

WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog"]
ROWS = {
    "messages": [
        {
            "messages": [
                {"role": "user", "content": f"Say {number} words."},
                {"role": "assistant", "content": " ".join(WORDS[: 1 + number])},
            ]
        }
        for number in range(6)
    ],
    "completions": [
        {"prompt": f"Say {number} words.", "completion": " ".join(WORDS[: 1 + number])} for number in range(6)
    ],
    "text": [{"text": " ".join(WORDS[number:])} for number in range(6)],
}
# A run of mlx-lm in the kit's names, where its config says no more than how long it is.
PLAIN = {
    "per_device_train_batch_size": 2,
    "per_device_eval_batch_size": 2,
    "gradient_accumulation_steps": 1,
    "max_steps": 2,
    "lr_scheduler_type": "constant",
    "warmup_steps": 0,
    "weight_decay": 0.0,
    "max_grad_norm": None,
    "dataset_order": "length_sorted",
    "train_on": "everything",
    "hold_out": 0.0,
    "output_dir": None,
}


@pytest.fixture
def write(tiny_folder, tmp_path):
    """kind of rows, settings -> the path of a config with the data beside it."""

    def write(kind="messages", valid=0, **settings):
        data = tmp_path / "data"
        data.mkdir(exist_ok=True)
        files = {"train": ROWS[kind][valid:], "valid": ROWS[kind][:valid], "test": ROWS[kind]}
        for name, rows in files.items():
            if rows:
                (data / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        given = {
            "model": str(tiny_folder),
            "train": True,
            "data": str(data),
            "iters": 2,
            "batch_size": 2,
            "num_layers": 2,
        }
        given |= {"max_seq_length": 128, "adapter_path": str(tmp_path / "adapters"), **settings}
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(given))
        return path

    return write


def losses(trainer):
    trainer.subscribe(lambda event: None, shows_progress=True)
    return [step.loss for step in trainer.train().steps]


def in_kit_names(folder, rows, config, *, adapters=None, prepare=None, eval_dataset=None, **loading):
    model, tokenizer = FastModel.from_pretrained(folder, max_seq_length=128, **loading)
    if adapters is not None:
        FastModel.get_peft_model(model, **{"r": 8, "lora_alpha": 160, "random_state": 0, **adapters})
    if prepare is not None:
        prepare(model)
    args = TrainingConfig(**{**PLAIN, "seed": 0, **config})
    return losses(Trainer(model, tokenizer, train_dataset=rows, eval_dataset=eval_dataset, args=args))


def test_a_short_config_is_the_run_it_says(write, tiny_folder, capsys):
    path = write(learning_rate=1e-3, num_layers=1, seed=7, lora_parameters={"rank": 4, "scale": 5.0, "dropout": 0.0})
    adapters = {"r": 4, "lora_alpha": 20, "finetune_last_n_layers": 1, "random_state": 7}
    config = {"learning_rate": 1e-3, "seed": 7}
    assert losses(trainer_from(path)) == in_kit_names(tiny_folder, ROWS["messages"], config, adapters=adapters)
    said = capsys.readouterr().out
    assert "means of micro-batches" in said
    assert "bias_correction: true" in said


def test_answers_alone_with_a_falling_rate_and_micro_batches(write, tiny_folder):
    path = write(
        "completions",
        mask_prompt=True,
        iters=7,
        grad_accumulation_steps=2,
        optimizer="adamw",
        optimizer_config={"adamw": {"betas": [0.8, 0.99], "eps": 1e-6, "weight_decay": 0.1, "bias_correction": True}},
        lr_schedule={"name": "cosine_decay", "arguments": [2e-3, 3, 2e-4]},
        lora_parameters={"keys": ["self_attn.q_proj", "mlp.down_proj"], "rank": 8, "scale": 20.0, "dropout": 0.0},
    )
    config = {
        "gradient_accumulation_steps": 2,
        "max_steps": 3,
        "learning_rate": 2e-3,
        "lr_scheduler_type": "cosine",
        "min_lr_rate": 0.1,
        "weight_decay": 0.1,
        "adam_beta1": 0.8,
        "adam_beta2": 0.99,
        "adam_epsilon": 1e-6,
        "train_on": "assistant",
    }
    adapters = {"target_modules": ["q_proj", "down_proj"]}
    ours = losses(trainer_from(path))
    assert len(ours) == 3
    assert ours == in_kit_names(tiny_folder, ROWS["completions"], config, adapters=adapters)


def test_dora_on_raw_text_behind_a_warm_up(write, tiny_folder):
    schedule = {"name": "linear_schedule", "warmup": 1, "arguments": [1e-3, 0.0, 3]}
    path = write("text", fine_tune_type="dora", iters=4, lr_schedule=schedule, grad_checkpoint=True)
    config = {"max_steps": 4, "learning_rate": 1e-3, "lr_scheduler_type": "linear", "warmup_steps": 1}
    config |= {"gradient_checkpointing": True}
    assert losses(trainer_from(path)) == in_kit_names(tiny_folder, ROWS["text"], config, adapters={"use_dora": True})


def test_the_last_layer_trained_whole_by_plain_descent(write, tiny_folder):
    def last_layer(model):
        model.module.freeze()
        model.module.layers[-1].unfreeze()

    path = write(fine_tune_type="full", num_layers=1, optimizer="sgd", learning_rate=0.1)
    model, trainer = opened(path)
    names = {name.split(".")[2] for name, _ in tree_flatten(model.module.trainable_parameters())}
    assert names == {"1"}
    config = {"optim": "sgd", "learning_rate": 0.1}
    assert losses(trainer) == in_kit_names(
        tiny_folder, ROWS["messages"], config, prepare=last_layer, full_finetuning=True
    )


def test_a_run_goes_on_from_saved_weights_and_measures_the_rows_set_aside(write, tiny_folder, tmp_path):
    first, trainer = opened(write(learning_rate=1e-3))
    losses(trainer)
    mx.save_safetensors("adapters.safetensors", dict(tree_flatten(first.module.trainable_parameters())))
    path = write(
        valid=3,
        resume_adapter_file="adapters.safetensors",
        optimizer="muon",
        optimizer_config={"muon": {"weight_decay": 0.0}},
        learning_rate=1e-3,
        steps_per_eval=1,
    )
    rows, held_out = ROWS["messages"][3:], ROWS["messages"][:3]

    def take_up(model):
        model.module.load_weights("adapters.safetensors", strict=False)

    trainer = trainer_from(path)
    assert (trainer.config.eval_steps, len(trainer.eval_rows)) == (1, 3)
    config = {"optim": "muon", "learning_rate": 1e-3, "eval_steps": 1}
    assert losses(trainer) == in_kit_names(
        tiny_folder, rows, config, adapters={}, prepare=take_up, eval_dataset=held_out
    )
    with pytest.raises(ValueError, match="do not match"):
        trainer_from(write(num_layers=1, resume_adapter_file="adapters.safetensors"))


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("keys", [None, ["self_attn.v_proj"]])
def test_the_adapters_are_those_that_mlx_lm_begins_with(write, tiny_folder, kind, keys):
    parameters = {"rank": 4, "scale": 5.0, "dropout": 0.1} | ({} if keys is None else {"keys": keys})
    model, _ = opened(write(fine_tune_type=kind, num_layers=1, seed=11, lora_parameters=parameters))
    theirs, _ = load_model(tiny_folder)
    mx.random.seed(11)
    theirs.freeze()
    linear_to_lora_layers(theirs, 1, parameters, use_dora=kind == "dora")
    ours = dict(tree_flatten(model.module.trainable_parameters()))
    expected = dict(tree_flatten(theirs.trainable_parameters()))
    assert ours.keys() == expected.keys()
    for name, array in expected.items():
        assert np.array_equal(np.array(ours[name]), np.array(array)), name


@pytest.mark.parametrize(
    ("schedule", "updates"),
    [
        (None, 5),
        ({"name": "cosine_decay", "arguments": [1e-3, 6]}, 6),
        ({"name": "cosine_decay", "arguments": [1e-3, 6, 1e-4]}, 6),
        ({"name": "linear_schedule", "arguments": [1e-3, 1e-4, 6]}, 6),
        ({"name": "cosine_decay", "warmup": 3, "arguments": [1e-3, 6, 1e-4]}, 9),
    ],
)
def test_the_rates_are_those_of_mlx_lm(schedule, updates):
    config = TrainingConfig(max_steps=updates, **schedule_settings(schedule, 1e-5, updates))
    ours = [learning_rate(config, updates)(step) for step in range(1, updates + 1)]
    if schedule is None:
        assert ours == [1e-5] * updates
        return
    rate, warmup = build_schedule(schedule), schedule.get("warmup", 0)
    # Behind a warm-up mlx-lm takes the highest rate once more, and this kit does not.
    theirs = [float(rate(mx.array(step + (step > warmup > 0)))) for step in range(updates)]
    assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-12)


def test_the_defaults_are_mlx_lms():
    assert DEFAULTS == CONFIG_DEFAULTS


def test_numbers_are_read_as_mlx_lm_reads_them(tmp_path, monkeypatch):
    # mlx-lm, which is imported above, has changed what YAML's own loader reads.
    monkeypatch.setattr(yaml.SafeLoader, "yaml_implicit_resolvers", yaml.resolver.Resolver.yaml_implicit_resolvers)
    assert yaml.safe_load("1e-5") == "1e-5"
    (tmp_path / "config.yaml").write_text(
        "learning_rate: 1e-5\nlr_schedule: {arguments: [1e-4, 10, 1E-7]}\nseed: null\n"
    )
    settings = read_config(tmp_path / "config.yaml")
    assert (settings["learning_rate"], settings["seed"]) == (1e-5, 0)
    assert settings["lr_schedule"]["arguments"] == [1e-4, 10, 1e-7]


@pytest.mark.parametrize(
    ("kind", "settings", "said"),
    [
        ("messages", {"lr_schedule": {"name": "exponential_decay", "arguments": [1e-3, 0.9]}}, "cosine_decay"),
        ("messages", {"lr_schedule": {"name": "cosine_decay", "arguments": [1e-3, 9]}}, r"arguments: \[0.001, 2\]"),
        (
            "messages",
            {"lr_schedule": {"name": "cosine_decay", "arguments": [1e-3, 1], "warmup": 1, "warmup_init": 1e-4}},
            "warmup_init: 0.0",
        ),
        ("messages", {"optimizer": "adafactor"}, "relative_step is True"),
        ("messages", {"optimizer": "sgd", "optimizer_config": {"sgd": {"momentum": 0.9}}}, "momentum is 0.9"),
        ("messages", {"optimizer": "lion"}, "mlx-lm has adam"),
        ("text", {"mask_prompt": True}, "no prompt"),
        ("messages", {"report_to": "wandb"}, "bridges"),
        ("messages", {"grad_accumulation_steps": 3}, "no update"),
        ("messages", {"lora_parameters": {"rank": 8, "alpha": 16}}, "lack scale"),
        ("messages", {"iter": 3}, "did you mean iters"),
        ("messages", {"train": False, "test": True}, "train: true"),
        ("messages", {"chat_feature": "chat"}, "mlx-lm reads"),
        ("messages", {"hf_dataset": {"path": "a/b"}}, "owner/name"),
    ],
)
def test_what_cannot_be_followed_is_refused_with_what_to_write(write, kind, settings, said):
    with pytest.raises(ValueError, match=said):
        trainer_from(write(kind, **settings))


def test_all_that_cannot_be_followed_is_told_at_once(write):
    schedule = {"name": "exponential_decay", "arguments": [1e-3, 0.9]}
    with pytest.raises(ValueError, match="cosine_decay") as refused:
        trainer_from(write("messages", lr_schedule=schedule, optimizer="lion", report_to="wandb"))
    assert len(str(refused.value).splitlines()) == 3


def test_a_warm_up_that_begins_next_to_nothing_begins_at_nothing_and_it_is_said(write, capsys):
    schedule = {"name": "cosine_decay", "arguments": [1e-3, 1], "warmup": 1, "warmup_init": 1e-7}
    assert trainer_from(write("messages", lr_schedule=schedule)).config.warmup_steps == 1
    assert "warmup_init is 1e-07" in capsys.readouterr().out


def test_columns_of_other_names_are_read(write, tmp_path):
    path = write("text", text_feature="story")
    rows = [{"story": row["text"]} for row in ROWS["text"]]
    (tmp_path / "data" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert len(trainer_from(path).train_rows) == 6


def test_the_command_writes_a_job(write, capsys):
    assert command.main([str(write(num_layers=16, steps_per_report=1, test=True)), "job"]) == 0
    said = capsys.readouterr().out
    assert "python -m tunebook train job trains it" in said
    assert "num_layers is 16, and this model has 2" in said
    assert command.main([str(write(optimizer="lion")), "job2"]) == 2
    assert "mlx-lm has adam" in capsys.readouterr().err
