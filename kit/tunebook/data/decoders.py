"""The one door images are decoded behind: a file, bytes or a PIL image goes in, an opened image or RGB comes out.

Only the decoders of FORMATS are ever called, whatever a file is named: Pillow knows more than forty, of which one
starts Ghostscript. What cannot be decoded, or is larger than Pillow's own limit, is a BadImage that says why.
"""

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageFile
from PIL.AvifImagePlugin import SUPPORTED as HAS_AVIF
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import jpeg_factory
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

Source = Path | bytes | Image.Image


class Whole(NamedTuple):
    """An image that was decoded to its end."""

    size: tuple[int, int]  # (width, height), upright
    has_more: bool  # frames of an animation or pages behind the one that is read


class BadImage(ValueError):
    """What is wrong with an image, to follow its name in a sentence."""


# A name, and how it is opened. The photographs of phones that Pillow calls MPO are JPEG files with others behind.
FORMATS: dict[str, Callable[[Any], ImageFile.ImageFile]] = {
    "PNG": PngImageFile,
    "JPEG": jpeg_factory,
    "WebP": WebPImageFile,
    "GIF": GifImageFile,
    "BMP": BmpImageFile,
    "TIFF": TiffImageFile,
    "AVIF": AvifImageFile,
}
WITH_FRAMES = (PngImageFile, WebPImageFile, GifImageFile, TiffImageFile, AvifImageFile)  # or with pages
HEAD_BYTES = 64
# How files begin (their own specifications); a dot of the pattern is any byte. The first that fits is taken.
SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"RIFF....WEBP", "WebP"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"....ftypavif", "AVIF"),
    (b"....ftypavis", "AVIF"),
    # And what people have that is not opened, so that it can be named.
    (b"....ftyp", "HEIC, or a film"),
    (b"%!PS", "PostScript"),
    (b"\xc5\xd0\xd3\xc6", "PostScript"),
    (b"%PDF", "PDF"),
    (b"8BPS", "a Photoshop file"),
    (b"....jP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"....JXL ", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"icns", "a Mac icon"),
    (b"\0\0\1\0", "a Windows icon"),
    (b"\0\0\2\0", "a Windows cursor"),
    (b"SIMPLE  =", "FITS"),
    (b"\xd7\xcd\xc6\x9a", "a Windows metafile"),
    (b"\1\0\0\0", "a Windows metafile"),
    (b"DDS ", "DDS"),
    (b"<svg", "SVG"),
    (b"<?xml", "SVG or XML"),
    (b"<!DOCTYPE", "a page of HTML"),
    (b"<!doctype", "a page of HTML"),
    (b"<html", "a page of HTML"),
    (b"P1", "PBM"),
    (b"P2", "PGM"),
    (b"P3", "PPM"),
    (b"P4", "PBM"),
    (b"P5", "PGM"),
    (b"P6", "PPM"),
    (b"Pf", "PFM"),
    (b"PF", "PFM"),
    (b"\n\5\1", "PCX"),
)
# What Pillow's decoders raise for files that are damaged or made to harm; its own `open` answers a part of them.
DAMAGES = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    ArithmeticError,
    MemoryError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    UserWarning,  # raised where a person has made errors of warnings
    Image.DecompressionBombWarning,
)
# How an image is made upright, by its orientation (Exif 2.32, tag 0x0112).
TURNS: dict[int, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = (5, 6, 7, 8)  # orientations in which width and height change places
WIDE = (
    "I",
    "F",
    "I;16",
    "I;16L",
    "I;16B",
    "I;16N",
)  # modes of which Pillow cuts off what is above 255


@contextmanager
def opened_image(source: Source) -> Iterator[Image.Image]:
    """The image with its head read; what is done with it within may raise as a decoder does. Raises BadImage."""
    try:
        if isinstance(source, Image.Image):
            _check_size(source)
            yield source
            return
        with _decoder(source)(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            _check_size(image)
            yield image
    except BadImage:
        raise
    except FileNotFoundError:
        raise BadImage("is not there any more") from None
    except DAMAGES as error:
        raise BadImage(f"is damaged or cut short ({_said(error)})") from None


def check_whole(source: Source) -> Whole:
    """The upright image, all of which was decoded, small where that is possible."""
    with opened_image(source) as image:
        width, height = image.size
        if image is not source:  # a person's own stays as large as it is
            image.draft("RGB", (width // 8, height // 8))  # JPEG alone can; 12 megapixels take a third of the time
        image.load()
        size = (height, width) if _orientation(image) in SIDEWAYS else (width, height)
        return Whole(size, _has_more(image))


def upright_size(source: Source) -> tuple[int, int]:
    """(width, height) of the upright image; of most files only the head is read."""
    with opened_image(source) as image:
        width, height = image.size
        return (height, width) if _orientation(image) in SIDEWAYS else (width, height)


def decoded(source: Source) -> Image.Image:
    """The image in memory, in RGB and upright; of an animation the first frame.

    A viewer turns a photograph as its EXIF data say, so the model sees it turned as well.
    """
    with opened_image(source) as image:
        image.load()
        rgb, orientation = _rgb(image), _orientation(image)
        return rgb.transpose(TURNS[orientation]) if orientation in TURNS else rgb


def _decoder(source: Path | bytes) -> Callable[[Any], ImageFile.ImageFile]:
    """How the file is opened, by what it begins with. Raises BadImage where it is of none of FORMATS."""
    if isinstance(source, bytes):
        head = source[:HEAD_BYTES]
    else:
        with source.open("rb") as file:
            head = file.read(HEAD_BYTES)
    if not head:
        raise BadImage("is empty")
    found = next((name for signature, name in SIGNATURES if _fits(head.lstrip(b"\xef\xbb\xbf"), signature)), None)
    known = ", ".join(FORMATS)
    if found is None:
        raise BadImage(f"is of no kind of image that is opened here; save it as one of {known}")
    if found not in FORMATS or (found == "AVIF" and not HAS_AVIF):
        raise BadImage(f"is {found}, which is not opened here; save it as one of {known}")
    return FORMATS[found]


def _fits(head: bytes, signature: bytes) -> bool:
    return len(head) >= len(signature) and all(
        wanted in (ord("."), found) for wanted, found in zip(signature, head, strict=False)
    )


def _check_size(image: Image.Image) -> None:
    width, height = image.size
    if not width or not height:
        raise BadImage(f"is {width} x {height} pixels, which is none")
    most = Image.MAX_IMAGE_PIXELS
    if most is not None and width * height > most:
        raise BadImage(
            f"is {width} x {height} pixels, and at most {most / 1e6:.0f} million are opened; scale it down, or raise "
            "PIL.Image.MAX_IMAGE_PIXELS if you trust it"
        )


def _orientation(image: Image.Image) -> int:
    """The number of EXIF, 1 where there is none or none that can be read."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except DAMAGES:
        return 1  # the pixels are as good as ever
    return found if isinstance(found, int) else 1


def _has_more(image: Image.Image) -> bool:
    """Whether an image, which is loaded, has frames or pages behind it; those behind a phone's photograph are none."""
    try:
        return isinstance(image, WITH_FRAMES) and image.is_animated
    except DAMAGES:
        return False  # what is behind is damaged, and is not read anyway


def _rgb(image: Image.Image) -> Image.Image:
    """`image`, which is loaded, in RGB.

    What is transparent is seen on white, as on a page and in Qwen's own tools (qwen_vl_utils, `to_rgb`).
    """
    if image.mode in WIDE:
        return Image.fromarray(eight_bits(np.asarray(image), image.mode)).convert("RGB")
    if image.has_transparency_data:
        seen = image.convert("RGBA")
        on_white = Image.new("RGB", image.size, "white")
        on_white.paste(seen, mask=seen.getchannel("A"))
        return on_white
    return image if image.mode == "RGB" else image.convert("RGB")


def eight_bits(values: np.ndarray, mode: str) -> np.ndarray:
    """(H, W) numbers of a wide mode as (H, W) uint8, their order and their steps kept.

    16 bits are scaled by their range, as the PNG specification has it (third edition, 13.12) and as OpenCV reads them;
    floats within 0 to 1 are taken for shares of white. Numbers within 0 to 255 stay. Others have no common scale and go
    from the least to the greatest of the image. NaN is black. Raises BadImage where no number is finite.
    """
    known = values[np.isfinite(values)] if mode == "F" else values
    if not known.size:
        raise BadImage("holds no finite number")
    low, high = float(known.min()), float(known.max())
    if mode == "F" and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    elif low >= 0 and high <= 255:
        low, high = 0.0, 255.0
    elif mode.startswith("I;16"):
        low, high = 0.0, 65535.0
    filled = np.nan_to_num(values, nan=low, posinf=high, neginf=low) if mode == "F" else values
    shares = (filled.astype(np.float64) - low) / ((high - low) or 1.0)
    return np.round(shares * 255).astype(np.uint8)


def _said(error: Exception) -> str:
    """The kind of an error, and its words where those are Pillow's and name no folder."""
    words = "" if isinstance(error, OSError) and error.errno is not None else " ".join(str(error).split())[:100]
    return f"{type(error).__name__}: {words}" if words else type(error).__name__
