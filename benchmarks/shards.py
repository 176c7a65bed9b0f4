"""Memory while captions and pictures are read from shards: `python -m benchmarks shards [--images 10000 100000]`, about seven minutes.

Twenty WebDataset shards of small JPEGs, all different, with two captions each, are written to a temporary folder; each size is then read and
put into the pixel cache by a process of its own.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.figures import save

SHARDS = 20
MEASURED = """
import sys, time
from pathlib import Path
from img2seq.data.image import ImageSpec
from img2seq.data.pixels import cache_pixels
from img2seq.data.sources.read import images_at, read_captions
def mb(name): return int(Path("/proc/self/status").read_text().split(name + ":")[1].split()[0]) / 1024
pattern, cache = sys.argv[1:]
before, begun = mb("VmRSS"), time.monotonic()
found = read_captions(pattern)
captions, read = mb("VmRSS"), time.monotonic()
table = cache_pixels(images_at(pattern, {pattern: found}).pictures, ImageSpec(64, 64), Path(cache), workers=2)
assert not table.problems
print(len(table.row_of), before, captions, mb("VmHWM"), read - begun, time.monotonic() - read)
"""


def write_shards(folder: Path, n_images: int) -> str:
    """Write shards and return their pattern."""
    rng = np.random.default_rng(0)
    buffer = io.BytesIO()
    small = Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8))
    small.resize((200, 150)).save(buffer, "JPEG", quality=80)
    for shard in range(SHARDS):
        with tarfile.open(folder / f"train-{shard:05}.tar", "w") as archive:
            for n in range(shard * n_images // SHARDS, (shard + 1) * n_images // SHARDS):
                key = f"{n:08}"
                captions = {"captions": [f"a picture {key} of something", "another one"]}
                # bytes behind the end of a JPEG change its content, not its pixels
                for name, data in (
                    (f"{key}.jpg", buffer.getvalue() + key.encode()),
                    (f"{key}.json", json.dumps(captions).encode()),
                ):
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
    return str(folder / "train-*.tar")


def main(line: list[str]) -> None:
    """Print a line for each size and write benchmarks/results/shards.json."""
    options = argparse.ArgumentParser(prog="python -m benchmarks shards", description=__doc__)
    options.add_argument("--images", type=int, nargs="+", default=[10_000, 100_000])
    rows = []
    for n_images in options.parse_args(line).images:
        with tempfile.TemporaryDirectory() as temporary:
            pattern = write_shards(Path(temporary), n_images)
            command = [sys.executable, "-c", MEASURED, pattern, f"{temporary}/cache"]
            found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        n, before, captions, peak, read_s, cached_s = map(float, found)
        rows.append({"images": int(n), "before_mb": before, "with_captions_mb": captions, "peak_mb": peak, "reading_s": read_s, "caching_s": cached_s})  # fmt: skip
        print(f"{n:>9,.0f} pictures: {before:.0f} MB before, {captions:.0f} with the captions, at most {peak:.0f}; captions {read_s:.0f} s, pictures {cached_s:.0f} s", flush=True)  # fmt: skip
    save("shards", {"rows": rows})
