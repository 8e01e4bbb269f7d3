"""What becomes of the images of a row before any model sees them."""

import pytest

from tests.makers.tiny_vision import SMOL_TEMPLATE, asked, noise_images, tiny_vision_folder
from tunebook import FastModel
from tunebook.data.examples import Example, Image, Text
from tunebook.data.formats import FORMATS, to_examples
from tunebook.data.formats.row_images import Placing
from tunebook.data.images import refer
from tunebook.models.generation import as_prompt


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    return FastModel.from_pretrained(tiny_vision_folder(tmp_path_factory.mktemp("qwen"), "qwen2_vl"))[0]


@pytest.fixture(scope="module")
def smol(tmp_path_factory):
    return FastModel.from_pretrained(tiny_vision_folder(tmp_path_factory.mktemp("smol"), "smolvlm"))[0]


def read(model, *rows, **options):
    return list(to_examples(rows, model.loaded.tokenizer, placeholder=model.family.placeholder, **options))


def seen(example):
    """The example's text with [n] for the image of n pixels' width."""
    parts = (f"[{part.image.source.width}]" if isinstance(part, Image) else part.text for part in example.parts)
    return "".join(parts)


def sized(*widths):
    return [noise_images(1, size=(width, 60))[0] for width in widths]


def turn(role, content):
    return {"role": role, "content": content}


ANSWER = turn("assistant", "a dog")
QUESTION = [{"type": "image"}, {"type": "text", "text": "What?"}]
READ = "<|im_start|>user\n<|vision_start|>[60]<|vision_end|>What?<|im_end|>\n<|im_start|>assistant\na dog<|im_end|>\n"

WAYS = {
    "parts": asked("What?", sized(60), "a dog"),
    "column": {"messages": [turn("user", QUESTION), ANSWER], "images": sized(60)},
    "marker": {"messages": [turn("user", "<image>What?"), ANSWER], "image": sized(60)[0]},
    "no place": {"messages": [turn("user", "What?"), ANSWER], "images": sized(60)},
    "sharegpt": {
        "conversations": [{"from": "human", "value": "<image>What?"}, {"from": "gpt", "value": "a dog"}],
        "images": sized(60),
    },
    "strings": {"prompt": "What?", "completion": "a dog", "images": sized(60)},
    "turns": {"prompt": [turn("user", QUESTION)], "completion": [ANSWER], "images": sized(60)},
    "placeholder": {
        "messages": [turn("user", "<|vision_start|><|image_pad|><|vision_end|>What?"), ANSWER],
        "images": sized(60),
    },
}


@pytest.mark.parametrize("row", WAYS.values(), ids=WAYS)
def test_every_way_to_write_an_image_gives_the_same_example(qwen, row):
    assert seen(*read(qwen, row)) == READ


def test_images_in_messages_win_over_the_column(qwen):
    [example] = read(qwen, asked("What?", sized(60), "a dog") | {"images": sized(99)})
    assert seen(example) == READ


def test_a_column_that_its_format_does_not_read_has_no_places(qwen):
    row = {**asked("What?", sized(60), "a dog"), "text": "an <|image_pad|> of its own"}
    [example] = read(qwen, row, format="messages")
    assert seen(example) == READ


def test_the_column_fills_the_places_that_bring_no_image_in_order(qwen):
    first, second = sized(61, 63)
    parts = [{"type": "image"}, {"type": "image", "image": sized(62)[0]}, {"type": "image"}]
    [example] = read(qwen, {"messages": [turn("user", parts), ANSWER], "images": [first, second]})
    assert [part.image.source.width for part in example.parts if isinstance(part, Image)] == [61, 62, 63]


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        (
            {"messages": [turn("user", [{"type": "image"}] * 2), ANSWER], "images": sized(60)},
            "1 images and 2 places",
        ),
        ({"messages": [turn("user", "<|image_pad|>What?"), ANSWER]}, "0 images and 1 places"),
        ({"messages": [turn("user", "<image>What?"), ANSWER], "images": sized(60, 61)}, "2 images and 1 places"),
        (
            {"messages": [turn("user", "What?"), turn("assistant", [{"type": "image", "image": sized(60)[0]}])]},
            "an answer with an image",
        ),
        (
            {"messages": [turn("user", "What?"), turn("assistant", "<|image_pad|>")], "images": sized(60)},
            "an answer holds",
        ),
        (asked("What?", ["/nowhere/a.png"], "a dog"), r"'a\.png' is not there"),
        (asked("What?", ["https://host/a.png"], "a dog"), "is an address"),
        ({"messages": [turn("user", [{"type": "video", "video": "a.mp4"}]), ANSWER]}, "reads text and images"),
        ({"input_ids": [7, 5, 8]}, "speaks of images"),
    ],
)
def test_a_row_whose_images_cannot_be_told_is_refused(qwen, row, complaint):
    with pytest.raises(ValueError, match=complaint):
        read(qwen, row)


def test_a_marker_in_a_row_without_images_is_a_text_like_any_other(qwen):
    [example] = read(qwen, {"messages": [turn("user", "What is <image> in HTML?"), ANSWER]})
    assert "What is <image> in HTML?" in seen(example)


def test_a_text_model_refuses_image_parts(model):
    with pytest.raises(ValueError, match="this is a text model"):
        list(to_examples([asked("What?", sized(60), "a dog")], model.loaded.tokenizer))


def test_placeholders_are_counted_as_tokens_and_not_as_strings(smol):
    tokenizer = smol.loaded.tokenizer
    tokenizer.add_tokens(["<image>_soft"], special_tokens=True)
    placing = Placing(tokenizer, "<image>", None)
    row, found = placing.take({"text": "a <image>_soft, a <image>", "images": sized(60)}, FORMATS["text"])
    assert len(found) == 1
    example = placing.put_back(Example(parts=(Text(row["text"], supervised=True),), rendered=False), found)
    assert [type(part) for part in example.parts] == [Text, Image]


def test_a_template_that_leaves_image_parts_out_gets_the_placeholder_in_the_text(tmp_path):
    template = SMOL_TEMPLATE.replace("<image>", "")
    folder = tiny_vision_folder(tmp_path, "smolvlm")
    model, _ = FastModel.from_pretrained(folder, chat_template=template)
    [example] = read(model, asked("What?", sized(60), "a dog"))
    assert "user: [60]What?" in seen(example)


def test_raw_text_may_hold_images_and_is_trained_around_them(smol):
    [example] = read(smol, {"text": "a dog <image> and more", "images": sized(60)})
    assert seen(example) == "a dog [60] and more"
    [row] = smol.family.encode([example])
    said = smol.loaded.tokenizer.decode(row.tokens[row.loss_mask].tolist())
    assert said == "a dog  and more<end_of_utterance>"


def test_a_prompt_with_an_image_is_rendered_up_to_the_answer(qwen):
    prompt = as_prompt(asked("What?", sized(60), "")["messages"][:1], qwen.loaded.tokenizer, qwen.family.placeholder)
    assert prompt.shown == "(image)What?"
    assert seen(prompt.example).endswith("[60]<|vision_end|>What?<|im_end|>\n<|im_start|>assistant\n")
    assert refer(sized(60)[0]).digest == next(p for p in prompt.example.parts if isinstance(p, Image)).image.digest
