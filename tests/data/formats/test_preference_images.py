"""What becomes of the images of a preference: they are the prompt's, and all of its answers are behind them."""

import io
import re

import numpy as np
import pytest

from tests.makers.tiny_vision import noise_images, tiny_vision_folder
from tunebook import FastModel
from tunebook.data.examples import Image, Text
from tunebook.data.formats import BadRow
from tunebook.data.formats.preferences import image_references, preference_reader


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    return FastModel.from_pretrained(tiny_vision_folder(tmp_path_factory.mktemp("qwen"), "qwen2_vl"))[0]


@pytest.fixture(scope="module")
def smol(tmp_path_factory):
    return FastModel.from_pretrained(tiny_vision_folder(tmp_path_factory.mktemp("smol"), "smolvlm"))[0]


def read(model, row, kind="pairs"):
    return preference_reader(model.loaded.tokenizer, kind, placeholder=model.family.placeholder)(row)


def shown(example):
    """The example's text with [n] for the image of n pixels' width."""
    return "".join(part.text if isinstance(part, Text) else f"[{part.image.size[0]}]" for part in example.parts)


def turn(role, content):
    return {"role": role, "content": content}


def image_of(width):
    return noise_images(1, size=(width, 60))[0]


def png_of(width):
    file = io.BytesIO()
    image_of(width).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


ASKED, GOOD, BAD = turn("user", "What?"), turn("assistant", "a dog"), turn("assistant", "a fox")
PLACED = turn("user", [{"type": "image"}, {"type": "text", "text": "What?"}])
BROUGHT = turn("user", [{"type": "image", "image": image_of(60)}, {"type": "text", "text": "What?"}])
ANSWERS = {"chosen": [GOOD], "rejected": [BAD]}
PROMPT = "<|im_start|>user\n<|vision_start|>[60]<|vision_end|>What?<|im_end|>\n<|im_start|>assistant\n"

WAYS = {
    "no place": {"prompt": [ASKED], **ANSWERS, "images": [image_of(60)]},
    "one image": {"prompt": [ASKED], **ANSWERS, "image": image_of(60)},
    "bytes": {"prompt": [ASKED], **ANSWERS, "images": [png_of(60)]},
    "a frame's column": {"prompt": [ASKED], **ANSWERS, "images": np.array([png_of(60)], dtype=object)},
    "a place": {"prompt": [PLACED], **ANSWERS, "images": [image_of(60)]},
    "a part": {"prompt": [BROUGHT], **ANSWERS},
    "an address": {
        "prompt": [turn("user", [{"type": "image_url", "image_url": {"url": image_of(60)}}, *PLACED["content"][1:]])],
        **ANSWERS,
    },
    "a marker": {"prompt": [turn("user", "<image>What?")], **ANSWERS, "images": [image_of(60)]},
    "strings": {"prompt": "What?", "chosen": "a dog", "rejected": "a fox", "image": image_of(60)},
    "implied": {"chosen": [PLACED, GOOD], "rejected": [PLACED, BAD], "images": [image_of(60)]},
    "implied parts": {"chosen": [BROUGHT, GOOD], "rejected": [BROUGHT, BAD]},
    "implied, no place": {"chosen": [ASKED, GOOD], "rejected": [ASKED, BAD], "image": image_of(60)},
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_write_an_image_gives_a_prompt_and_two_answers_behind_the_same_one(qwen, way):
    answers = read(qwen, WAYS[way])
    assert shown(answers.prompt) == PROMPT
    assert [shown(whole) for whole in answers.wholes] == [PROMPT + f"{it}<|im_end|>\n" for it in ("a dog", "a fox")]
    images = [[part.image for part in example.parts if isinstance(part, Image)] for example in answers.wholes]
    assert images[0] == images[1]
    assert answers.unread == ()


def test_a_judged_answer_sees_the_images_of_its_prompt(qwen):
    answers = read(qwen, {"prompt": [ASKED], "completion": [GOOD], "label": True, "image": image_of(60)}, "labelled")
    assert shown(answers.prompt) == PROMPT
    assert [shown(whole) for whole in answers.wholes] == [PROMPT + "a dog<|im_end|>\n"]


def test_strings_with_a_place_are_text_as_trl_has_them(smol):
    row = {"prompt": "See <image>:", "chosen": " a dog", "rejected": " a fox", "images": [image_of(60)]}
    answers = read(smol, row)
    assert shown(answers.prompt) == "See [60]:"
    assert shown(answers.wholes[1]) == f"See [60]: a fox{smol.loaded.tokenizer.eos_token}"


def test_each_image_has_its_place_over_several_turns(qwen):
    row = {
        "prompt": [turn("user", [*PLACED["content"], {"type": "image"}]), GOOD, PLACED],
        **ANSWERS,
        "images": [image_of(width) for width in (40, 50, 70)],
    }
    assert re.findall(r"\[(\d+)\]", shown(read(qwen, row).wholes[1])) == ["40", "50", "70"]


SEEN = turn("assistant", [{"type": "image"}, {"type": "text", "text": "a dog"}])
REFUSED = {
    "an image in an answer": (
        {"prompt": [ASKED], "chosen": [SEEN], "rejected": [BAD], "images": [image_of(60)]},
        "turn 0 is an answer with an image in it, and no model here writes images.",
    ),
    "an image among the tools' words": (
        {"prompt": [ASKED], "chosen": [GOOD, {**SEEN, "role": "tool"}, GOOD], "rejected": [BAD], "image": image_of(60)},
        "its 'chosen' holds <|image_pad|>, and images are seen in the prompt alone; take it out, or put it into "
        "'prompt'.",
    ),
    "a placeholder in an answer": (
        {"prompt": [ASKED], "chosen": [GOOD], "rejected": [turn("assistant", "<|image_pad|>")], "image": image_of(60)},
        "its 'rejected' holds <|image_pad|>, and images are seen in the prompt alone",
    ),
    "two images for one place": (
        {"prompt": [PLACED], **ANSWERS, "images": [image_of(60)] * 2},
        "it has 2 images and 1 places for them; put one {'type': 'image'} part, or one <|image_pad|>, where",
    ),
    "a place and no image": ({"prompt": [PLACED], **ANSWERS}, "it has 0 images and 1 places for them"),
    "other images on both sides": (
        {"chosen": [BROUGHT, GOOD], "rejected": [turn("user", [{"type": "image", "image": image_of(50)}]), BAD]},
        "its answers share no first turn, so no prompt is implied; give the rows a column 'prompt'.",
    ),
    "a file that is not there": (
        {"prompt": [ASKED], **ANSWERS, "images": ["nowhere/at_all.png"]},
        "its image 'at_all.png' is not there, or is no file.",
    ),
    "a file in a part that is not there": (
        {"prompt": [turn("user", [{"type": "image", "path": "at_all.png"}])], **ANSWERS},
        "its image 'at_all.png' is not there, or is no file.",
    ),
    "bytes that are no image": (
        {"prompt": [ASKED], **ANSWERS, "images": [{"bytes": b"no image"}]},
        "an image in memory cannot be opened",
    ),
    "a pixel token in an answer": (
        {"prompt": [ASKED], "chosen": [GOOD], "rejected": [turn("assistant", "<|video_pad|>")], "image": image_of(60)},
        "its text holds <|video_pad|>, which the model's processor alone writes",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_images_that_cannot_be_had_and_images_in_answers_are_refused_in_a_sentence(qwen, kind):
    row, sentence = REFUSED[kind]
    with pytest.raises(BadRow, match=re.escape(sentence)):
        read(qwen, row)


def test_a_model_that_reads_text_alone_says_so(tokenizer):
    read_row = preference_reader(tokenizer, "pairs")
    for images in ({"image": image_of(60)}, {"images": np.array([png_of(60)] * 2, dtype=object)}):
        with pytest.raises(
            BadRow, match="this model reads text alone; load a model that reads images, or drop the col"
        ):
            read_row({"prompt": "What?", "chosen": " a dog", "rejected": " a fox", **images})
    assert read_row({"prompt": "What?", "chosen": " a dog", "rejected": " a fox", "images": []}).wholes


def test_all_that_a_row_names_as_an_image_is_found_in_whatever_holds_it():
    path = turn("user", [{"type": "image", "path": "b.png"}, {"type": "text", "text": "What?"}])
    row = {"images": ["a.png"], "prompt": [path], "chosen": np.array([path, GOOD], dtype=object), "rejected": "no"}
    assert list(image_references(row)) == ["a.png", "b.png", "b.png"]


def test_what_strings_do_not_read_is_said(tokenizer):
    row = {"prompt": "What?", "chosen": " a dog", "rejected": " a fox", "tools": "[{}]", "system": "Be brief."}
    assert preference_reader(tokenizer, "pairs")(row).unread == ("column 'tools'", "column 'system'")
