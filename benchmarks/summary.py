"""All results in one table and one figure: how many times better than the peer, and the goal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.figures import result, show
from benchmarks.photographs import ROOT
from img2seq.report.curves import COLOURS, save_figure

FIGURE = ROOT / "docs" / "images" / "benchmarks"
TUTORIAL_GOAL, STEP_GOAL, DECODING_GOAL, ENCODER_GOAL, IMAGES_GOAL = 8, 1.5, 3, 3, 3
ENCODERS = {"resnet18": "ResNet-18", "vit_small_patch16_224": "ViT-small"}


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        peer: what it is compared with.
        work: what was done.
        theirs: the peer's figure: the median, and its range where there is one.
        ours: ours.
        ratio: how many times faster or smaller ours is.
        goal: of the ratio, where there is one.
    """

    peer: str
    work: str
    theirs: str
    ours: str
    ratio: float
    goal: float | None


def rows() -> list[Row]:
    """Return the comparisons whose results are kept."""
    return [*_training(), *_tutorial(), *_steps(), *_decoding(), *_encoder(), *_images()]


def _training() -> Iterator[Row]:
    for work, theirs, ours, ratio, goal in result("training").get("table", []):
        yield Row("EIR", work, theirs, ours, ratio, float(goal) if goal else None)


def _tutorial() -> Iterator[Row]:
    for kind, sides in result("tutorial").get("kinds", {}).items():
        theirs, ours = sides["eir"], sides["ours"]
        work = f"the tutorial from start to end, {'image+text' if kind == 'image' else 'text only'}, s"
        cells = [f"{one['whole_s']:.0f} (loss {one['valid_loss']:.3f})" for one in (theirs, ours)]
        yield Row(
            "EIR",
            work,
            cells[0],
            cells[1],
            theirs["whole_s"] / ours["whole_s"],
            TUTORIAL_GOAL if kind == "image" else None,
        )


def _steps() -> Iterator[Row]:
    for row in result("hugging_face").get("rows", []):
        captions = f"{row['captions_per_image']} caption{'s' * (row['captions_per_image'] > 1)} an image"
        work = f"training step, {ENCODERS[row['encoder']]}, {captions}, captions/s"
        speeds = row["captions_per_s"]
        yield Row("Hugging Face", work, show(speeds["hugging_face"]), show(speeds["ours"]), row["ratio"], STEP_GOAL)


def _decoding() -> Iterator[Row]:
    for row in result("decoding").get("rows", []):
        if "hugging_face" in row["ours_over"]:
            search = "greedy" if row["beams"] == 1 else f"beam {row['beams']}"
            work = f"{search}, {row['images']} image{'s' * (row['images'] > 1)}, captions/s"
            theirs, ours = (f"{row['captions_per_s'][side]:.1f}" for side in ("hugging_face", "ours"))
            yield Row("Hugging Face", work, theirs, ours, row["ours_over"]["hugging_face"], DECODING_GOAL)


def _encoder() -> Iterator[Row]:
    speeds: dict[str, Any] = result("encoder").get("images_per_s", {})
    if speeds:
        theirs, ours = speeds["torch, channels last"], speeds["img2seq"]
        ratio = ours["median"] / theirs["median"]
        yield Row("torch", "frozen encoder's features, images/s", show(theirs), show(ours), ratio, ENCODER_GOAL)


def _images() -> Iterator[Row]:
    for row in result("images").get("rows", []):
        work = f"JPEG files to {row['size']} pixels, {row['folder']}, images/s"
        yield Row("Pillow", work, show(row["pillow"], 0), show(row["two_threads"], 0), row["ratio"], IMAGES_GOAL)


def table(found: Sequence[Row]) -> str:
    """Return the rows as aligned text."""
    lines = [f"{'against':<14}{'work':<64}{'theirs':>22}{'ours':>22}{'ratio':>8}{'goal':>7}"]
    for row in found:
        goal = f"{row.goal:g}x" if row.goal else ""
        mark = "  met" if row.goal and row.ratio >= row.goal else ""
        lines.append(f"{row.peer:<14}{row.work:<64}{row.theirs:>22}{row.ours:>22}{row.ratio:>7.1f}x{goal:>7}{mark}")
    return "\n".join(lines)


def draw(found: Sequence[Row]) -> None:
    """Draw a bar for each row and a mark for each goal."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    figure = Figure(figsize=(9.5, 0.9 + 0.27 * len(found)), layout="constrained")
    axes = figure.subplots()
    peers = list(dict.fromkeys(row.peer for row in found))
    places = range(len(found))
    for peer, colour in zip(peers, COLOURS, strict=False):
        own = [i for i in places if found[i].peer == peer]
        axes.barh(own, [found[i].ratio for i in own], color=colour, height=0.66, label=f"over {peer}")
    goals = [i for i in places if found[i].goal]
    axes.plot([found[i].goal or 0 for i in goals], goals, "|", color="#181818", markersize=13, markeredgewidth=2.2, label="goal")  # fmt: skip
    least = min([1.0, *(0.9 * row.ratio for row in found if row.ratio < 1)])
    for i, row in enumerate(found):
        is_short = row.ratio < 1.25 * least  # its figure stands beside the bar
        place, colour = (1.02 * row.ratio, "#181818") if is_short else (1.03 * least, "white")
        axes.text(place, i, f"{row.ratio:.1f}x", va="center", fontsize=9, color=colour)
    axes.set_xscale("log")
    ticks = [1, 2, 3, 5, 10, 20]
    axes.set_xlim(least, 1.15 * max(20, *(row.ratio for row in found)))
    axes.set_xticks(ticks, [f"{tick}x" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_yticks(list(places), [row.work.rpartition(", ")[0] for row in found])  # without the unit
    axes.set_ylim(len(found) - 0.4, -0.6)
    axes.grid(axis="x", alpha=0.25)
    axes.set_axisbelow(True)
    axes.legend(frameon=False, loc="lower right", fontsize=9)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    save_figure(figure, FIGURE, formats=["png"])
