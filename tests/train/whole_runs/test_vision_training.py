"""Runs of the trainer on models that read images, and what leaves the notebook afterwards."""

import json
import threading

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_map_with_path
from mlx_vlm.utils import load as load_stock

from tests.makers.arrays import in_numpy
from tests.makers.tiny_vision import FAMILIES, asked, noise_images, tiny_vision_folder
from tunebook import FastModel, Trainer, TrainingConfig
from tunebook.export.merged import save_merged
from tunebook.fast.gradient_checkpointing import recomputed_layers
from tunebook.models.adapters import adapter_paths
from tunebook.models.families import image_rows
from tunebook.models.families.check import CHECKS, NotTrainable
from tunebook.models.tensors import flat
from tunebook.objectives.next_token import NextToken, summed_loss, supervised_positions
from tunebook.tokens.collation import Collator
from tunebook.tokens.encoding import encode_rows
from tunebook.tokens.feed import StoredFeed
from tunebook.train.kept.identity import identity_of


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """family -> its model folder, of states of 64 numbers so that they can be quantized."""
    root, made = tmp_path_factory.mktemp("vision"), {}

    def folder(family):
        if family not in made:
            made[family] = tiny_vision_folder(root / family, family, width=64)
        return made[family]

    return folder


@pytest.fixture(params=FAMILIES)
def folder(request, folders):
    return folders(request.param)


@pytest.fixture(scope="module")
def rows():
    """Three rows with one or two images and answers of unequal length, and one without."""
    small, wide, tall, last = (
        noise_images(4, size=size)[n] for n, size in enumerate([(40, 40), (90, 60), (56, 84), (60, 60)])
    )
    text = [{"role": "user", "content": "Say it."}, {"role": "assistant", "content": "dogs"}]
    return [
        asked("What is it?", [small], "a dog"),
        asked("And these?", [wide, tall], "the quick brown fox and the lazy dog"),
        asked("This?", [last], "a tune"),
        {"messages": text},
    ]


def train(model, rows, **settings):
    settings = {
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 1,
        "max_steps": 5,
        "learning_rate": 1e-2,
        "warmup_steps": 0,
        "hold_out": 0,
        **settings,
    }
    return Trainer(model, train_dataset=rows, args=TrainingConfig(**settings)).train()


def test_the_next_images_are_opened_while_a_batch_is_computed_and_the_steps_are_the_same(folders, rows, monkeypatch):
    openers, opened = [], image_rows.opened

    def seen(image):
        openers.append(threading.current_thread() is threading.main_thread())
        return opened(image)

    def steps():
        openers.clear()
        settings = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4, "max_steps": 3}
        return [(step.loss, step.grad_norm) for step in train(adapted(folders("gemma3")), rows, **settings).steps]

    monkeypatch.setattr(image_rows, "opened", seen)
    ahead, opened_ahead = steps(), openers.count(False)
    assert 3 * 2 <= opened_ahead <= 3 * 4  # of a step's four images all but those of its first batch, two at most
    monkeypatch.setattr(Collator, "expect", lambda *_: None)
    assert steps() == ahead
    assert all(openers)


def adapted(folder, *, r=4, finetune_vision_layers=False, **loading):
    model, _ = FastModel.from_pretrained(folder, **loading)
    return FastModel.get_peft_model(model, r=r, lora_alpha=2 * r, finetune_vision_layers=finetune_vision_layers)


def tuned(folder, **choices):
    """A model whose adapters do something."""
    model = adapted(folder, **choices)
    mx.random.seed(1)
    filled = tree_map_with_path(
        lambda path, array: mx.random.normal(array.shape) * 0.1 if path.endswith("lora_b") else array,
        model.module.trainable_parameters(),
    )
    model.module.update(filled)
    return model


def test_adapters_learn_and_all_else_stays_as_it_was(folder, rows):
    model = adapted(folder)
    before = flat(model.module.parameters())
    losses = [step.loss for step in train(model, rows).steps]
    assert losses[-1] < 0.9 * losses[0]
    after = flat(model.module.parameters())
    changed = {name for name in after if not mx.array_equal(before[name], after[name])}
    assert changed == set(flat(model.module.trainable_parameters()))
    assert all("lora_" in name and name.startswith("language_model") for name in changed)


def test_two_runs_are_the_same_run(folders, rows):
    one, other = ([step.loss for step in train(adapted(folders("qwen3_vl")), rows).steps] for _ in range(2))
    assert one == other


def test_adapters_learn_beside_a_language_model_of_4_bits_and_a_vision_tower_of_32(folder, rows):
    model = adapted(folder, load_in_4bit=True)
    quantized = {path for path, part in model.module.named_modules() if isinstance(part, nn.QuantizedLinear)}
    assert len(quantized) >= 14
    assert all(path.startswith("language_model") for path in quantized)
    losses = [step.loss for step in train(model, rows).steps]
    assert losses[-1] < 0.9 * losses[0]


def test_adapters_learn_in_bfloat16_and_stay_float32_themselves(folder, rows):
    model = adapted(folder, dtype="bfloat16")
    losses = [step.loss for step in train(model, rows[:2], max_steps=3, learning_rate=3e-2).steps]
    assert losses[-1] < 0.9 * losses[0]
    assert {array.dtype for array in flat(model.module.trainable_parameters()).values()} == {mx.float32}


@pytest.mark.float32
def test_splitting_a_batch_changes_no_update(folder, rows):
    whole, parts = adapted(folder), adapted(folder)
    train(whole, rows, max_steps=2, dataset_order="sequential")
    train(
        parts,
        rows,
        max_steps=2,
        dataset_order="sequential",
        per_device_train_batch_size=1,
        gradient_accumulation_steps=4,
    )
    ours, theirs = flat(parts.module.trainable_parameters()), flat(whole.module.trainable_parameters())
    for name, array in ours.items():
        # AdamW divides by the root of the squared gradient, so a gradient of nearly 0 keeps its sign alone.
        assert mx.abs(array - theirs[name]).mean().item() < 1e-4, name


def test_layers_computed_twice_give_the_same_loss_and_gradients(folder, rows):
    model = tuned(folder)
    family, module = model.family, model.module
    batch = family.collate(encode_rows(rows, model.loaded, max_seq_length=200).rows, 97)
    positions = supervised_positions(batch)
    module.train()
    once = nn.value_and_grad(module, summed_loss(family))(module, batch, positions)
    with recomputed_layers(module):
        twice = nn.value_and_grad(module, summed_loss(family))(module, batch, positions)
    assert once[0].item() == twice[0].item()
    for name, gradient in flat(once[1]).items():
        assert mx.allclose(gradient, flat(twice[1])[name], rtol=1e-5, atol=1e-6), name


def test_adapters_on_the_vision_tower_learn_too(folder, rows):
    model = adapted(folder, finetune_vision_layers=True)
    before = flat(model.module.trainable_parameters())
    seeing = [path for path in adapter_paths(model.module) if not path.startswith("language_model")]
    assert len(seeing) >= 10
    train(model, rows)
    after = flat(model.module.trainable_parameters())
    for path in seeing:
        assert not mx.array_equal(before[f"{path}.lora_b"], after[f"{path}.lora_b"]), path


def test_the_vision_tower_alone_can_be_adapted(folders):
    model, _ = FastModel.from_pretrained(folders("gemma3"))
    FastModel.get_peft_model(model, r=4, finetune_vision_layers=True, finetune_language_layers=False)
    assert not [path for path in adapter_paths(model.module) if path.startswith("language_model")]


def test_a_text_model_has_no_vision_tower_to_adapt(model):
    with pytest.raises(ValueError, match="no vision layers"):
        FastModel.get_peft_model(model, finetune_vision_layers=True)
    with pytest.raises(ValueError, match="both off"):
        FastModel.get_peft_model(model, finetune_language_layers=False)


def test_a_family_that_fails_its_check_takes_no_step(folders, rows, monkeypatch):
    monkeypatch.setitem(CHECKS, "causality", lambda family, module: "it looked ahead")
    model = adapted(folders("smolvlm"))
    with pytest.raises(NotTrainable, match="it looked ahead"):
        train(model, rows)


def test_all_weights_learn_with_full_finetuning(folder, rows):
    model, _ = FastModel.from_pretrained(folder, full_finetuning=True)
    before = flat(model.module.parameters())
    losses = [step.loss for step in train(model, rows, learning_rate=3e-3).steps]
    assert losses[-1] < 0.9 * losses[0]
    after = flat(model.module.parameters())
    still = [name for name in after if mx.array_equal(before[name], after[name])]
    assert not still


def test_raw_text_around_images_is_trained_and_sampled_from(folders):
    rows = [{"text": f"see <image> number {number}", "images": noise_images(1)} for number in range(8)]
    result = train(adapted(folders("smolvlm")), rows, hold_out=0.3, sample_steps=5)
    assert result.steps[-1].loss < result.steps[0].loss
    assert result.samples[-1].prompt == "see"


def test_a_run_on_other_images_is_another_run(folders, rows):
    model = adapted(folders("qwen2_vl"))
    config = TrainingConfig()
    other = [asked("What is it?", noise_images(2)[1:], "a dog"), *rows[1:]]
    encoded = [encode_rows(some, model.loaded, max_seq_length=200).rows for some in (rows, other)]
    one, two = (
        identity_of(model.loaded, config, StoredFeed(some, config), 200, NextToken(), base="") for some in encoded
    )
    assert {name for name in one if one[name] != two[name]} == {"training rows"}


def test_a_run_goes_on_from_a_checkpoint_as_if_it_had_not_stopped(folders, rows, tmp_path):
    whole = train(adapted(folders("smolvlm")), rows, max_steps=4, per_device_train_batch_size=2)
    kept = {"per_device_train_batch_size": 2, "output_dir": str(tmp_path), "save_steps": 2}
    train(adapted(folders("smolvlm")), rows, max_steps=4, **kept)
    for newer in tmp_path.glob("run-001/checkpoint*4*"):
        newer.rename(tmp_path / "away")
    config = TrainingConfig(
        per_device_train_batch_size=2,
        gradient_accumulation_steps=1,
        max_steps=4,
        learning_rate=1e-2,
        warmup_steps=0,
        hold_out=0,
        output_dir=str(tmp_path),
        save_steps=2,
    )
    again = Trainer(adapted(folders("smolvlm")), train_dataset=rows, args=config).train(resume_from_checkpoint=True)
    assert [step.loss for step in again.steps] == [step.loss for step in whole.steps]


def logits_of(module, model, rows):
    """(N, V) logits of the trained tokens."""
    batch = model.family.collate(encode_rows(rows, model.loaded, max_seq_length=200).rows, 97)
    hidden = model.family.hidden(module, batch)
    return model.family.head(module, hidden.reshape(-1, hidden.shape[-1])[supervised_positions(batch)])


@pytest.mark.float32
def test_saved_adapters_are_opened_by_stock_mlx_vlm_and_by_us_in_both_formats(folder, rows, tmp_path):
    model = tuned(folder, finetune_vision_layers=True)
    here = logits_of(model.module, model, rows)
    model.save_pretrained(tmp_path / "mlx")
    model.save_pretrained(tmp_path / "peft", format="peft")
    stock, _ = load_stock(str(folder), adapter_path=str(tmp_path / "mlx"))
    stock.config = model.module.config  # Gemma 3's padding is 0 in the stock model
    assert mx.allclose(logits_of(stock, model, rows), here, atol=1e-3)
    for form in ("mlx", "peft"):
        again, _ = FastModel.from_pretrained(tmp_path / form)
        assert mx.allclose(logits_of(again.module, model, rows), here, atol=1e-3)
    names = json.loads((tmp_path / "peft" / "adapter_config.json").read_text())["target_modules"]
    assert all(name.startswith("model.") for name in names)


@pytest.mark.float32
def test_merged_weights_are_opened_by_stock_mlx_vlm(folder, rows, tmp_path):
    model = tuned(folder, finetune_vision_layers=True)
    save_merged(model.loaded, tmp_path / "merged", mx.float32)
    stock, processor = load_stock(str(tmp_path / "merged"))
    assert type(processor) is type(model.family.processor)
    assert mx.allclose(logits_of(stock, model, rows), logits_of(model.module, model, rows), atol=1e-3)


def test_exports_are_read_back_by_a_fresh_mlx_vlm(folders, rows, tmp_path):
    model = adapted(folders("gemma3"), finetune_vision_layers=True)
    untrained = Trainer(model, train_dataset=rows, eval_dataset=rows).evaluate().loss
    train(model, rows)
    merged = model.save_pretrained_merged(tmp_path / "merged", verify_with=rows).verification
    assert merged.passed
    assert merged.reader.startswith("mlx-vlm")
    assert abs(untrained - merged.loss_there) > 10 * merged.tolerance


def test_merged_weights_of_4_bits_leave_the_vision_tower_as_it_is_and_stock_mlx_vlm_opens_them(folder, rows, tmp_path):
    model = tuned(folder, finetune_vision_layers=True)
    model.save_pretrained_merged(tmp_path / "merged", save_method="merged_4bit")
    stock, _ = load_stock(str(tmp_path / "merged"))
    quantized = [path for path, part in stock.named_modules() if isinstance(part, nn.QuantizedLinear)]
    assert quantized
    assert all(path.startswith("language_model") for path in quantized)
    card = (tmp_path / "merged" / "README.md").read_text()
    assert "from mlx_vlm import generate, load" in card
    assert "image-text-to-text" in card


def test_adapters_on_a_base_of_4_bits_are_read_back_on_such_a_base(folders, rows, tmp_path):
    model = adapted(folders("qwen2_vl"), load_in_4bit=True)
    train(model, rows, max_steps=3)
    check = model.save_pretrained(tmp_path / "lora", verify_with=rows).verification
    assert abs(check.difference) < (1e-3 if model.loaded.dtype == mx.float32 else 1e-2)


def test_a_gguf_is_refused_with_a_reason(folders, tmp_path):
    model = tuned(folders("qwen2_vl"))
    with pytest.raises(ValueError, match=r"mmproj.*save_pretrained_merged"):
        model.save_pretrained_gguf(tmp_path)
    with pytest.raises(ValueError, match="mmproj"):
        model.save_pretrained(tmp_path, format="gguf")
    assert not list(tmp_path.iterdir())


def test_generation_works_beside_adapters_and_in_4_bits(folders, rows):
    model = adapted(folders("qwen3_vl"), load_in_4bit=True)
    assert isinstance(model.generate(rows[0]["messages"][:1], max_tokens=3), str)
    assert np.isfinite(in_numpy(logits_of(model.module, model, rows))).all()
