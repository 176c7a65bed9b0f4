"""The one door: whatever an image comes as, it becomes the same pixels. What may be wrong with it: tests/faults."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import SHARED, needs_flickr8k
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
