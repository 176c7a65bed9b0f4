"""The one door: whatever an image comes as, it becomes the same pixels. What may be wrong with it: tests/faults."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from conftest import SHARED, needs_flickr8k
from img2seq.data import records
from img2seq.data.image import ImageSpec, from_any
from img2seq.errors import DataError
from pictures import encoded, picture

SPEC = ImageSpec(16, 16)


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


def half_and_half() -> Image.Image:
    """Return a picture that is red on the left and blue on the right, wider than high."""
    image = Image.new("RGB", (64, 32), "#d02020")
    image.paste("#2020d0", (32, 0, 64, 32))
    return image


def saved(name: str, **options: object) -> bytes:
    file = io.BytesIO()
    half_and_half().save(file, name, **options)
    return file.getvalue()


def turned() -> Image.Exif:
    """Return EXIF data that say: turn by 90 degrees to the right."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    return exif


def colours(data: bytes) -> list[str]:
    """Return which of red and blue each corner is, from the top left, row by row."""
    pixels = from_any(data, ImageSpec(32, 32))
    corners = [pixels[y, x].astype(int) for y in (3, 28) for x in (3, 28)]
    return [
        "red" if corner[0] > corner[2] + 80 else "blue" if corner[2] > corner[0] + 80 else "none" for corner in corners
    ]


@pytest.mark.parametrize("name", ["AVIF", "HEIF", "WEBP", "MPO"])
def test_pictures_of_telephones_and_of_the_web_are_read_upright(name: str) -> None:
    if name == "HEIF":
        pillow_heif = pytest.importorskip("pillow_heif")
        pillow_heif.register_heif_opener()  # here, to write one
    more = {"save_all": True, "append_images": [Image.new("RGB", (64, 32), "white")]} if name in ("WEBP", "MPO") else {}
    assert colours(saved(name, **more)) == ["red", "blue", "red", "blue"]
    if name != "HEIF":  # there the file's own turn counts, not that of its EXIF data
        assert colours(saved(name, exif=turned(), **more)) == ["red", "red", "blue", "blue"]


def test_heic_pictures_are_read_by_a_process_that_has_not_written_one(tmp_path: Path) -> None:
    pytest.importorskip("pillow_heif").register_heif_opener()
    (tmp_path / "IMG_1.HEIC").write_bytes(saved("HEIF"))
    program = (
        "from img2seq.data.image import ImageSpec, from_any\nfrom img2seq.data.records import find_images\n"
        f"found = find_images({str(tmp_path)!r}).pictures\n"
        "print(list(found), from_any(found['IMG_1'], ImageSpec(4, 4)).shape)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert run.stdout.strip() == "['IMG_1'] (4, 4, 3)"


def test_a_heic_picture_without_its_library_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pillow_heif").register_heif_opener()
    data = saved("HEIF")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(DataError, match=r'pip install "img2seq\[formats\]"'):
        from_any(data, ImageSpec(4, 4))
    monkeypatch.setattr(records, "heif_is_read", lambda: False)
    (tmp_path / "x.heic").write_bytes(data)
    (tmp_path / "y.jpg").write_bytes(saved("JPEG"))
    found = records.find_images(tmp_path)
    assert (list(found.pictures), found.unread) == (["y"], "1 .heic")
