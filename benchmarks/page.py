"""Write docs/performance.md from benchmarks/results/*.json: `make docs`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.figures import result, show
from benchmarks.photographs import ROOT


def section(title: str, text: str, columns: Sequence[str], rows: Iterable[Sequence[str]], after: str = "") -> list[str]:
    """Return the lines of a heading, a paragraph, a table and what is to be said of it."""
    lines = [f"## {title}", "", text, "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return [*lines, "", *([after, ""] if after else [])]


def training() -> list[str]:
    """Return the comparison with EIR."""
    found = result("training")
    if not found:
        return []
    runs = found["short"]["image"]["ours"]["captions_per_s"]["runs"]
    return section(
        "Training, against EIR 0.25.0",
        f"`python -m benchmarks training`: the tutorial's configuration on 2,500 photographs, {runs} run(s) a side.",
        ("work", "EIR", "img2seq", "ratio", "goal"),
        [(work, peer, ours, f"{ratio:.1f}x", goal and f"{goal}x") for work, peer, ours, ratio, goal in found["table"]],
        "With five captions an image EIR is held at its speed with one: it refuses several captions an image.",
    )


def encoder() -> list[str]:
    """Return the ways to run a frozen encoder."""
    found = result("encoder")
    if not found:
        return []
    base = found["images_per_s"]["torch, channels last"]["median"]
    return section(
        "A frozen encoder",
        "`python -m benchmarks encoder`: tf_efficientnet_lite0 at 224 pixels, batches of 32. With `img2seq[fast]` feature caching,\n"
        "`caption` and `evaluate` compute through ONNX Runtime.",
        ("way", "images/s", "ratio"),
        [(name, show(of_way), f"{of_way['median'] / base:.1f}x") for name, of_way in found["images_per_s"].items()],
        f"Largest difference of a feature: {found['largest_difference']:.1e}.",
    )


def images() -> list[str]:
    """Return the first pass over photographs."""
    found = result("images")
    if not found:
        return []
    return section(
        "First pass over photographs",
        "`python -m benchmarks images`: JPEG files to the working size, Pillow's full decode and resize against ours, which lets the\n"
        "decoder skip detail down to twice the working size.",
        ("photographs", "size", "Pillow, images/s", "ours, one thread", "ours, two workers", "ratio", "mean pixel difference, of 255"),
        [
            (
                f"{row['folder']} ({row['images']})", str(row["size"]),
                *(show(row[way], 0) for way in ("pillow", "one_thread", "two_threads")),
                f"{row['ratio']:.1f}x", f"{row['mean_pixel_difference']:.2f}",
            )
            for row in found["rows"]
        ],
    )  # fmt: skip


def decoding() -> list[str]:
    """Return the comparison with an uncached model and with Hugging Face."""
    found = result("decoding")
    if not found:
        return []
    return section(
        "Decoding",
        "`python -m benchmarks decoding`: captions of 20 tokens from random weights; against the\n"
        "same model without a cache, and against Hugging Face `generate` on a decoder of equal size.",
        ("search", "images", "img2seq, captions/s", "over uncached", "over Hugging Face"),
        [
            (
                "greedy" if row["beams"] == 1 else "beam 5", str(row["images"]), f"{row['captions_per_s']['ours']:.1f}",
                *(f"{row['ours_over'][way]:.1f}x" if way in row["ours_over"] else "" for way in ("uncached", "hugging_face")),
            )
            for row in found["rows"]
        ],
    )  # fmt: skip


def page() -> str:
    """Return the page."""
    machine = (result("training") or result("encoder"))["machine"]
    lines = [
        "# Performance",
        "",
        "This page is written by `make docs` from `benchmarks/results/`, which `make bench` fills. Both sides of a comparison run in",
        "turn on the same machine, files, split and number of threads; EIR is installed from PyPI into an environment of its own.",
        f"Machine: {machine['cores']} cores ({machine['processor']}), {machine['memory_gb']} GB, torch {machine['torch']}, no GPU.",
        "",
        *training(),
        *encoder(),
        *images(),
        *decoding(),
        "## What made training fast",
        "",
        "- An image is decoded once, ever, and encoded once for all of its captions in a batch; no padded position enters a matrix product.",
        "- The threads that prepare batches never enter a parallel operation of torch: that would give each a team of OpenMP threads,",
        "  and with more teams than cores the training thread's own team sleeps after every operation.",
        "- Convolutions over maps of at most 2 x 2 places are one matrix product (`model/convolution.py`).",
        "- Dropout draws 16 bits a number from a fast generator (`model/dropout.py`).",
        "- AdaBelief passes over blocks that stay in the cache (`training/optimizer.py`).",
        "",
        "Tried and dropped: the decoder's batch cut over two Python threads, attention by plain matrix products, OpenVINO (slow to",
        "convert a model), and folding batch norms by tracing (timm's encoders branch in Python).",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    (ROOT / "docs" / "performance.md").write_text(page(), encoding="utf-8")
