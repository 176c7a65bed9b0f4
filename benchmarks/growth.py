"""Cost against size: images, length of captions, vocabulary and parameters; time per caption and peak memory, a figure each.

    python -m benchmarks growth [--sizes images tokens]

Everything is generated. Each size is trained for some steps in a process of its own, whose peak memory is read at its end; the
fastest step counts, the least disturbed by whatever else the machine does.
Beside the time stands its arithmetic: the floating-point operations of the matrix products, convolutions and attention of a
caption, at the speed of the smallest size. A bend is how much faster time grows than arithmetic from one size to any larger one, and how
much steeper memory becomes from one stretch to the next: at most 1 means no bend upwards.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from benchmarks.figures import result, save
from benchmarks.peers import ROOT, TIMED
from img2seq.report.curves import COLOURS, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

IMAGES = ROOT / "docs" / "images"
AXES = {
    "images": "images",
    "tokens": "tokens of a caption",
    "vocabulary": "words of the vocabulary",
    "parameters": "parameters",
}
N_IMAGES = (1_000, 10_000, 30_000, 100_000)
N_TOKENS = (8, 16, 32, 64, 128)
N_WORDS = (1_000, 3_000, 10_000, 25_000, 50_000)
# width and depth of a vision transformer, and width and depth of its decoder
MODELS = ((192, 4, 128, 4), (256, 8, 256, 4), (384, 12, 384, 6), (576, 12, 576, 8), (704, 12, 704, 6))
N_VALID = 50
SIDE = 32  # of a generated image


def write_images(folder: Path, first: int, last: int) -> None:
    """Write small JPEGs, all different, with the numbers from `first` to below `last`, a thousand to a folder."""
    rng = np.random.default_rng(first)
    for i in range(first, last):
        part = folder / f"{i // 1000:03}"
        part.mkdir(parents=True, exist_ok=True)
        coarse = rng.integers(256, size=(4, 4, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((SIDE, SIDE)).save(part / f"i{i:06}.jpg", quality=80)


def write_captions(folder: Path, n_images: int, *, length: int, n_words: int) -> dict[str, str]:
    """Write a caption of `length` tokens, end token included, for each image, and the held-out IDs; every word occurs."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(0)
    with (folder / "captions.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("ID", "Sequence"))
        for i in range(n_images + N_VALID):
            writer.writerow((f"i{i:06}", " ".join(f"w{rng.randrange(n_words)}" for _ in range(length - 1))))
    (folder / "valid_ids.txt").write_text("".join(f"i{i:06}\n" for i in range(n_images, n_images + N_VALID)))
    words = ["<bos>", "<unk>", "<mask>", "<pad>", "<eos>", *(f"w{i}" for i in range(n_words - 5))]
    (folder / "vocabulary.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    names = {"captions": "captions.csv", "valid_ids": "valid_ids.txt", "vocabulary": "vocabulary.json"}
    return {name: str(folder / file) for name, file in names.items()} | {"folder": str(folder)}


def measured(**request: Any) -> dict[str, Any]:
    """Return what a process of its own found of one size."""
    done = subprocess.run(
        [sys.executable, str(TIMED / "grown_step.py"), json.dumps(request)],
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}, stdout=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"benchmarks/timed/grown_step.py failed at {request}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def of_images(folder: Path) -> Iterator[tuple[float, dict[str, Any]]]:
    """Yield each number of images with its figures; the second of two processes finds the pixels in the cache."""
    written = 0
    for n in N_IMAGES:
        write_images(folder / "images", written, n + N_VALID)
        written = n + N_VALID
        size = write_captions(folder / str(n), n, length=12, n_words=1000) | {"images": str(folder / "images")}
        ways = {"encoder": "resnet18", "pixels": SIDE, "batch": 64, "steps": 15, "workers": 2}
        first_run = measured(**size, **ways)  # its cache is its own and empty
        found = measured(**size, **ways)
        found["first_set_up_s"] = first_run["set_up_s"]
        yield n, found


def of_tokens(folder: Path) -> Iterator[tuple[float, dict[str, Any]]]:
    """Yield each length of caption with its figures, captions alone."""
    for n in N_TOKENS:
        size = write_captions(folder / str(n), 2000, length=n, n_words=1000)
        yield n, measured(**size, batch=64, steps=8)


def of_vocabulary(folder: Path) -> Iterator[tuple[float, dict[str, Any]]]:
    """Yield each size of vocabulary with its figures, captions alone."""
    for n in N_WORDS:
        size = write_captions(folder / str(n), 2000, length=12, n_words=n)
        yield n, measured(**size, batch=64, steps=8)


def of_parameters(folder: Path) -> Iterator[tuple[float, dict[str, Any]]]:
    """Yield each size of model with its figures: a vision transformer over 36 places and a decoder."""
    write_images(folder / "images", 0, 300 + N_VALID)
    size = write_captions(folder, 300, length=12, n_words=2000) | {"images": str(folder / "images")}
    for encoder_width, encoder_layers, width, layers in MODELS:
        options = {"embed_dim": encoder_width, "depth": encoder_layers, "num_heads": encoder_width // 64}
        found = measured(
            **size, encoder="vit_tiny_patch16_224", encoder_options=options, pixels=96, batch=16, steps=4, width=width, layers=layers
        )  # fmt: skip
        yield found["parameters"], found


MEASURES: dict[str, Callable[[Path], Iterator[tuple[float, dict[str, Any]]]]] = {
    "images": of_images,
    "tokens": of_tokens,
    "vocabulary": of_vocabulary,
    "parameters": of_parameters,
}


def time_bend(arithmetic: Sequence[float], times: Sequence[float]) -> float:
    """Return how much faster times grow than arithmetic, at most, from one size to a larger one."""
    pairs = itertools.combinations(range(len(times)), 2)
    return max(times[j] / times[i] / (arithmetic[j] / arithmetic[i]) for i, j in pairs)


def memory_bend(sizes: Sequence[float], peaks: Sequence[float]) -> float:
    """Return how much steeper memory becomes, at most, after a size than it was on average up to it.

    A curve that hardly rises has no bend: what a stretch adds is compared with the whole memory too.
    """
    bend = 1.0
    for i in range(1, len(sizes) - 1):
        straight = peaks[i] + (peaks[i] - peaks[0]) * (sizes[i + 1] - sizes[i]) / (sizes[i] - sizes[0])
        bend = max(bend, peaks[i + 1] / max(straight, peaks[i]))
    return bend


def bends(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return the largest bend of each curve of a kind of size."""
    sizes = [row["size"] for row in rows]
    flops = [row["flop_per_caption"] for row in rows]
    found = {
        "time": time_bend(flops, [row["step_s_per_caption"] for row in rows]),
        "memory": memory_bend(sizes, [row["peak_bytes"] for row in rows]),
    }
    for name in ("first_set_up_s", "set_up_s", "first_batch_s"):
        if name in rows[0] and "first_set_up_s" in rows[0]:
            found[name] = memory_bend(sizes, [row[name] for row in rows])
    return found


def draw(kinds: dict[str, list[dict[str, Any]]]) -> None:
    """Draw time per caption and peak memory, a panel for each kind of size."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, MaxNLocator

    for name, label in (("time", "milliseconds per caption"), ("memory", "peak memory, GB")):
        figure = Figure(figsize=(11, 3.4), layout="constrained")
        panels = figure.subplots(1, len(kinds), squeeze=False)[0]
        for axes, (kind, rows) in zip(panels, kinds.items(), strict=True):
            (draw_time if name == "time" else draw_memory)(axes, rows)
            axes.set_xlabel(AXES[kind])
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))  # not logarithmic: a straight line is to look straight
            axes.xaxis.set_major_locator(MaxNLocator(4))
            axes.grid(alpha=0.25)
            axes.set_xlim(left=0)
            axes.set_ylim(0, 1.15 * axes.get_ylim()[1])
        panels[0].set_ylabel(label)
        panels[0].legend(frameon=False, fontsize=9, loc="lower right")
        save_figure(figure, IMAGES / f"growth_{name}", formats=["png"])


def draw_time(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    """Draw a step's time per caption, and its arithmetic at the speed of the smallest size."""
    sizes, times = [row["size"] for row in rows], [1000 * row["step_s_per_caption"] for row in rows]
    flops = [row["flop_per_caption"] for row in rows]
    axes.plot(sizes, [times[0] * flop / flops[0] for flop in flops], "--", color=COLOURS[5], label="arithmetic")
    axes.plot(sizes, times, "o-", color=COLOURS[0], label="measured")


def draw_memory(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    """Draw peak memory, and a straight line through the first two sizes."""
    sizes, peaks = [row["size"] for row in rows], [row["peak_bytes"] / 1e9 for row in rows]
    slope = (peaks[-1] - peaks[0]) / (sizes[-1] - sizes[0])
    axes.plot(
        sizes, [peaks[0] + slope * (size - sizes[0]) for size in sizes], "--", color=COLOURS[5], label="straight line"
    )
    axes.plot(sizes, peaks, "o-", color=COLOURS[1], label="measured")


def main(line: list[str]) -> None:
    """Measure, print, draw, and write benchmarks/results/growth.json."""
    options = argparse.ArgumentParser(prog="python -m benchmarks growth", description=__doc__)
    options.add_argument(
        "--sizes", nargs="+", choices=MEASURES, default=list(MEASURES), help="others keep their last result"
    )
    chosen = options.parse_args(line)
    kinds: dict[str, list[dict[str, Any]]] = result("growth").get("kinds", {})
    for kind in chosen.sizes:
        print(
            f"{AXES[kind]:<24}{'ms/caption':>12}{'arithmetic':>12}{'peak GB':>9}{'set-up s':>10}{'first set-up s':>16}",
            flush=True,
        )
        kinds[kind] = []
        with tempfile.TemporaryDirectory() as temporary:
            for size, found in MEASURES[kind](Path(temporary)):
                kinds[kind].append({"size": size} | found)
                first = kinds[kind][0]
                expected = first["step_s_per_caption"] * found["flop_per_caption"] / first["flop_per_caption"]
                print(
                    f"{size:<24,}{1000 * found['step_s_per_caption']:>12.2f}{1000 * expected:>12.2f}{found['peak_bytes'] / 1e9:>9.2f}"
                    f"{found['set_up_s']:>10.1f}{found.get('first_set_up_s', found['set_up_s']):>16.1f}",
                    flush=True,
                )
        print(f"  bends: {', '.join(f'{name} {bend:.2f}' for name, bend in bends(kinds[kind]).items())}", flush=True)
    kinds = {kind: kinds[kind] for kind in MEASURES if kind in kinds}
    save("growth", {"kinds": kinds, "bends": {kind: bends(rows) for kind, rows in kinds.items()}})
    draw(kinds)


if __name__ == "__main__":
    main(sys.argv[1:])
