"""Write docs/performance.md from benchmarks/results/*.json: `make docs`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def result(name: str) -> dict[str, Any]:
    """Return a kept result, or nothing."""
    path = ROOT / "benchmarks" / "results" / f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return found


def number(values: dict[str, float], digits: int = 0) -> str:
    """Return a median with its range."""
    if values["runs"] < 2:
        return f"{values['median']:.{digits}f}"
    return f"{values['median']:.{digits}f} ({values['min']:.{digits}f} to {values['max']:.{digits}f})"


def page() -> str:
    """Return the page."""
    training, encoder, images, decoding = (result(name) for name in ("training", "encoder", "images", "decoding"))
    machine = (training or encoder)["machine"]
    lines = [
        "# Performance", "",
        "This page is written by `make docs` from `benchmarks/results/`, which `make bench` fills. Both sides of a comparison run in",
        "turn on the same machine, files, split and number of threads; the peers are installed from PyPI into environments of their own.",
        f"Machine: {machine['cores']} cores ({machine['processor']}), {machine['memory_gb']} GB, torch {machine['torch']}, no GPU.", "",
    ]  # fmt: skip
    if training:
        short = training["short"]["image"]["ours"]["captions_per_s"]["runs"]
        lines += [
            "## Training, against EIR 0.25.0", "",
            f"`python -m benchmarks training`: the tutorial's configuration on 2,500 photographs, {short} run(s) a side.", "",
            "| work | EIR | img2seq | ratio | goal |", "|---|---|---|---|---|",
            *(f"| {work} | {peer} | {ours} | {ratio:.1f}x | {goal + 'x' if goal else ''} |" for work, peer, ours, ratio, goal in training["table"]), "",
            "With five captions an image EIR is held at its speed with one: it refuses several captions an image.", "",
        ]  # fmt: skip
    if encoder:
        base = encoder["images_per_s"]["torch, channels last"]["median"]
        lines += [
            "## A frozen encoder", "",
            "`python -m benchmarks encoder`: tf_efficientnet_lite0 at 224 pixels, batches of 32. With `img2seq[fast]` feature caching,", "`caption` and `evaluate` compute through ONNX Runtime.", "",
            "| way | images/s | ratio |", "|---|---|---|",
            *(f"| {name} | {number(values, 1)} | {values['median'] / base:.1f}x |" for name, values in encoder["images_per_s"].items()),
            "", f"Largest difference of a feature: {encoder['largest_difference']:.1e}.", "",
        ]  # fmt: skip
    if images:
        lines += [
            "## First pass over photographs", "",
            "`python -m benchmarks images`: JPEG files to the working size, Pillow's full decode and resize against ours, which lets the", "decoder skip detail down to twice the working size.", "",
            "| photographs | size | Pillow, images/s | ours, one thread | ours, two workers | ratio | mean pixel difference, of 255 |", "|---|---|---|---|---|---|---|",
            *(
                f"| {row['folder']} ({row['images']}) | {row['size']} | {number(row['pillow'])} | {number(row['one_thread'])} | "
                f"{number(row['two_threads'])} | {row['ratio']:.1f}x | {row['mean_pixel_difference']:.2f} |"
                for row in images["rows"]
            ), "",
        ]  # fmt: skip
    if decoding:
        lines += [
            "## Decoding", "",
            "`python -m benchmarks decoding`: captions of 20 tokens from random weights; against the same model without a cache, and", "against Hugging Face `generate` on a decoder of equal size.", "",
            "| search | images | img2seq, captions/s | over uncached | over Hugging Face |", "|---|---|---|---|---|",
            *(
                f"| {'greedy' if row['beams'] == 1 else 'beam 5'} | {row['images']} | {row['captions_per_s']['ours']:.1f} | "
                f"{row['ours_over']['uncached']:.1f}x | {row['ours_over'].get('hugging_face', float('nan')):.1f}x |"
                for row in decoding["rows"]
            ), "",
        ]  # fmt: skip
    lines += [
        "## What made training fast", "",
        "- An image is decoded once, ever, and encoded once for all of its captions in a batch; no padded position enters a matrix product.",
        "- The threads that prepare batches never enter a parallel operation of torch. One `repeat_interleave` there gave each a team of",
        "  OpenMP threads; with more teams than cores the training thread's own team sleeps after every operation, and an addition of",
        "  70,000 numbers took 80 microseconds in place of 6.",
        "- Convolutions over maps of at most 2 x 2 places are one matrix product (`model/convolution.py`).",
        "- Dropout draws 16 bits a number from a fast generator (`model/dropout.py`).",
        "- AdaBelief passes over blocks that stay in the cache (`training/optimizer.py`).", "",
        "Tried and dropped: the decoder's batch cut over two Python threads with one core each (79 against 100 ms, but 71 ms after",
        "dropout was mended), attention by plain matrix products (slower forward, hardly faster backward), OpenVINO (conversion took",
        "17 s), and folding batch norms by tracing (timm's encoders branch in Python).", "",
    ]  # fmt: skip
    return "\n".join(lines)


if __name__ == "__main__":
    (ROOT / "docs" / "performance.md").write_text(page(), encoding="utf-8")
