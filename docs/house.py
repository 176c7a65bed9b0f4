"""Draw docs/images/house.png: the rooms of the package, what imports what, and what a served caption reaches.

python docs/house.py        or `make docs`
"""

from __future__ import annotations

import sys
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from test_architecture import LEVELS, MODULES, lines, room, served_caption  # noqa: E402

TARGET = ROOT / "docs/images/house.png"
WHAT = {
    "errors": "one tree of errors",
    "files": "which files are read",
    "extras": "packages beyond the core",
    "config": "YAML to one checked configuration",
    "data": "sources, pixels, tokens, batches",
    "progress": "lines and bars",
    "model": "encoder, decoder; cpu/: kernels",
    "datasets": "fetch, convert",
    "run": "run folder and checkpoints",
    "generation": "step, search",
    "metrics": "BLEU, CIDEr-D, ...",
    "build": "configuration or run to objects",
    "inference": "Predictor: picture to text",
    "report": "curves, pages, comparison",
    "training": "loop, objective, what is recorded",
    "serving": "HTTP, a queue, one thread",
    "evaluation": "captions of a set, scored",
    "export": "a lean run, compared",
    "demo": "drawn scenes, the main job",
    "start": "init: a configuration that fits",
    "cli": "one file a verb",
}
INK, REACHED, OTHER = "#22252a", "#cfe3d6", "#e6e8ec"
WIDTH, HEIGHT = 3.1, 0.82


def main() -> None:
    """Draw the rooms from the ground up, each above all that it may import."""
    served: dict[str, int] = {}
    for module, n in served_caption("img2seq.inference.from_run").items():
        served[room(module)] = served.get(room(module), 0) + n
    levels = [[name for name in rooms if name in WHAT] for rooms in LEVELS]
    figure = Figure(figsize=(11.0, 0.98 * len(levels) + 0.9), layout="constrained")
    axes = figure.subplots()
    for y, rooms in enumerate(levels):
        for place, name in enumerate(rooms):
            x = (place - (len(rooms) - 1) / 2) * (WIDTH + 0.25)
            n = sum(lines(module) for module in MODULES if room(module) == name)
            colour = REACHED if name in served else OTHER
            box = FancyBboxPatch((x - WIDTH / 2, y), WIDTH, HEIGHT, boxstyle="round,pad=0,rounding_size=0.08", fc=colour, ec="none")  # fmt: skip
            axes.add_patch(box)
            axes.text(x - WIDTH / 2 + 0.12, y + 0.53, f"{name}/", fontsize=12, weight="bold", color=INK)
            axes.text(x - WIDTH / 2 + 0.12, y + 0.2, WHAT[name], fontsize=9.5, color=INK)
            share = f"{served[name]:,} of {n:,}" if name in served else f"{n:,}"
            axes.text(x + WIDTH / 2 - 0.12, y + 0.56, share, fontsize=9, color="#5a6570", ha="right")
    top = len(levels)
    axes.text(-5.2, top + 0.12, "Each room may import from those below it. Numbers are lines.", fontsize=10, color=INK)
    axes.text(5.2, top + 0.12, f"green: reached by a caption of a run, {sum(served.values()):,} lines", fontsize=10, color="#2f7d52", ha="right")  # fmt: skip
    axes.set_xlim(-5.3, 5.3)
    axes.set_ylim(-0.1, top + 0.45)
    axes.axis("off")
    figure.savefig(TARGET, dpi=110, facecolor="white")


if __name__ == "__main__":
    main()
