"""The one door: every kind of file becomes the same pixels everywhere, or one clear error."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from conftest import SHARED, needs_flickr8k
from img2seq.data.image import ImageSpec, convert, decode, from_any
from img2seq.errors import DataError

SPEC = ImageSpec(16, 16)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture() -> Image.Image:
    return Image.effect_mandelbrot((40, 20), (-2, -1, 1, 1), 50).convert("RGB")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_gives_the_same_upright_pixels(orientation: int) -> None:
    upright = picture()
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(decode(encoded(stored, exif=exif), SPEC, "x"), decode(encoded(upright), SPEC, "x"))


def test_each_mode_becomes_rgb_by_its_rule() -> None:
    red = (200, 30, 40)
    solid = Image.new("RGB", (4, 4), red)
    half = Image.new("RGBA", (4, 4), (*red, 0))
    palette = solid.quantize(4)
    palette.info["transparency"] = palette.getpixel((0, 0))
    pixel = {
        "RGB": solid, "RGBA transparent over white": half, "LA": Image.new("LA", (4, 4), (80, 0)), "L": Image.new("L", (4, 4), 80),
        "1": Image.new("1", (4, 4), 1), "P": solid.quantize(4), "P transparent": palette, "CMYK": Image.new("CMYK", (4, 4), (0, 255, 255, 0)),
    }  # fmt: skip
    found = {name: convert(image, "RGB").getpixel((1, 1)) for name, image in pixel.items()}
    white = (255, 255, 255)
    assert found == {
        "RGB": red, "RGBA transparent over white": white, "LA": white, "L": (80, 80, 80), "1": white, "P": red, "P transparent": white,
        "CMYK": (255, 0, 0),
    }  # fmt: skip
    assert convert(half, "RGBA").getpixel((0, 0)) == (*red, 0)


def test_sixteen_bit_gray_keeps_its_levels() -> None:
    ramp = np.tile(np.linspace(0, 65535, 256).astype(np.uint16), (256, 1))
    pixels = decode(encoded(Image.fromarray(ramp)), ImageSpec(256, 256), "x")
    assert len(np.unique(pixels)) >= 250
    assert (pixels[0, 0, 0], pixels[0, -1, 0]) == (0, 255)


def test_an_animation_is_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert tuple(decode(data, SPEC, "x")[0, 0]) == (255, 0, 0)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_truncated_file_is_an_error_that_names_it(share: float, kind: str) -> None:
    data = encoded(picture().resize((200, 200)), kind)
    with pytest.raises(DataError, match=r"photo\.jpg"):
        decode(data[: int(len(data) * share)], SPEC, "photo.jpg")


def test_a_bomb_is_refused_before_it_is_decoded() -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 9000, 9000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IEND", b"")
    with pytest.raises(DataError, match="9000 x 9000"):
        decode(bomb, ImageSpec(16, 16, max_pixels=1_000_000), "bomb.png")


def test_a_large_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(picture()))
    with pytest.raises(DataError, match="at most 10 bytes"):
        from_any(tmp_path / "a.png", ImageSpec(16, 16, max_bytes=10))


@given(st.sampled_from([(1, 1), (1, 500), (500, 1), (3, 7)]), st.sampled_from(["resize", "centercrop", "randomcrop"]))
@settings(deadline=None)
def test_any_shape_becomes_the_working_size(size: tuple[int, int], approach: str) -> None:
    spec = ImageSpec(16, 24, resize_approach=approach)  # type: ignore[arg-type]
    pixels = decode(encoded(Image.new("RGB", size, "red")), spec, "x")
    assert pixels.shape == spec.stored_shape
    assert tuple(pixels[0, 0]) == (255, 0, 0)


@given(st.binary(max_size=200), st.integers(0, 3000))
@settings(deadline=None, max_examples=60)
def test_hostile_bytes_end_in_one_error_or_in_pixels(noise: bytes, at: int) -> None:
    data = bytearray(encoded(picture(), "JPEG"))
    data[at : at + len(noise)] = noise
    try:
        assert decode(bytes(data), SPEC, "x").shape == (16, 16, 3)
    except DataError as error:
        assert str(error).startswith("x: ")


def test_paths_bytes_pictures_and_arrays_give_the_same_pixels(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(picture()))
    sources = [path, str(path), path.read_bytes(), picture(), np.asarray(picture())]
    first, *others = [from_any(source, SPEC) for source in sources]
    assert all(np.array_equal(first, other) for other in others)
    with pytest.raises(DataError, match="expected a path, bytes, a PIL image or a uint8 array, found int"):
        from_any(3, SPEC)


@needs_flickr8k
def test_reduced_jpeg_decoding_is_close_to_decoding_in_full() -> None:
    paths = sorted((SHARED / "data/flickr8k_originals").glob("*.jpg"))[:10]
    differences = []
    for path in paths:
        with Image.open(path) as image:
            full = np.asarray(image.convert("RGB").resize((64, 64), Image.Resampling.BILINEAR), dtype=float)
        differences.append(np.abs(from_any(path, ImageSpec(64, 64)) - full).mean())
    assert np.mean(differences) < 2.5  # of 255
