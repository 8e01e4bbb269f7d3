"""pretraining.py: documents as a person gives them, up to the batch; what is left out of them, and what is kept."""

import http.server
import shutil
import threading
from dataclasses import replace

import pytest

from tests.makers.tiny_vision import pictures, tiny_vision_folder
from tunebook import FastModel, MultimodalPretrain, Trainer, TrainingConfig
from tunebook.data import images, remote_images
from tunebook.data.opened import ReadingOptions, opened
from tunebook.data.reach import Reach
from tunebook.data.row_kinds import row_kind
from tunebook.tokens import encoding, token_cache
from tunebook.tokens.encoding import encode, encode_rows
from tunebook.tokens.feed import Place
from tunebook.tokens.stored_rows import EncodedRows
from tunebook_widgets import TokenView

QUIET = {"output_dir": None, "hold_out": 0}
DOG = {"text": "a <image> dog", "images": ["0.png"]}
TEXT = {"text": "the quick brown fox jumps over the lazy dog"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    model, _ = FastModel.from_pretrained(tiny_vision_folder(tmp_path_factory.mktemp("smol"), "smolvlm"))
    return FastModel.get_peft_model(model, r=2, lora_alpha=4)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, image in enumerate(pictures(3)):
        image.save(folder / f"{number}.png")
    return folder


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache folder of the test's own, used for sets of three rows already."""
    monkeypatch.setenv("TUNEBOOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(encoding, "CACHED_ROWS", 3)
    return tmp_path / "cache" / token_cache.FOLDER


def encoded(model, rows, folder, *, length=64, reach=None, **settings):
    entry = MultimodalPretrain(rows, image_base_dir=folder, **settings)
    held = opened(rows, ReadingOptions(documents=entry))
    held = held if reach is None else replace(held, reach=reach)
    return encode(held, model.loaded, max_seq_length=length)


def with_this_machine(folder=None):
    return Reach(folder=folder, remote=True, allows=lambda host: host == "127.0.0.1")


def as_lists(made):
    return [(row.tokens.tolist(), row.loss_mask.tolist(), row.number, row.images, row.images_end) for row in made.rows]


def entries(cache):
    return sorted(path.name for path in cache.iterdir()) if cache.exists() else []


# Settings


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


# From the source to the run


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
    with pytest.raises(ValueError, match=r"first: row 1\): 1x its image 'gone\.png' is not there") as error:
        encoded(model, rows, folder)
    assert "secret" not in str(error.value)


def test_rows_with_bad_images_are_left_out_and_counted_when_asked_for(model, folder):
    (folder / "broken.png").write_bytes(b"no picture")
    bad = [["gone.png"], ["broken.png"], ["../0.png"], ["http://host/a.png"], ["0.png", "1.png"]]
    rows = [TEXT, *({"text": "a <image>", "images": images} for images in bad), DOG]
    made = encoded(model, rows, folder, skip_bad_images=True)
    assert [row.number for row in made.rows] == [0, 6]
    assert made.account.bad_images == [1, 2, 3, 4, 5]
    [notice] = made.notices
    assert "5 of 7 rows of rows were left out because of their images, the first row 1: its image 'gone.png'" in notice
    with pytest.raises(ValueError, match=r"No row of rows .* 1 of 1 rows of rows were left out because of their"):
        encoded(model, rows[1:2], folder, skip_bad_images=True)
    with pytest.raises(ValueError, match="1 of 2 rows cannot be trained on"):  # a text that is none is no image
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


# Length: what the model reads, with its images written out


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


# Where images may be


def test_a_path_or_a_link_may_not_lead_out_of_the_folder(folder, tmp_path):
    pictures(1)[0].save(tmp_path / "outside.png")
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    (folder / "inside.png").symlink_to(folder / "0.png")
    for value in ("../outside.png", str(tmp_path / "outside.png"), "link.png", "sub/../../outside.png"):
        with pytest.raises(ValueError, match=r"'(outside|link)\.png' lies outside") as error:
            images.refer(value, folder=folder)
        assert str(tmp_path) not in str(error.value)
    for value in ("0.png", "inside.png", str(folder / "0.png"), "sub/../0.png"):
        assert images.size_of(images.refer(value, folder=folder)) == (40, 40)


@pytest.fixture
def server(folder, monkeypatch, tmp_path):
    """The address of `folder`, and the paths it was asked for."""
    monkeypatch.setenv("TUNEBOOK_CACHE", str(tmp_path / "cache"))
    asked = []

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *given):
            super().__init__(*given, directory=str(folder))

        def do_GET(self):
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *given):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()
    thread.join()


def test_an_address_is_fetched_once_and_only_when_that_is_allowed(model, folder, server):
    address, asked = server
    rows = [{"text": "a <image> dog", "images": [f"{address}/0.png?key=secret"]}]
    with pytest.raises(ValueError, match=r"'0\.png' is an address"):
        encoded(model, rows, folder)
    assert asked == []
    for _ in range(2):
        [row] = encoded(model, rows, folder, reach=with_this_machine(folder)).rows
    assert asked == ["/0.png?key=secret"]
    [local] = encoded(model, [DOG], folder).rows
    assert row.tokens.tolist() == local.tokens.tolist()
    assert images.opened(row.images[0]).tobytes() == images.opened(local.images[0]).tobytes()


@pytest.mark.parametrize(
    ("path", "complaint"),
    [("gone.png", r"'gone\.png' could not be fetched"), ("page.png", "a page of HTML"), ("2.png", "larger than 0 MB")],
)
def test_what_cannot_be_fetched_is_reported_and_not_kept(folder, server, monkeypatch, path, complaint):
    (folder / "page.png").write_text("<html></html>")
    if path == "2.png":
        monkeypatch.setattr(remote_images, "MOST_BYTES", 100)
    address, _ = server
    with pytest.raises(ValueError, match=complaint) as error:
        images.refer(f"{address}/{path}", with_this_machine())
    assert address not in str(error.value)
    assert not remote_images.place_of(f"{address}/{path}").exists()


@pytest.mark.parametrize("address", ["file:///etc/hostname.png", "ftp://host/a.png"])
def test_only_http_is_fetched(address):
    with pytest.raises(ValueError, match="neither http nor https"):
        images.refer(address, remote=True)


# What is kept


ROWS = [DOG, TEXT, {"text": "<image> a <image>", "images": ["1.png", "2.png"]}, {"text": "a dog", "images": []}]


def test_a_set_with_images_is_encoded_once_and_then_opens_none(model, folder, cache, monkeypatch):
    rows = [*ROWS, {"text": "a <image>", "images": ["gone.png"]}]
    plain = encoded(model, rows[:2], folder)
    first = encoded(model, rows, folder, skip_bad_images=True)
    assert isinstance(first.rows, EncodedRows)
    assert as_lists(first)[:2] == as_lists(plain)
    assert [picture.reference for picture in first.rows[2].images] == ["1.png", "2.png"]
    assert images.opened(first.rows[2].images[1]).size == (40, 40)
    for name in ("check_whole", "decoded", "upright_size"):
        monkeypatch.setattr(images, name, lambda source: pytest.fail("an image was opened"))
    second = encoded(model, rows, folder, skip_bad_images=True)
    assert as_lists(second) == as_lists(first)
    assert second.notices == first.notices != []
    config = TrainingConfig(max_seq_length=64, **QUIET)
    entry = MultimodalPretrain(rows, image_base_dir=folder, skip_bad_images=True)
    trainer = Trainer(model, train_dataset=entry, args=config)
    assert [row.number for row in trainer.train_rows] == [0, 1, 2, 3]
    assert len(entries(cache)) == 1


def test_the_folder_of_images_may_move(model, folder, cache, tmp_path):
    first = encoded(model, ROWS, folder)
    folder.rename(tmp_path / "moved")
    moved = encoded(model, ROWS, tmp_path / "moved")
    assert len(entries(cache)) == 1
    assert [row.digest for row in moved.rows] == [row.digest for row in first.rows]
    assert images.opened(moved.rows[0].images[0]).size == (40, 40)
    with pytest.raises(ValueError, match="was changed since"):
        images.opened(first.rows[0].images[0])


def processor_of(model):
    return model.family.processor


CHANGES = {
    "an image": lambda model, folder, patch: pictures(1, size=(50, 50))[0].save(folder / "1.png"),
    "the splitting": lambda model, folder, patch: patch.setattr(
        processor_of(model).image_processor, "do_image_splitting", True
    ),
    "the tokens of an image": lambda model, folder, patch: patch.setattr(processor_of(model), "image_seq_len", 9),
    "the size": lambda model, folder, patch: patch.setattr(
        processor_of(model).image_processor, "max_image_size", {"longest_edge": 56}
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_the_tokens_of_an_image_follow_from_is_in_the_key(model, folder, cache, monkeypatch, change):
    rows = [dict(row) for row in ROWS]

    def key():
        entry = MultimodalPretrain(rows, image_base_dir=folder)
        held, family = opened(rows, ReadingOptions(documents=entry)), model.loaded.family
        given = encoding._with_images(held, row_kind(held, model.loaded.tokenizer, family.placeholder))
        return token_cache.key_of(given, model.loaded, [entry.as_plain])

    before = key()
    assert key() == before
    CHANGES[change](model, folder, monkeypatch)
    assert key() != before


@pytest.mark.parametrize(
    "settings", [{"image_token": "<global-img>"}, {"skip_bad_images": True}, {"excess_length_strategy": "raise"}]
)
def test_the_settings_of_documents_are_in_the_key(settings):
    assert MultimodalPretrain([], **settings).as_plain != MultimodalPretrain([]).as_plain


def test_another_tokenizer_is_another_entry(model, folder, cache, tmp_path):
    encoded(model, ROWS, folder)
    other, _ = FastModel.from_pretrained(tiny_vision_folder(tmp_path / "other", "smolvlm"))
    encoded(other, ROWS, folder)
    assert len(entries(cache)) == 1
    other.loaded.tokenizer.add_tokens(["<new>"])
    encoded(other, ROWS, folder)
    assert len(entries(cache)) == 2


@pytest.mark.parametrize("name", ["references.utf8", "digests.bin"])
def test_a_torn_entry_is_made_again(model, folder, cache, name):
    first = as_lists(encoded(model, ROWS, folder))
    file = next(cache.iterdir()) / name
    file.write_bytes(file.read_bytes()[:-1])
    assert as_lists(encoded(model, ROWS, folder)) == first


def test_an_entry_without_images_has_no_files_for_them(model, folder, cache):
    encoded(model, [TEXT] * 3, folder)
    [entry] = cache.iterdir()
    assert sorted(path.name for path in entry.iterdir()) == [
        *("facts.json", "index.npz", "masks.bool", "seal.json", "tokens.int32")
    ]


def test_conversations_whose_images_are_files_are_kept_as_well(model, folder, cache):
    path = str(folder / "0.png")
    turns = [{"role": "user", "content": [{"type": "image", "image": path}]}, {"role": "assistant", "content": "a dog"}]
    in_column = [{"role": "user", "content": "<image> What?"}, {"role": "assistant", "content": "a fox"}]
    rows = [{"messages": turns}, {"messages": in_column, "images": [path]}, {"messages": turns}]
    first = encode_rows(rows, model.loaded, max_seq_length=64)
    assert as_lists(encode_rows(rows, model.loaded, max_seq_length=64)) == as_lists(first)
    assert len(entries(cache)) == 1
    pictures(1, size=(50, 50))[0].save(path)
    encode_rows(rows, model.loaded, max_seq_length=64)
    assert len(entries(cache)) == 2
    shutil.rmtree(cache)
