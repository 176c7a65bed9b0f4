"""The one door through which every image passes: training, evaluation, captioning and serving alike.

Rules, by what a file holds (docs/data.md repeats them):
    orientation   turned upright by its EXIF tag
    alpha         laid over white (RGBA, LA, palettes and colours with transparency); kept for mode RGBA
    16-bit gray   scaled to 8 bits (value / 257), never clipped
    gray          the same value in every channel
    CMYK, YCbCr, palette, 1 bit   converted to RGB
    animation     the first frame
    anything else (floating point, more than three channels without a meaning) is refused
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from img2seq.config.inputs import MAX_BYTES, MAX_PIXELS, ImageTypeInfo
from img2seq.errors import DataError

IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")  # JPEG reads MPO, too
EXTENSIONS = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".mpo")
)
BAND_PIXELS = 1 << 18
CROP_MARGIN = 1.5  # randomcrop and centercrop work on an image this much larger than the working size
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
        height, width = self._with_margin() if self.resize_approach == "randomcrop" else (self.height, self.width)
        return height, width, {"RGB": 3, "L": 1, "RGBA": 4}[self.mode]

    @property
    def key(self) -> str:
        """Name everything that decides the pixels of a given file."""
        return f"{self.height}x{self.width}-{self.mode}-{self.resize_approach}-v{RULES_VERSION}"

    def _with_margin(self) -> tuple[int, int]:
        return round(self.height * CROP_MARGIN), round(self.width * CROP_MARGIN)


def read_bytes(path: str | Path, spec: ImageSpec) -> bytes:
    """Read an image file. Raises DataError if it is missing, empty or larger than `spec.max_bytes`."""
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > spec.max_bytes:
            raise DataError(f"{path}: expected at most {spec.max_bytes:,} bytes, found {size:,}")
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
    with _one_error(name), Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as image:
        _check_size(image, spec, name)
        target = spec.stored_shape if spec.resize_approach != "centercrop" else spec._with_margin()
        # JPEG can skip detail while decoding; twice the target leaves the resize enough to filter.
        side = 2 * max(target[0], target[1])
        image.draft(None, (side, side))
        return to_pixels(image, spec, name)


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


@dataclass(frozen=True)
class Header:
    """What an image file says of itself: its format, Pillow's mode, and its sides in pixels before it is turned upright."""

    format: str
    mode: str
    width: int
    height: int


def read_header(data: bytes, name: str) -> Header:
    """Return what an image file's bytes declare, without decoding them. Raises DataError for other bytes."""
    with _one_error(name), Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as image:
        return Header(str(image.format), image.mode, *image.size)


def to_pixels(image: Image.Image, spec: ImageSpec, name: str = "image") -> Pixels:
    """Turn an opened image upright, convert it to the spec's mode and resize it to the spec's stored shape."""
    _check_size(image, spec, name)
    upright = ImageOps.exif_transpose(image)
    converted = convert(upright, spec.mode, name)
    height, width, channels = spec.stored_shape
    if spec.resize_approach == "centercrop":
        large_height, large_width = spec._with_margin()
        top, left = (large_height - height) // 2, (large_width - width) // 2
        resized = _resize(converted, large_height, large_width).crop((left, top, left + width, top + height))
    else:
        resized = _resize(converted, height, width)
    return np.asarray(resized, dtype=np.uint8).reshape(height, width, channels)


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
    if width * height > spec.max_pixels:
        raise DataError(
            f"{name}: expected at most {spec.max_pixels:,} pixels, found {width} x {height} = {width * height:,}"
        )
    if width < 1 or height < 1:
        raise DataError(f"{name}: expected an image, found {width} x {height} pixels")


def _resize(image: Image.Image, height: int, width: int) -> Image.Image:
    return image if image.size == (width, height) else image.resize((width, height), Image.Resampling.BILINEAR)


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
            raise DataError(f"image: expected 1 to {spec.max_bytes:,} bytes, found {len(data):,}")
        return decode(data, spec, "image")
    if isinstance(source, Image.Image):
        with _one_error("image"):  # an opened file may be decoded only now
            return to_pixels(source, spec)
    if isinstance(source, np.ndarray):
        if (
            source.dtype != np.uint8
            or source.ndim not in (2, 3)
            or (source.ndim == 3 and source.shape[2] not in (3, 4))
        ):
            raise DataError(
                f"image: expected a uint8 array of shape (H, W), (H, W, 3) or (H, W, 4), found {source.dtype} {source.shape}"
            )
        return to_pixels(Image.fromarray(source), spec)
    raise DataError(f"image: expected a path, bytes, a PIL image or a uint8 array, found {type(source).__name__}")
