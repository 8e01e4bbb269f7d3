"""families/check.py: a sound family passes, and each violation is refused by the check that is made for it."""

import mlx.core as mx
import pytest

from tests.makers.failing_gpu import BROKEN, Failing, evaluations
from tests.makers.tiny_vision import tiny_vision_folder
from tunebook import FastModel
from tunebook.models.families import language_model
from tunebook.models.families.check import CHECKS, NotTrainable, check_family
from tunebook.models.families.image_mask import image_mask


def test_a_sound_family_passes_every_check(vision):
    check_family(vision.family, vision.module)


def test_a_gpu_that_fails_says_nothing_of_the_model(vision):
    failing = Failing("models/families/check.py _distance", said=BROKEN)
    with evaluations(failing), pytest.raises(RuntimeError, match="Internal Error"):
        check_family(vision.family, vision.module)


def test_a_model_that_sees_later_tokens_is_refused(vision_models, monkeypatch):
    model = vision_models("gemma3")
    monkeypatch.setattr(language_model, "image_mask", lambda is_image, window=None: mx.ones_like(image_mask(is_image)))
    with pytest.raises(NotTrainable, match="check of causality failed: a token changes the states before it"):
        check_family(model.family, model.module)


def test_a_model_that_mixes_rows_up_is_refused(vision_models, monkeypatch):
    model = vision_models("qwen2_vl")
    plain = type(model.module).get_input_embeddings

    def mixed_up(self, tokens, pixels=None, **options):
        made = plain(self, tokens, pixels, **options)
        made.inputs_embeds = made.inputs_embeds[::-1]
        return made

    monkeypatch.setattr(type(model.module), "get_input_embeddings", mixed_up)
    with pytest.raises(NotTrainable, match="check of rows in a batch failed"):
        check_family(model.family, model.module)


def test_a_model_that_does_not_look_is_refused(vision_models, monkeypatch):
    model = vision_models("smolvlm")
    plain = type(model.module).get_input_embeddings
    monkeypatch.setattr(
        type(model.module),
        "get_input_embeddings",
        lambda self, tokens, pixels=None, **options: plain(self, tokens, None, **options),
    )
    with pytest.raises(NotTrainable, match="check of images failed: another image changes"):
        check_family(model.family, model.module)


def test_a_model_that_remembers_an_image_is_refused(vision_models, monkeypatch):
    model = vision_models("idefics3")
    plain, seen = type(model.module).get_input_embeddings, []

    def remembering(self, tokens, pixels=None, **options):
        made = plain(self, tokens, pixels, **options)
        if pixels is not None:
            seen.append(pixels)
        else:
            made.inputs_embeds = made.inputs_embeds[:, :: (-1) ** len(seen)]
        return made

    monkeypatch.setattr(type(model.module), "get_input_embeddings", remembering)
    monkeypatch.setitem(CHECKS, "rows in a batch", lambda family, module: None)
    with pytest.raises(NotTrainable, match="check of memory failed"):
        check_family(model.family, model.module)


def test_a_model_whose_adapters_get_no_gradient_is_refused(tmp_path, monkeypatch):
    model, _ = FastModel.from_pretrained(tiny_vision_folder(tmp_path, "qwen2_5_vl"))
    FastModel.get_peft_model(model, r=4, finetune_vision_layers=True)
    check_family(model.family, model.module)
    tower = type(model.module.vision_tower)
    plain = tower.__call__
    monkeypatch.setattr(
        tower, "__call__", lambda self, *args, **options: mx.stop_gradient(plain(self, *args, **options))
    )
    with pytest.raises(NotTrainable, match=r"no gradient reaches vision_tower\.blocks\.0"):
        check_family(model.family, model.module)


def test_a_backward_pass_that_fails_is_a_refusal_and_no_crash(vision_models, monkeypatch):
    model = vision_models("qwen2_vl")
    monkeypatch.setitem(CHECKS, "gradients", lambda family, module: mx.ones(3).reshape(2, 2) and None)
    with pytest.raises(NotTrainable, match="check of gradients failed: it cannot be called so"):
        check_family(model.family, model.module)


def test_a_processor_that_says_something_of_each_token_is_refused(vision_models, monkeypatch):
    model = vision_models("qwen2_5_vl")
    processor = type(model.family.processor)
    plain = processor.__call__

    def talkative(self, **options):
        made = plain(self, **options)
        made["mm_token_type_ids"] = made["input_ids"]
        return made

    monkeypatch.setattr(processor, "__call__", talkative)
    with pytest.raises(NotTrainable, match="gives mm_token_type_ids"):
        check_family(model.family, model.module)
