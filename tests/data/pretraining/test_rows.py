"""pretraining.py: documents from the source to the run; what is left out of them is counted, and no token is lost."""

import pytest

from tests.data.pretraining.documents import DOG, QUIET, TEXT, encoded
from tunebook import MultimodalPretrain, Trainer, TrainingConfig
from tunebook.tokens.feed import Place
from tunebook_widgets import TokenView


def test_documents_are_trained_on_and_the_loss_falls(model, folder):
    rows = [DOG, TEXT, {"text": "<image> a fox", "images": ["1.png"]}]
    config = TrainingConfig(num_train_epochs=4, learning_rate=2e-2, gradient_accumulation_steps=1, **QUIET)
    entry = MultimodalPretrain(rows, image_base_dir=folder)
    result = Trainer(model, train_dataset=entry, eval_dataset=entry, args=config).train()
    assert len(result.steps) == 8  # two batches an epoch, and no batch of two epochs
    assert result.evals[-1].loss < result.evals[0].loss


def test_rows_that_are_skipped_keep_the_numbers_of_the_others(model, folder):
    entry = MultimodalPretrain([TEXT, TEXT, DOG, TEXT], image_base_dir=folder, skip=2)
    trainer = Trainer(model, train_dataset=entry, args=TrainingConfig(**QUIET))
    assert [row.number for row in trainer.train_rows] == [2, 3]
    with pytest.raises(ValueError, match="skip is 9, and train_dataset has 4 rows"):
        Trainer(model, train_dataset=MultimodalPretrain([TEXT] * 4, skip=9))


def test_the_token_view_marks_the_text_of_a_document_and_not_its_image(model, folder):
    entry = MultimodalPretrain([TEXT, DOG], image_base_dir=folder, skip=1)
    view = repr(TokenView(Trainer(model, train_dataset=entry, args=TrainingConfig(**QUIET))))
    assert "Row 1" in view
    assert "a⟦ ⟧<fake_token_around_image>" in view
    assert "<fake_token_around_image>⟦ dog<end_of_utterance>⟧" in view


def test_samples_of_documents_are_of_rows_that_were_not_left_out(model, folder):
    rows = [{"text": "<image>", "images": ["gone.png"]}, {"text": "<image> a fox", "images": ["0.png"]}, TEXT]
    entry = MultimodalPretrain(rows, image_base_dir=folder, skip_bad_images=True)
    prompts = Trainer(model, train_dataset=entry, args=TrainingConfig(**QUIET)).data.prompts
    assert [prompt.shown for prompt in prompts] == ["(image)", TEXT["text"]]


def test_held_out_documents_have_the_numbers_of_the_source(model, folder):
    rows = [{"text": f"the dog {number} and <image>", "images": ["0.png"]} for number in range(12)]
    entry = MultimodalPretrain(rows, image_base_dir=folder, skip=2)
    trainer = Trainer(model, train_dataset=entry, args=TrainingConfig(output_dir=None, hold_out=0.3))
    numbers = [row.number for row in [*trainer.train_rows, *trainer.eval_rows]]
    assert len(trainer.eval_rows) == 3
    assert sorted(numbers) == list(range(2, 12))


def test_bad_rows_are_named_by_number_and_by_the_name_of_their_image_alone(model, folder):
    rows = [TEXT, {"text": "a <image>", "images": ["secret/gone.png"]}, DOG]
    with pytest.raises(ValueError, match=r"\(row 1\): its image 'gone\.png' is not there") as error:
        encoded(model, rows, folder)
    assert "secret" not in str(error.value)


def test_rows_with_bad_images_are_left_out_and_counted_when_asked_for(model, folder):
    (folder / "broken.png").write_bytes(b"no image")
    bad = [["gone.png"], ["broken.png"], ["../0.png"], ["http://host/a.png"], ["0.png", "1.png"]]
    rows = [TEXT, *({"text": "a <image>", "images": images} for images in bad), DOG]
    made = encoded(model, rows, folder, skip_bad_images=True)
    assert [row.number for row in made.rows] == [0, 6]
    assert made.account.bad_images == [1, 2, 3, 4, 5]
    [notice] = made.notices
    assert "5 of 7 rows of rows were left out because of their images, the first row 1: its image 'gone.png'" in notice
    with pytest.raises(ValueError, match=r"No row of rows .* 1 of 1 rows of rows were left out because of their"):
        encoded(model, rows[1:2], folder, skip_bad_images=True)
    with pytest.raises(ValueError, match=r"1 of 2 rows of .* cannot be trained on"):  # a text that is none is no image
        encoded(model, [TEXT, {"text": 3}], folder, skip_bad_images=True)


def test_a_stream_of_documents_gives_the_rows_that_a_set_of_them_gives(model, folder):
    rows = [TEXT, {"text": "a <image>", "images": ["gone.png"]}, DOG, {"text": "<image> a fox", "images": ["1.png"]}]
    entry = MultimodalPretrain(rows, image_base_dir=folder, skip=1, skip_bad_images=True)
    config = TrainingConfig(
        max_steps=3, streaming=True, dataset_order="sequential", gradient_accumulation_steps=1, **QUIET
    )
    stream = Trainer(model, train_dataset=entry, args=config).data
    whole = Trainer(model, train_dataset=entry, args=TrainingConfig(**QUIET)).data
    portions = iter(stream.feed.portions(Place()))
    first = next(portions)
    assert [row.digest for batch in first.batches for row in batch] == [row.digest for row in whole.train.rows]
    assert any("left out because of their images, the first row 1" in notice for notice in first.notices)
    assert stream.skip_unreadable
    assert whole.skip_unreadable


def test_a_document_with_images_is_dropped_and_counted_when_it_is_longer_than_the_model_reads(model, folder):
    rows = [{"text": "a <image> " + "dog " * 30, "images": ["0.png"]}, DOG]
    made = encoded(model, rows, folder, length=20)
    assert [row.number for row in made.rows] == [1]
    assert made.account.documents_beyond == [0]
    assert "1 of 2 rows of rows were left out, the first row 0: with their images" in made.notices[0]


def test_the_images_count_as_the_tokens_the_model_reads(model, folder):
    [row] = encoded(model, [DOG], folder).rows
    length = len(row.tokens)
    assert length > len(model.loaded.tokenizer.encode(DOG["text"])) + 1
    assert len(encoded(model, [DOG], folder, length=length).rows) == 1
    with pytest.raises(ValueError, match=rf"Row 0 of rows is {length} tokens .* max_seq_length is {length - 1}"):
        encoded(model, [DOG], folder, length=length - 1, excess_length_strategy="raise")


def test_a_document_of_text_alone_is_trained_in_pieces_with_no_token_lost(model, folder):
    rows = [{"text": TEXT["text"] * 3}]
    [whole] = encoded(model, rows, folder, length=500).rows
    made = encoded(model, rows, folder, length=16)
    assert made.account.in_pieces == 1
    predicted = [token for row in made.rows for token in row.tokens[1:].tolist()]
    assert predicted == whole.tokens[1:].tolist()
