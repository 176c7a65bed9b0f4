"""The first pass over original-size JPEGs: images a second to the working size, ours and Pillow's full decode and resize.

    python -m benchmarks images [FOLDER ...]

Each passes over all files with one thread and with WORKERS, in turn. The ratio is that of ours with WORKERS, as a first pass runs, over
a loop with Pillow; what threads alone are worth is seen beside it.
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

            ways: dict[str, tuple[Callable[[bytes], NDArray[np.uint8]], int]] = {
                "pillow": (full, 0), "pillow_workers": (full, WORKERS), "one_thread": (ours, 0), "two_threads": (ours, WORKERS)
            }  # fmt: skip
            speeds: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(REPEATS):  # in turn, so that a slow spell of the machine meets all of them
                for name, (way, workers) in ways.items():
                    speeds[name].append(images_per_s(files, way, workers))
            found = {name: spread(values) for name, values in speeds.items()}
            difference = float(np.mean([np.abs(full(f).astype(int) - ours(f)).mean() for f in files]))
            ratio = found["two_threads"]["median"] / found["pillow"]["median"]
            rows.append({
                "folder": folder.name, "size": size, "images": len(files), **found, "ratio": ratio, "mean_pixel_difference": difference,
            })  # fmt: skip
            print(
                f"{folder.name} ({len(files)}) to {size} px: Pillow {show(found['pillow'], 0)}, with {WORKERS} workers {show(found['pillow_workers'], 0)}, "
                f"ours {show(found['one_thread'], 0)}, with {WORKERS} workers {show(found['two_threads'], 0)} images/s: {ratio:.1f}x; "
                f"mean difference {difference:.2f} of 255",
                flush=True,
            )
    if rows:
        save("images", {"rows": rows})


def images_per_s(files: list[bytes], way: Callable[[bytes], NDArray[np.uint8]], workers: int) -> float:
    """Return images a second of a pass over all files."""
    begun = time.perf_counter()
    for _ in map_in_threads(way, files, workers):
        pass
    return len(files) / (time.perf_counter() - begun)
