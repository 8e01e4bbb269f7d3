"""Images as files of many kinds: read right, or refused in one sentence that names them."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, features

from tests.makers.tiny_vision import asked, noise_images, tiny_vision_folder
from tunebook import FastModel, MultimodalPretrain, Trainer, TrainingConfig
from tunebook.data.decoders import FORMATS
from tunebook.data.images import looked_at, opened, refer, size_of

RAMP = np.tile(np.linspace(0, 1, 64), (48, 1))  # from black on the left to white on the right


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_of_size(width, height, body=b""):
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


def seen(image_or_bytes):
    return np.asarray(opened(refer(image_or_bytes))).astype(float)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    made, _ = FastModel.from_pretrained(tiny_vision_folder(tmp_path_factory.mktemp("qwen"), "qwen2_vl"))
    return FastModel.get_peft_model(made, r=4)


@pytest.mark.parametrize("kind", FORMATS)
def test_an_image_of_every_kind_that_is_meant_is_read_whatever_it_is_called(kind, tmp_path):
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    smooth = Image.fromarray((RAMP[..., None] * [255, 128, 0]).astype(np.uint8))
    path = tmp_path / "called.eps"
    path.write_bytes(saved(smooth, kind.upper()))
    image = looked_at(refer(path))
    assert image.size == size_of(refer(path)) == (64, 48)
    assert np.abs(np.asarray(opened(image)).astype(float) - np.asarray(smooth)).mean() < 8  # GIF has 256 colours


def of_frames(kind, count):
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    first, *more = [Image.new("RGB", (64, 48), color) for color in ("red", "green", "blue")[:count]]
    return saved(first, kind, **({"save_all": True, "append_images": more} if more else {}))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_of_several_frames_or_pages_the_first_is_read_and_it_is_known_that_there_are_more(kind):
    assert not looked_at(refer(of_frames(kind, 1))).has_more
    several = of_frames(kind, 3)
    assert looked_at(refer(several)).has_more
    assert np.abs(seen(several) - [255, 0, 0]).max() < 12
    with Image.open(io.BytesIO(several)) as own:
        assert looked_at(refer(own)).has_more
        assert np.abs(seen(own) - [255, 0, 0]).max() < 12


def test_what_a_phone_keeps_behind_a_photograph_is_no_frame_of_it():
    assert not looked_at(refer(of_frames("MPO", 2))).has_more


@pytest.mark.parametrize("kind", ["GIF", "TIFF"])
def test_a_first_frame_is_read_whatever_is_damaged_behind_it(kind):
    several = of_frames(kind, 3)
    whole = looked_at(refer(several[: len(several) * 3 // 4]))
    assert whole.size == (64, 48)


@pytest.mark.parametrize("streaming", [False, True])
def test_frames_that_are_not_read_are_said_once_a_set_with_their_count(streaming, model, tmp_path):
    for name, frames in {"still.gif": 1, "moving.gif": 3}.items():
        (tmp_path / name).write_bytes(of_frames("GIF", frames))
    names = ["still.gif", "moving.gif", "still.gif", "moving.gif"]
    rows = [asked("What?", [str(tmp_path / name)], "noise") for name in names]
    documents = [{"text": f"{model.family.placeholder} a fox", "images": [name]} for name in names]
    args = TrainingConfig(max_steps=1, hold_out=0, streaming=streaming)
    said = (
        "of the 4 rows of train_dataset this is not read, and changes nothing: what follows the first frame or page of "
    )
    for given in (rows, MultimodalPretrain(documents, image_base_dir=tmp_path)):
        notices = Trainer(model, train_dataset=given, args=args).data.train.notices
        assert [notice.lower() for notice in notices] == [said + "an image (2, first row 1)."]


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "PostScript"),
        (b"\xc5\xd0\xd3\xc6" + bytes(60), "PostScript"),
        (b"%PDF-1.4\n" + bytes(60), "PDF"),
        (b"8BPS\0\1" + bytes(60), "Photoshop"),
        (b"icns" + bytes(60), "Mac icon"),
        (b"SIMPLE  =                    T" + bytes(60), "FITS"),
        (b"\xd7\xcd\xc6\x9a" + bytes(60), "metafile"),
        (bytes(4) + b"ftypheic" + bytes(60), "HEIC"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"<!DOCTYPE html><title>404</title>", "HTML"),
        (b"P6 4 4 255\n" + bytes(48), "PPM"),
        (b"no image at all", "no kind of image"),
        (b"", "empty"),
    ],
)
def test_what_is_meant_for_no_decoder_here_is_named_and_reaches_none(content, named, monkeypatch, tmp_path):
    called = tmp_path / "called"
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {called}\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(ValueError, match=named):
        opened(refer(content))
    assert not called.exists()


def test_every_other_format_pillow_can_write_is_refused(tmp_path):
    refused = []
    Image.init()
    for kind in sorted(set(Image.SAVE) - {name.upper() for name in FORMATS} - {"DIB", "MPO", "PDF"}):
        try:
            content = saved(Image.new("RGB", (8, 8), "red"), kind)
        except (OSError, ValueError, KeyError, TypeError):
            continue
        with pytest.raises(ValueError, match="cannot be opened"):
            opened(refer(content))
        refused.append(kind)
    assert {"EPS", "ICO", "PCX", "PPM", "TGA", "SGI", "IM", "MSP"} & set(refused)


@pytest.mark.parametrize("size", [(20_000, 20_000), (10_000, 10_000), (1, 2**31 - 1)])
def test_an_image_beyond_the_limit_is_a_bad_image_with_its_size(size):
    with pytest.raises(ValueError, match=f"{size[0]} x {size[1]} pixels, and at most 89 million"):
        size_of(refer(png_of_size(*size)))


def test_a_person_may_raise_the_limit(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30)
    content = saved(Image.new("RGB", (6, 6)), "PNG")
    with pytest.raises(ValueError, match="6 x 6 pixels"):
        opened(refer(content))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 36)
    assert opened(refer(content)).size == (6, 6)


@pytest.mark.parametrize("streaming", [False, True])
def test_documents_with_bombs_and_torn_images_are_left_out_and_counted_like_any_other_bad_one(
    streaming, model, tmp_path
):
    good, whole = noise_images(1)[0], saved(noise_images(1, size=(64, 48))[0], "JPEG")
    good.save(tmp_path / "good.png")
    for name, content in {"bomb.png": png_of_size(20_000, 20_000), "cut.jpg": whole[:700], "x.png": b"%!PS-A"}.items():
        (tmp_path / name).write_bytes(content)
    names = ["good.png", "bomb.png", "good.png", "cut.jpg", "x.png", "good.png"]
    documents = [{"text": f"{model.family.placeholder} a fox {i}", "images": [name]} for i, name in enumerate(names)]
    given = MultimodalPretrain(documents, image_base_dir=tmp_path, skip_bad_images=True)
    args = TrainingConfig(max_steps=1, hold_out=0, streaming=streaming, per_device_train_batch_size=1)
    trainer = Trainer(model, train_dataset=given, args=args)
    assert trainer.data.train.account.bad_images == [1, 3, 4]
    strict = MultimodalPretrain(documents, image_base_dir=tmp_path)
    with pytest.raises(
        ValueError, match=r"(?s)3 of 6 rows of .* cannot be trained on:.*- row 1: .*- row 3: .*- row 4: "
    ):
        Trainer(model, train_dataset=strict, args=args)


@pytest.mark.parametrize(
    ("kind", "cut"), [("JPEG", 700), ("PNG", 900), ("WebP", 200), ("GIF", 1200), ("BMP", 900), ("TIFF", 900)]
)
def test_an_image_cut_short_is_named_with_its_row_before_the_first_step(kind, cut, model, tmp_path):
    content = saved(noise_images(1, size=(64, 48))[0], kind.upper())
    assert len(content) > cut
    (tmp_path / "whole").write_bytes(content)
    (tmp_path / "cut").write_bytes(content[:cut])
    rows = [asked("What?", [str(tmp_path / name)], "noise") for name in ("whole", "cut")]
    with pytest.raises(ValueError, match=r"1 of 2 rows of .* cannot be trained on \(rows? 1\b.*\): image 'cut'"):
        Trainer(model, train_dataset=rows, args=TrainingConfig(max_steps=1, hold_out=0))


def test_a_shape_the_processor_refuses_is_named_with_its_row_before_the_first_step(model):
    rows = [asked("What?", [image], "noise") for image in (noise_images(1)[0], Image.new("RGB", (3000, 10)))]
    with pytest.raises(ValueError, match=r"1 of 2 rows .*\(rows? 1\b.*3000 x 10 pixels"):
        Trainer(model, train_dataset=rows, args=TrainingConfig(max_steps=1, hold_out=0))


def test_an_image_without_pixels_and_one_torn_in_memory_are_refused(tmp_path):
    (tmp_path / "cut.jpg").write_bytes(saved(noise_images(1, size=(64, 48))[0], "JPEG")[:700])
    with pytest.raises(ValueError, match="0 x 5 pixels"):
        refer(Image.new("RGB", (0, 5)))
    with Image.open(tmp_path / "cut.jpg") as torn, pytest.raises(ValueError, match="damaged or cut short"):
        refer(torn)


def test_looking_at_a_persons_own_image_leaves_it_as_large_as_it_is(tmp_path):
    noise_images(1, size=(640, 480))[0].save(tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as own:
        looked_at(refer(own))
        assert own.size == (640, 480)


DEEP = {
    "16-bit grey": ((RAMP * 65535).astype(np.uint16), "PNG"),
    "16-bit grey, TIFF": ((RAMP * 65535).astype(np.uint16), "TIFF"),
    "8 bits in 16": ((RAMP * 255).astype(np.uint16), "PNG"),
    "12 bits in 16": ((RAMP * 4095).astype(np.uint16), "PNG"),
    "32-bit": ((RAMP * 1e6).astype(np.int32), "TIFF"),
    "negative": ((RAMP * 2000 - 1000).astype(np.int32), "TIFF"),
    "shares": (RAMP.astype(np.float32), "TIFF"),
    "metres": ((RAMP * 80 + 300).astype(np.float32), "TIFF"),
    "enormous": ((RAMP * 3e38).astype(np.float32), "TIFF"),
}


@pytest.mark.parametrize("name", DEEP)
def test_a_ramp_of_more_than_eight_bits_stays_a_ramp(name):
    values, kind = DEEP[name]
    grey = seen(saved(Image.fromarray(values), kind))[..., 0]
    assert np.corrcoef(grey.ravel(), RAMP.ravel())[0, 1] > 0.99
    assert (np.diff(grey[0]) >= 0).all()


def test_sixteen_bits_are_scaled_by_their_range_and_big_endian_ones_too():
    for dtype in ("<u2", ">u2"):
        image = Image.fromarray(np.array([[0, 257, 32896, 65535]], dtype=dtype))
        assert seen(saved(image, "TIFF"))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_numbers_that_are_not_finite_are_black_or_the_nearest_and_none_at_all_is_refused():
    values = np.array([[0.0, 0.5, 1.0, np.nan, np.inf, -np.inf]], dtype=np.float32)
    assert seen(saved(Image.fromarray(values), "TIFF"))[0, :, 0].tolist() == [0, 128, 255, 0, 255, 0]
    with pytest.raises(ValueError, match="no finite number"):
        seen(saved(Image.fromarray(np.full((2, 2), np.nan, dtype=np.float32)), "TIFF"))


def test_what_is_transparent_is_seen_on_white():
    drawing = Image.new("RGBA", (4, 4), (0, 0, 0, 0))  # black lines on nothing would be black on black
    drawing.putpixel((1, 1), (0, 0, 0, 255))
    palette = drawing.convert("RGB").convert("P")
    for content in (saved(drawing, "PNG"), saved(drawing.convert("LA"), "PNG"), saved(drawing, "WEBP", lossless=True)):
        grey = seen(content)[..., 0]
        assert grey[1, 1] == 0
        assert grey[0, 0] == 255
    assert (seen(saved(palette, "PNG", transparency=palette.getpixel((0, 0)))) == 255).all()


def _in(mode):
    return Image.new(mode, (4, 4)) if mode == "LAB" else noise_images(1)[0].convert(mode)


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "HSV", "LAB", "RGBX"])
def test_an_image_in_any_other_colours_is_read(mode):
    assert opened(refer(_in(mode))).mode == "RGB"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_way_a_camera_was_held_gives_the_size_and_pixels_a_viewer_shows(orientation):
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    content = saved(noise_images(1, size=(30, 20))[0], "PNG", exif=exif)
    with Image.open(io.BytesIO(content)) as image:
        expected = ImageOps.exif_transpose(image)
    assert looked_at(refer(content)).size == size_of(refer(content)) == expected.size
    assert np.array_equal(seen(content), np.asarray(expected))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")  # Pillow says it too, and goes on
def test_exif_that_cannot_be_read_turns_nothing():
    content = saved(noise_images(1)[0], "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff\xff")
    assert opened(refer(content)).size == (40, 40)
