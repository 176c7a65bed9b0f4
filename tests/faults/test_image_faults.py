"""Image files (rows 16 to 20 of docs/faults.md): every kind becomes the same pixels everywhere, or one clear error."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, TiffImagePlugin

from conftest import PEAK_MB
from img2seq.data.image import ImageSpec, Pixels, convert, decode, from_any, opened
from img2seq.data.pixels import cache_pixels
from img2seq.data.records import find_images
from img2seq.errors import DataError
from img2seq.inference.captioner import Captioner
from pictures import encoded, picture

SPEC = ImageSpec(16, 16)


FILES = {
    "JPEG": encoded(picture().resize((200, 100)), "JPEG"),
    "progressive JPEG": encoded(picture().resize((200, 100)), "JPEG", progressive=True),
    "PNG": encoded(picture()),
    "interlaced GIF": encoded(picture(), "GIF", interlace=1),
    "WEBP": encoded(picture(), "WEBP"),
    "lossless WEBP": encoded(picture(), "WEBP", lossless=True),
    "BMP": encoded(picture(), "BMP"),
    "TIFF": encoded(picture(), "TIFF"),
    "packed TIFF": encoded(picture(), "TIFF", compression="tiff_lzw"),
    "PPM": encoded(picture(), "PPM"),
}


def pixels_or_error(data: bytes, spec: ImageSpec = SPEC) -> Pixels | None:
    """Decode; None for the one error that hostile bytes may end in."""
    try:
        found = decode(data, spec, "x")
    except DataError as error:
        assert str(error).startswith("x: ")
        return None
    assert found.shape == spec.stored_shape
    return found


# --- row 16: truncated, empty, not an image


@pytest.mark.parametrize("share", [0.0, 0.01, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("kind", FILES)
def test_a_truncated_file_is_an_error_that_names_it(share: float, kind: str, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(FILES[kind][: int(len(FILES[kind]) * share)])
    with pytest.raises(DataError, match=r"photo\.jpg: "):
        from_any(tmp_path / "photo.jpg", SPEC)


@given(st.sampled_from(sorted(FILES)), st.floats(0, 1, exclude_max=True))
@settings(deadline=None, max_examples=300)
def test_cut_at_any_byte_a_file_is_an_error_or_the_whole_picture(kind: str, share: float) -> None:
    data = FILES[kind]
    cut = pixels_or_error(data[: int(len(data) * share)])
    assert cut is None or np.array_equal(cut, decode(data, SPEC, "x"))  # what was cut off was no part of the picture


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 100, b"hello", b"<svg></svg>", b"%PDF-1.7", b"GIF89a", b"\xff\xd8\xff"]
)
def test_what_is_no_image_is_an_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(content)
    with pytest.raises(DataError, match=r"photo\.jpg: "):
        from_any(tmp_path / "photo.jpg", SPEC)


@given(st.sampled_from(sorted(FILES)), st.binary(min_size=1, max_size=200), st.floats(0, 1))
@settings(deadline=None, max_examples=200)
def test_hostile_bytes_end_in_one_error_or_in_pixels(kind: str, noise: bytes, at: float) -> None:
    data = bytearray(FILES[kind])
    place = int(at * len(data))
    data[place : place + len(noise)] = noise
    pixels_or_error(bytes(data))


def test_a_picture_that_breaks_when_it_is_read_is_the_same_error() -> None:
    broken = Image.open(io.BytesIO(FILES["JPEG"][:800]))
    with pytest.raises(DataError, match="image: cannot be decoded"):
        from_any(broken, SPEC)


# --- row 17: decompression bombs


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_header(side: int) -> bytes:
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def with_sides(data: bytes, old: bytes, new: bytes) -> bytes:
    assert data.count(old) == 1
    return data.replace(old, new)


def bombs() -> dict[str, bytes]:
    """Return small files that declare more than a hundred million pixels; some of them hold as many."""
    bilevel = encoded(Image.new("1", (12_000, 12_000)))
    small = Image.new("RGB", (241, 243), "red")
    return {
        "png": png_header(10_000),
        "png_large": png_header(60_000),
        "png_honest": bilevel,
        "jpg": with_sides(encoded(small, "JPEG"), struct.pack(">HH", 243, 241), struct.pack(">HH", 60_000, 60_000)),
        "gif": with_sides(encoded(small, "GIF"), b"87a" + struct.pack("<HH", 241, 243), b"87a" + struct.pack("<HH", 60_000, 60_000)),
        "bmp": with_sides(encoded(small, "BMP"), struct.pack("<ii", 241, 243), struct.pack("<ii", 60_000, 60_000)),
        "ppm": with_sides(encoded(small, "PPM"), b"241 243", b"60000 60000"),
        "webp": encoded(Image.new("L", (16_000, 6_000)), "WEBP"),
        "tiff": encoded(Image.new("1", (12_000, 12_000)), "TIFF", compression="group4"),
    }  # fmt: skip


PEAK = f"""{PEAK_MB}
import sys, warnings
from img2seq.data.image import ImageSpec, from_any
from img2seq.errors import DataError
warnings.simplefilter("error")  # Pillow's own warning
from PIL import Image, TiffImagePlugin
Image.init()
before = peak_mb()
for path in sys.argv[1:]:
    try:
        from_any(path, ImageSpec(16, 16))
        print("decoded", path)
    except DataError as error:
        print("refused", error)
print(peak_mb() - before)
"""


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    paths = []
    for name, data in bombs().items():
        assert len(data) < 1_000_000
        paths.append(tmp_path / f"{name}.img")
        paths[-1].write_bytes(data)
    done = subprocess.run([sys.executable, "-c", PEAK, *paths], capture_output=True, text=True, check=True)
    *outcomes, megabytes = done.stdout.splitlines()
    assert [line.split()[0] for line in outcomes] == ["refused"] * len(paths), outcomes
    assert all("expected 1 to 89,478,485 pixels (max_pixels), found" in line for line in outcomes), outcomes
    assert int(megabytes) < 40  # decoded, the smallest is 96


def test_16_bit_gray_takes_a_few_bytes_a_pixel(tmp_path: Path) -> None:
    (tmp_path / "gray.png").write_bytes(encoded(Image.new("I;16", (4_000, 2_500), 1000), optimize=True))
    command = [sys.executable, "-c", PEAK, str(tmp_path / "gray.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    outcome, megabytes = done.stdout.splitlines()
    assert outcome.startswith("decoded")
    assert int(megabytes) < 130  # of 10 megapixels: twice 2 bytes as they are, 1 in gray, 3 in colour


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I"])
@pytest.mark.parametrize("size", [(1, 700), (700, 1), (640, 900), (1, 1)])
def test_16_bit_gray_by_bands_is_16_bit_gray_at_once(mode: str, size: tuple[int, int]) -> None:
    values = np.random.default_rng(0).integers(0, 65536, size[::-1])
    kind = {"I;16": "<u2", "I;16B": ">u2", "I": "<i4"}[mode]
    image = Image.frombytes(mode, size, values.astype(kind).tobytes())
    assert np.array_equal(np.asarray(convert(image, "L")), (values / 257).round().astype(np.uint8))


@pytest.mark.parametrize("name", ["png", "gif", "webp"])
def test_the_limit_is_that_of_the_spec(name: str) -> None:
    data = encoded(picture(), name.upper())
    with pytest.raises(DataError, match=r"1 to 799 pixels \(max_pixels\), found 40 x 20 = 800"):
        decode(data, ImageSpec(16, 16, max_pixels=799), "x")
    assert decode(data, ImageSpec(16, 16, max_pixels=800), "x").shape == (16, 16, 3)


@pytest.mark.parametrize("kind", FILES)
def test_the_limit_of_the_spec_counts_and_not_pillows(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = decode(FILES[kind], SPEC, "x")
    for limit in (100, 500, 5000):  # some pictures are above twice that, where Pillow refuses, some warned of
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        assert np.array_equal(decode(FILES[kind], SPEC, "x"), expected)
        with pytest.raises(DataError, match="max_pixels"):
            decode(FILES[kind], ImageSpec(16, 16, max_pixels=799), "x")
        assert limit == Image.MAX_IMAGE_PIXELS


def test_a_large_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(10**12)  # sparse: takes no room, but could not be read
    with pytest.raises(DataError, match="at most 100,000,000 bytes"):
        from_any(tmp_path / "a.png", SPEC)
    with pytest.raises(DataError, match="1 to 10 bytes"):
        from_any(FILES["PNG"], ImageSpec(16, 16, max_bytes=10))


# --- row 18: EXIF orientation


UNDO = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270,
}  # fmt: skip


def stored_with(orientation: int, kind: str = "PNG") -> bytes:
    """Return a file whose pixels are turned and whose tag says how to turn them back."""
    stored = picture().transpose(UNDO[orientation]) if orientation > 1 else picture()
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(stored, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_every_exif_orientation_gives_the_same_upright_pixels(orientation: int, kind: str) -> None:
    assert np.array_equal(decode(stored_with(orientation, kind), SPEC, "x"), decode(FILES["PNG"], SPEC, "x"))


def exif_of(*, orientation: int = 1, broken: str) -> bytes:
    """Return EXIF data with something wrong in it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    good = exif.tobytes()
    return {
        "text": b"Exif\0\0b'Exif\\x00\\x00MM'",
        "cut": good[:11],
        "no entries": good[:14],
        "empty": b"",
        "header alone": b"Exif\0\0",
        "beyond its end": good[:10] + b"\xff\xff\xff\xff" + good[14:],
        "a folder beyond its end": good[:14] + struct.pack(">HHHII", 1, 0x8769, 4, 1, 0xFFFFFFF0) + b"\0\0\0\0",
        "an odd type": good[:14] + struct.pack(">HHHII", 1, 0x0112, 2, 4, 0x61626300) + b"\0\0\0\0",
    }[broken]


BROKEN_EXIF = [
    "text",
    "cut",
    "no entries",
    "empty",
    "header alone",
    "beyond its end",
    "a folder beyond its end",
    "an odd type",
]


@pytest.mark.filterwarnings("ignore::UserWarning")  # of Pillow
@pytest.mark.parametrize("broken", BROKEN_EXIF)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_broken_exif_stops_no_whole_picture(kind: str, broken: str) -> None:
    data = encoded(picture(), kind, exif=exif_of(broken=broken))
    assert np.array_equal(decode(data, SPEC, "x"), decode(encoded(picture(), kind), SPEC, "x"))


@pytest.mark.filterwarnings("ignore::UserWarning")  # of Pillow
@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
@pytest.mark.parametrize(
    "entry", [(4, 1, 0xFFFFFFF0), (4, 1, 0), (4, 1, 9), (2, 4, 0x616263), (5, 1, 0xFFFFFFF0), (4, 9999, 8), (99, 1, 8)]
)
@pytest.mark.parametrize("tag", [0x8769, 0x8825, 0xA005])
def test_broken_exif_stops_no_whole_tiff(tag: int, entry: tuple[int, int, int], compression: str) -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[tag - 1], tags.tagtype[tag - 1] = 77, 4
    data = encoded(picture(), "TIFF", compression=compression, tiffinfo=tags)
    written = struct.pack("<HHII", tag - 1, 4, 1, 77)
    assert data.count(written) == 1
    data = data.replace(written, struct.pack("<HHII", tag, *entry))
    assert np.array_equal(decode(data, SPEC, "x"), decode(FILES["TIFF"], SPEC, "x"))


def with_chunks(png: bytes, *chunks: bytes, at: str) -> bytes:
    """Return a PNG file with further chunks before its pixels or behind them."""
    place = png.index(b"IDAT") - 4 if at == "before" else png.index(b"IEND") - 4
    return png[:place] + b"".join(chunks) + png[place:]


LONG_TEXT = zlib.compress(b"a" * 3_000_000)
ODD_CHUNKS = {
    "long zTXt": [chunk(b"zTXt", b"Comment\0\0" + LONG_TEXT)],
    "long iTXt": [chunk(b"iTXt", b"Comment\0\1\0\0\0" + LONG_TEXT)],
    "long profile": [chunk(b"iCCP", b"icc\0\0" + LONG_TEXT)],
    "100 MB of text": [chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"a" * 1_000_000))] * 100,
    "unknown compression": [chunk(b"zTXt", b"Comment\0\7" + LONG_TEXT[:50]), chunk(b"iCCP", b"icc\0\7abc")],
    "short gAMA": [chunk(b"gAMA", b"\0")],
    "wrong checksum": [chunk(b"tEXt", b"Comment\0x")[:-1] + b"?"],
    "broken raw profile": [chunk(b"tEXt", b"Raw profile type exif\0\nexif\n  4\nnothex\n")],
    "exif that is text": [chunk(b"eXIf", b"b'MM'")],
}


@pytest.mark.parametrize("at", ["before", "behind"])
@pytest.mark.parametrize("odd", ODD_CHUNKS)
def test_odd_texts_stop_no_whole_picture(odd: str, at: str) -> None:
    data = with_chunks(FILES["PNG"], *ODD_CHUNKS[odd], at=at)
    assert np.array_equal(decode(data, SPEC, "x"), decode(FILES["PNG"], SPEC, "x"))
    with opened(data, "x") as image:
        assert image.size == (40, 20)


@pytest.mark.parametrize("at", ["before", "behind"])
@pytest.mark.parametrize(
    "chunks", [[chunk(b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>' + b" " * 5000)]]
)
def test_a_picture_is_turned_by_what_its_texts_say(chunks: list[bytes], at: str) -> None:
    stored = encoded(picture().transpose(UNDO[6]))
    assert np.array_equal(decode(with_chunks(stored, *chunks, at=at), SPEC, "x"), decode(FILES["PNG"], SPEC, "x"))


def test_pictures_are_upright_in_training_and_in_captioning_alike(
    finished_runs: tuple[Path, Path], tmp_path: Path
) -> None:
    captioner = Captioner.load(finished_runs[1])
    (tmp_path / "images").mkdir()
    for orientation in UNDO:
        (tmp_path / f"images/{orientation}.png").write_bytes(stored_with(orientation))
    files = find_images(tmp_path / "images").pictures
    table = cache_pixels(files, captioner.spec, tmp_path / "cache", workers=0)
    upright = from_any(FILES["PNG"], captioner.spec)
    for image_id in files:
        assert np.array_equal(table.store.map()[table.row_of[image_id]], upright)
    captions = captioner.caption([*map(str, files.values()), FILES["PNG"]], method="greedy")
    assert len({(c.text, round(c.log_probability, 5)) for c in captions}) == 1


# --- row 19: modes


def test_each_mode_becomes_rgb_by_its_rule() -> None:
    red = (200, 30, 40)
    solid = Image.new("RGB", (4, 4), red)
    half = Image.new("RGBA", (4, 4), (*red, 0))
    palette = solid.quantize(4)
    palette.info["transparency"] = palette.getpixel((0, 0))
    pixel = {
        "RGB": solid, "RGBA transparent over white": half, "LA": Image.new("LA", (4, 4), (80, 0)), "L": Image.new("L", (4, 4), 80),
        "1": Image.new("1", (4, 4), 1), "P": solid.quantize(4), "P transparent": palette, "CMYK": Image.new("CMYK", (4, 4), (0, 255, 255, 0)),
        "I;16": Image.new("I;16", (4, 4), 80 * 257), "I": Image.new("I", (4, 4), 80 * 257),
    }  # fmt: skip
    found = {name: convert(image, "RGB").getpixel((1, 1)) for name, image in pixel.items()}
    white, gray = (255, 255, 255), (80, 80, 80)
    assert found == {
        "RGB": red, "RGBA transparent over white": white, "LA": white, "L": gray, "1": white, "P": red, "P transparent": white,
        "CMYK": (255, 0, 0), "I;16": gray, "I": gray,
    }  # fmt: skip
    assert convert(half, "RGBA").getpixel((0, 0)) == (*red, 0)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_gray_keeps_its_levels(kind: str) -> None:
    ramp = np.tile(np.linspace(0, 65535, 256).astype(np.uint16), (256, 1))
    pixels = decode(encoded(Image.fromarray(ramp), kind), ImageSpec(256, 256), "x")
    assert len(np.unique(pixels)) >= 250
    assert (pixels[0, 0, 0], pixels[0, -1, 0]) == (0, 255)


def test_an_animation_is_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        red, green, blue = (int(value) for value in decode(data, SPEC, "x")[0, 0])
        assert red > 240 > 15 > max(green, blue), kind


MODES = ("1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LA", "PA", "La", "RGBa", "RGBX", "LAB", "HSV", "I", "F", "I;16", "I;16B", "I;16L")  # fmt: skip
REFUSED_MODES = ("LAB", "HSV", "F")


@given(st.sampled_from(MODES), st.sampled_from(["RGB", "L", "RGBA"]), st.tuples(st.integers(1, 30), st.integers(1, 30)))
@settings(deadline=None, max_examples=150)
def test_every_mode_is_converted_or_refused(mode: str, wanted: str, size: tuple[int, int]) -> None:
    spec = ImageSpec(8, 8, mode=wanted)  # type: ignore[arg-type]
    if mode in REFUSED_MODES:
        with pytest.raises(DataError, match="not supported"):
            from_any(Image.new(mode, size), spec)
    else:
        assert from_any(Image.new(mode, size), spec).shape == spec.stored_shape


# --- row 20: extreme shapes


@given(
    st.one_of(st.sampled_from([(1, 1), (1, 5000), (5000, 1)]), st.tuples(st.integers(1, 300), st.integers(1, 300))),
    st.sampled_from(["resize", "centercrop", "randomcrop"]),
    st.sampled_from(["PNG", "JPEG", "WEBP", "GIF"]),
    st.integers(1, 8),
)
@example((1, 5000), "centercrop", "JPEG", 6)
@settings(deadline=None, max_examples=100)
def test_any_shape_becomes_the_working_size(size: tuple[int, int], approach: str, kind: str, orientation: int) -> None:
    spec = ImageSpec(16, 24, resize_approach=approach)  # type: ignore[arg-type]
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = decode(encoded(Image.new("RGB", size, "red"), kind, exif=exif), spec, "x")
    assert pixels.shape == spec.stored_shape
    red, green, blue = (int(value) for value in pixels[0, 0])
    assert red > 240 > 15 > max(green, blue)
