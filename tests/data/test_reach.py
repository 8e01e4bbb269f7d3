"""Which files the rows of a set may name: a person's own any, those that were loaded only what lies with them."""

import base64
import json

import datasets
import pytest

from tests.makers.tiny_vision import asked, noise_images, tiny_vision_folder
from tunebook import FastModel, MultimodalPretrain, Trainer, TrainingConfig, hold_out, read_rows
from tunebook.data.images import opened, refer
from tunebook.data.reach import Reach
from tunebook.data.sources import reach_of, stream_rows

ARGS = TrainingConfig(max_steps=1, hold_out=0)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    made, _ = FastModel.from_pretrained(tiny_vision_folder(tmp_path_factory.mktemp("qwen"), "qwen2_vl"))
    return FastModel.get_peft_model(made, r=4)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder `set` with an image, beside one that is somebody's own."""
    monkeypatch.chdir(tmp_path)
    for name in ("set/a.png", "own.png", "sets/own.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        noise_images(1)[0].save(path)
    (tmp_path / "set" / "link.png").symlink_to(tmp_path / "own.png")
    (tmp_path / "set" / "away").symlink_to(tmp_path)
    return tmp_path


def written(place, *references):
    file = place / "set" / "rows.jsonl"
    file.write_text("".join(json.dumps(asked("What?", [reference], "noise")) + "\n" for reference in references))
    return file


OUTSIDE = ["{}/own.png", "../own.png", "link.png", "away/own.png", "set/../own.png", "../sets/own.png", "own.png"]


@pytest.mark.parametrize("reference", OUTSIDE)
@pytest.mark.parametrize("streaming", [False, True])
def test_rows_of_a_file_open_nothing_outside_its_folder(reference, streaming, model, place):
    file = written(place, "a.png", reference.format(place))
    args = TrainingConfig(max_steps=1, hold_out=0, streaming=streaming)
    with pytest.raises(ValueError, match=r"own\.png'|link\.png'") as error:
        Trainer(model, train_dataset=file, args=args)
    assert "line 2" in str(error.value)
    assert "read_rows(..., image_base_dir=" in str(error.value)


@pytest.mark.parametrize("reference", ["a.png", "{}/set/a.png", "set/a.png", "./a.png"])
def test_rows_of_a_file_open_what_lies_with_it(reference, model, place):
    trainer = Trainer(model, train_dataset=written(place, reference.format(place)), args=ARGS)
    assert len(trainer.train_rows[0].images) == 1


def test_a_person_says_where_the_images_are_and_may_give_any_file_by_hand(model, place):
    rows = read_rows(written(place, "own.png"), image_base_dir=place)
    assert len(Trainer(model, train_dataset=rows, args=ARGS).train_rows) == 1
    by_hand = [asked("What?", [str(place / "own.png")], "noise")]
    assert len(Trainer(model, train_dataset=by_hand, args=ARGS).train_rows) == 1
    with pytest.raises(ValueError, match="image_base_dir is '/no/folder'"):
        read_rows(by_hand, image_base_dir="/no/folder")


def test_rows_keep_their_reach_through_splits_slices_and_streams(place):
    rows = read_rows(written(place, "a.png", "../own.png", "link.png"))
    expected = Reach(within=(place / "set",))
    train, held_out = hold_out(rows, 1)
    for some in (rows, train, held_out, rows[:2], stream_rows(rows)):
        assert (some.reach if hasattr(some, "reach") else reach_of(some)) == expected


def test_documents_of_a_file_are_below_it_or_their_own_folder_of_images(model, place):
    file = place / "set" / "documents.jsonl"
    file.write_text(json.dumps({"text": f"{model.family.placeholder} a fox", "images": [str(place / "own.png")]}))
    with pytest.raises(ValueError, match=r"'own\.png' lies outside"):
        Trainer(model, train_dataset=MultimodalPretrain(file), args=ARGS)
    allowed = MultimodalPretrain(file, image_base_dir=place)
    assert len(Trainer(model, train_dataset=allowed, args=ARGS).train_rows) == 1


@pytest.mark.parametrize("reference", ["a\0.png", "\ud800.png", "a" * 5000, "~/own.png", "file:///etc/hostname"])
def test_a_name_no_file_has_is_refused_in_a_sentence(reference, place):
    with pytest.raises(ValueError, match=r"is not there|lies outside|is an address"):
        refer(reference, Reach(within=(place / "set",)))


def test_images_of_datasets_are_not_decoded_by_the_library(place):
    features = datasets.Features({"image": datasets.Image(), "more": datasets.Sequence(datasets.Image())})
    bad = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n"
    made = datasets.Dataset.from_dict({"image": [{"bytes": bad}], "more": [[{"bytes": bad}]]}, features=features)
    [row] = read_rows(made)
    assert row["image"]["bytes"] == row["more"][0]["bytes"] == bad
    with pytest.raises(ValueError, match="PostScript"):
        opened(refer(row["image"]))
    [head] = stream_rows(made.to_iterable_dataset()).head
    assert head["image"]["bytes"] == bad


def test_a_saved_data_set_names_no_file_outside_and_one_made_here_any(place, model):
    row = {"prompt": "What?", "completion": "noise", "images": [str(place / "own.png")]}
    made = datasets.Dataset.from_list([row])
    assert len(Trainer(model, train_dataset=made, args=ARGS).train_rows) == 1
    made.save_to_disk(str(place / "saved"))
    for source in (str(place / "saved"), datasets.load_from_disk(str(place / "saved"))):
        with pytest.raises(ValueError, match=r"'own\.png' lies outside"):
            Trainer(model, train_dataset=source, args=ARGS)


def test_a_data_address_is_the_image_it_holds(place):
    content = (place / "own.png").read_bytes()
    whole = "data:image/png;base64," + base64.b64encode(content).decode()
    assert refer(whole).source == content
    for torn in ("data:image/png;base64,???", "data:image/png"):
        with pytest.raises(ValueError, match="data: address that is not whole"):
            refer(torn)
