"""pretraining.py: what is wrong with the settings of documents, or does not go with them, is said at once."""

import pytest

from tests.data.pretraining.documents import DOG, TEXT
from tunebook import FastModel, MultimodalPretrain, Trainer, TrainingConfig


def test_all_that_is_wrong_with_the_settings_is_said_at_once():
    with pytest.raises(ValueError) as error:  # noqa: PT011 - three sentences are looked for below
        MultimodalPretrain([], excess_length_strategy="truncate", image_base_dir="/no/folder", skip=-1)
    for said in ("may lose a part of an image", "image_base_dir is '/no/folder'", "skip is -1"):
        assert said in str(error.value)


def documents(**settings):
    return MultimodalPretrain([TEXT, DOG], **settings)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"train_dataset": documents(), "eval_dataset": [TEXT]}, "eval_dataset is not; measure with documents"),
        ({"train_dataset": [TEXT], "eval_dataset": documents()}, "train_dataset is not; train on documents"),
        ({"train_dataset": [documents(), documents()]}, "A list of MultimodalPretrain"),
        ({"train_dataset": documents(), "eval_dataset": [documents()]}, "A list of MultimodalPretrain"),
        ({"train_dataset": documents(), "args": TrainingConfig(packing=True)}, "packing is on"),
        ({"train_dataset": documents(), "args": TrainingConfig(train_on="everything")}, "every word is trained"),
        ({"train_dataset": documents(), "format": "text"}, "format cannot be given"),
        ({"train_dataset": documents(), "formatting_func": str}, "formatting_func cannot be given"),
        ({"train_dataset": documents(), "response_markers": ("a", "b")}, "response_markers cannot be given"),
        (
            {"train_dataset": documents(), "eval_dataset": documents(image_token="<global-img>")},
            "image_token is None in train_dataset and '<global-img>'",
        ),
    ],
)
def test_what_does_not_go_with_documents_is_refused(model, arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        Trainer(model, **arguments)


def test_everything_that_does_not_go_with_documents_is_said_at_once(tiny_folder):
    model, _ = FastModel.from_pretrained(tiny_folder)
    with pytest.raises(ValueError) as error:  # noqa: PT011 - three sentences are looked for below
        Trainer(model, train_dataset=documents(), format="text", args=TrainingConfig(packing=True))
    for said in ("reads text alone", "packing is on", "format cannot be given"):
        assert said in str(error.value)
