"""The first pass over original-size JPEGs: images a second to the working size, ours and Pillow's full decode and resize.

python -m benchmarks images [FOLDER ...]
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.figures import save, show, spread
from benchmarks.photographs import ROOT
from img2seq.data.image import ImageSpec, decode
from img2seq.data.pixels import map_in_threads

FOLDERS = ("flickr8k_originals", "coco_mini/train2017")
SIZES, REPEATS, WORKERS = (64, 224), 5, 2


def main(line: list[str]) -> None:
    """Print the table and write benchmarks/results/images.json."""
    folders = [Path(path) for path in line] or [ROOT.parent / "shared" / "data" / name for name in FOLDERS]
    rows = []
    for folder in folders:
        if not folder.is_dir():
            print(f"{folder}: left out, it is not here")
            continue
        files = [path.read_bytes() for path in sorted(folder.glob("*.jpg"))]
        for size in SIZES:
            spec = ImageSpec(size, size)

            def full(data: bytes, size: int = size) -> NDArray[np.uint8]:
                image = Image.open(io.BytesIO(data)).convert("RGB")
                return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))

            def ours(data: bytes, spec: ImageSpec = spec) -> NDArray[np.uint8]:
                return decode(data, spec, "image")

            pillow = measure(files, full, 0)
            one, two = measure(files, ours, 0), measure(files, ours, WORKERS)
            difference = float(np.mean([np.abs(full(f).astype(int) - ours(f)).mean() for f in files]))
            ratio = spread(two)["median"] / spread(pillow)["median"]
            rows.append({
                "folder": folder.name, "size": size, "images": len(files), "pillow": spread(pillow), "one_thread": spread(one),
                "two_threads": spread(two), "ratio": ratio, "mean_pixel_difference": difference,
            })  # fmt: skip
            print(
                f"{folder.name} ({len(files)}) to {size} px: Pillow {show(spread(pillow), 0)}, ours {show(spread(one), 0)}, "
                f"with {WORKERS} workers {show(spread(two), 0)} images/s: {ratio:.1f}x; mean difference {difference:.2f} of 255"
            )
    save("images", {"rows": rows})


def measure(files: list[bytes], way: Callable[[bytes], NDArray[np.uint8]], workers: int) -> list[float]:
    """Return images a second of REPEATS passes."""
    found = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        for _ in map_in_threads(way, files, workers):
            pass
        found.append(len(files) / (time.perf_counter() - begun))
    return found
