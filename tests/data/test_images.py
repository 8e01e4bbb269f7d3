import io

import numpy as np
import pytest
from PIL import Image

from tests.makers.tiny_vision import noise_images
from tunebook.data.images import opened, refer, size_of


def png(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def test_an_image_is_the_same_from_a_path_bytes_a_pil_image_and_what_datasets_holds(tmp_path):
    [image] = noise_images(1)
    path = tmp_path / "a.png"
    path.write_bytes(png(image))
    for value in (path, str(path), png(image), image, {"bytes": png(image), "path": None}, {"path": str(path)}):
        assert np.array_equal(np.array(opened(refer(value))), np.array(image))
        assert size_of(refer(value)) == (40, 40)


def test_a_photograph_is_turned_as_its_exif_says_and_its_size_with_it(tmp_path):
    [image] = noise_images(1, size=(30, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it by 90 degrees to see it upright
    image.save(tmp_path / "a.png", exif=exif)
    image = refer(tmp_path / "a.png")
    assert size_of(image) == opened(image).size == (20, 30)


def test_an_image_is_three_colours_whatever_the_file_has():
    assert opened(refer(Image.new("LA", (4, 4)))).mode == "RGB"


def test_a_file_that_was_changed_since_it_was_read_is_reported(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png(noise_images(1)[0]))
    image = refer(path)
    path.write_bytes(png(noise_images(1, size=(50, 50))[0]))
    with pytest.raises(ValueError, match=r"'a\.png' was changed since"):
        opened(image)


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("https://host/a.png", "is an address"),
        ("/nowhere/secret/a.png", r"'a\.png' is not there"),
        (3, "is a int"),
        ({"size": 3}, "neither 'bytes' nor 'path'"),
    ],
)
def test_what_is_no_image_here_is_refused(value, complaint):
    with pytest.raises(ValueError, match=complaint) as error:
        refer(value)
    assert "secret" not in str(error.value)


def test_a_message_about_a_broken_file_names_the_file_and_no_folder(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"'broken\.png' cannot be opened") as error:
        opened(refer(tmp_path / "broken.png"))
    assert str(tmp_path) not in str(error.value)


def test_images_are_told_apart_by_what_they_show():
    one, other = noise_images(2)
    assert refer(one).digest == refer(one.copy()).digest != refer(other).digest
