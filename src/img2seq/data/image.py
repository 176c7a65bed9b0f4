"""The one door through which every image passes: training, evaluation, captioning and serving alike.

Rules, by what a file holds (docs/data.md repeats them):
    orientation   turned upright by its EXIF tag; as it is where that cannot be read
    alpha         laid over white (RGBA, LA, palettes and colours with transparency); kept for mode RGBA
    16-bit gray   scaled to 8 bits (value / 257), never clipped
    gray          the same value in every channel
    CMYK, YCbCr, palette, 1 bit   converted to RGB
    animation     the first frame
    anything else (floating point, more than three channels without a meaning) is refused
"""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from img2seq.config.inputs import MAX_BYTES, MAX_PIXELS, ImageTypeInfo
from img2seq.errors import DataError
from img2seq.files import regular

IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF")  # JPEG reads MPO, too
HEIF = re.compile(rb"....ftyp(heic|heix|heim|heis|hevc|hevx|mif1|msf1)", re.DOTALL)
BAND_PIXELS = 1 << 18
CROP_MARGIN = 1.5  # randomcrop and centercrop work on an image this much larger than the working size
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
PNG_CHUNKS = re.compile(rb"[A-Z]|tRNS|eXIf|acTL|fcTL|fdAT|(tEXt|zTXt|iTXt)(Raw profile type exif|XML:com.adobe.xmp)")
TURNS: dict[Any, int] = dict(enumerate((0, 3, 1, 5, 4, 6, 2), 2))  # EXIF orientation: `Image.Transpose` that undoes it
BILINEAR = Image.Resampling.BILINEAR
RULES_VERSION = 1  # part of every cache key: raise it when the same file would give other pixels

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class ImageSpec:
    """How a file becomes pixels of a working size."""

    height: int
    width: int
    mode: Literal["RGB", "L", "RGBA"] = "RGB"
    resize_approach: Literal["resize", "randomcrop", "centercrop"] = "resize"
    max_pixels: int = MAX_PIXELS
    max_bytes: int = MAX_BYTES

    @classmethod
    def of(cls, info: ImageTypeInfo) -> ImageSpec:
        height, width = info.height_width
        return cls(height, width, info.channels, info.resize_approach, info.max_pixels, info.max_bytes)

    @property
    def stored_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the pixels that are kept: with the margin that random crops cut from."""
        height, width = self.with_margin() if self.resize_approach == "randomcrop" else (self.height, self.width)
        return height, width, {"RGB": 3, "L": 1, "RGBA": 4}[self.mode]

    @property
    def key(self) -> str:
        """Name everything that decides the pixels of a given file."""
        return f"{self.height}x{self.width}-{self.mode}-{self.resize_approach}-v{RULES_VERSION}"

    def with_margin(self) -> tuple[int, int]:
        return round(self.height * CROP_MARGIN), round(self.width * CROP_MARGIN)


def read_bytes(path: str | Path, spec: ImageSpec) -> bytes:
    """Read an image file. Raises DataError if it is missing, empty or larger than `spec.max_bytes`."""
    path = Path(path)
    try:
        size = regular(path).stat().st_size
        if size > spec.max_bytes:
            raise DataError(f"{path}: expected at most {spec.max_bytes:,} bytes (max_bytes), found {size:,}")
        if size == 0:
            raise DataError(f"{path}: expected an image, found an empty file")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def decode(data: bytes, spec: ImageSpec, name: str) -> Pixels:
    """Decode an image file's bytes to (H, W, C) pixels of the spec's stored shape.

    Raises:
        DataError: naming the image, if it is broken, too large or of a kind that is refused.
    """
    with opened(data, name) as image:
        _check_size(image, spec, name)
        target = spec.stored_shape if spec.resize_approach != "centercrop" else spec.with_margin()
        # JPEG can skip detail while decoding; twice the target leaves the resize enough to filter.
        image.draft(None, (2 * max(target[:2]),) * 2)
        return to_pixels(image, spec, name)


@contextmanager
def opened(data: bytes, name: str) -> Iterator[Image.Image]:
    """Open an image file's bytes; whatever goes wrong then and inside is one DataError that names the image."""
    with _one_error(name):
        formats = _heif(name) if HEIF.match(data) else IMAGE_FORMATS
        with _without_pillows_limit():
            image = Image.open(io.BytesIO(_without_metadata(data)), formats=formats)
        with image:
            yield image


def _heif(name: str) -> tuple[str, ...]:
    """Let Pillow read HEIC pictures, and return what it calls them. Raises DataError where the library is missing."""
    try:
        import pillow_heif
    except ImportError:
        raise DataError(
            f'{name}: HEIC needs pillow-heif, which is not installed: pip install "img2seq[formats]"'
        ) from None
    pillow_heif.register_heif_opener()
    return ("HEIF",)


_PILLOWS_LIMIT = threading.Lock()


@contextmanager
def _without_pillows_limit() -> Iterator[None]:
    """Take away Pillow's limit on pixels for a moment: it has one for the whole process, and here each input has its own."""
    with _PILLOWS_LIMIT:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _without_metadata(data: bytes) -> bytes:
    """Return a PNG file without what does not decide its pixels: Pillow refuses a picture whose texts are long or broken."""
    kept, place = [data[:8]], 8
    while data.startswith(PNG_MAGIC) and place < len(data) and data[place - 8 : place - 4] != b"IEND":
        end = place + 12 + int.from_bytes(data[place : place + 4])
        if PNG_CHUNKS.match(data, place + 4):
            kept.append(data[place:end])
        place = end
    return b"".join(kept) if place > 8 else data


@contextmanager
def _one_error(name: str) -> Iterator[None]:
    """Turn whatever a decoder raises on hostile bytes into one DataError that names the image."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        reason = "not an image of a known format" if "cannot identify" in reason else reason
        raise DataError(f"{name}: cannot be decoded: {reason}") from error


def to_pixels(image: Image.Image, spec: ImageSpec, name: str = "image") -> Pixels:
    """Turn an opened image upright, convert it to the spec's mode and resize it to the spec's stored shape."""
    _check_size(image, spec, name)
    converted = convert(upright(image), spec.mode, name)
    height, width, channels = spec.stored_shape
    if spec.resize_approach == "centercrop":
        large_height, large_width = spec.with_margin()
        top, left = (large_height - height) // 2, (large_width - width) // 2
        resized = converted.resize((large_width, large_height), BILINEAR).crop((left, top, left + width, top + height))
    else:
        resized = converted.resize((width, height), BILINEAR)
    return np.asarray(resized, dtype=np.uint8).reshape(height, width, channels)


def upright(image: Image.Image) -> Image.Image:
    """Return an image turned as its EXIF tag says; with EXIF data that cannot be read the picture is whole all the same."""
    is_small = image.width * image.height <= (Image.MAX_IMAGE_PIXELS or 0)
    with nullcontext() if is_small else _without_pillows_limit():
        image.load()
    turn = None
    with suppress(Exception):
        turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    return image if turn is None else image.transpose(Image.Transpose(turn))


def convert(image: Image.Image, mode: Literal["RGB", "L", "RGBA"], name: str = "image") -> Image.Image:
    """Convert an image of any supported kind to RGB, L or RGBA by the rules in this module's docstring."""
    if image.mode.startswith("I"):  # 16-bit gray; convert() would clip it at 255
        image = _to_8_bits(image, name)
    if image.mode in ("F", "LAB", "HSV") or image.mode not in _KNOWN_MODES:
        raise DataError(f"{name}: images of mode {image.mode!r} are not supported")
    if image.mode == "La":  # premultiplied: Pillow turns it into nothing but LA
        image = image.convert("LA")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        if mode == "RGBA":
            return rgba
        white = Image.new("RGBA", rgba.size, "white")
        image = Image.alpha_composite(white, rgba).convert("RGB")
    if image.mode == mode:
        return image
    if image.mode not in ("L", "RGB"):
        image = image.convert("RGB")
    return image.convert(mode)


def _to_8_bits(image: Image.Image, name: str) -> Image.Image:
    """Scale 16-bit gray by bands of rows: all at once it would take many times the picture's own memory."""
    levels = (np.arange(65536) / 257).round().astype(np.uint8)
    gray, rows = Image.new("L", image.size), max(1, BAND_PIXELS // max(1, image.width))
    for top in range(0, image.height, rows):
        values = np.asarray(image.crop((0, top, image.width, min(top + rows, image.height))))
        if values.size and not (values.min() >= 0 and values.max() <= 65535):
            raise DataError(f"{name}: expected gray values of 0 to 65535, found {values.min()} to {values.max()}")
        gray.paste(Image.fromarray(levels[values]), (0, top))
    return gray


_KNOWN_MODES = ("1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LA", "PA", "La", "RGBa", "RGBX")


def _check_size(image: Image.Image, spec: ImageSpec, name: str) -> None:
    width, height = image.size
    if not 1 <= width * height <= spec.max_pixels:
        found = f"{width} x {height} = {width * height:,}"
        raise DataError(f"{name}: expected 1 to {spec.max_pixels:,} pixels (max_pixels), found {found}")


def from_any(source: Any, spec: ImageSpec) -> Pixels:
    """Return the pixels of a path, of an image file's bytes, of a PIL image or of an array.

    Arrays are (H, W), (H, W, 3) or (H, W, 4) of uint8.

    Raises:
        DataError: for images that cannot be used and for sources of any other type.
    """
    if isinstance(source, str | Path):
        return decode(read_bytes(source, spec), spec, str(source))
    if isinstance(source, bytes | bytearray | memoryview):
        data = bytes(source)
        if not 0 < len(data) <= spec.max_bytes:
            raise DataError(f"image: expected 1 to {spec.max_bytes:,} bytes (max_bytes), found {len(data):,}")
        return decode(data, spec, "image")
    if isinstance(source, Image.Image):
        with _one_error("image"):  # an opened file may be decoded only now
            return to_pixels(source, spec)
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or (source.ndim != 2 and source.shape[2:] not in ((3,), (4,))):
            found = f"{source.dtype} {source.shape}"
            raise DataError(f"image: expected a uint8 array of shape (H, W), (H, W, 3) or (H, W, 4), found {found}")
        return to_pixels(Image.fromarray(source), spec)
    raise DataError(f"image: expected a path, bytes, a PIL image or a uint8 array, found {type(source).__name__}")
