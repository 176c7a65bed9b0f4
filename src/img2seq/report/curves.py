"""Training curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from img2seq.run.folder import RunFolder
from img2seq.run.tables import read_history

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#3d6fb6", "#d1642b", "#3f8f5f", "#8a5bb0", "#b0893a", "#5a6570")
SCORE_LINES: dict[str, tuple[str, Any]] = {
    "cider_d": ("CIDEr-D", "-"), "bleu_4": ("BLEU-4", (0, (5, 2))), "distinct": ("distinct captions, share", (0, (1, 1.5)))
}  # fmt: skip
ROOM_FOR_LEGEND = 1.3  # above the scores, which may be anywhere below
FONT: Any = {"font.family": "DejaVu Sans", "font.size": 10.5, "svg.fonttype": "none", "axes.titlesize": 12}


@dataclass(frozen=True)
class Curve:
    """Losses of one run, in nats per token, against steps; scores of captions by metric, where it made any.

    `rewards` are those of sampled captions; `phases` are names and first steps, where there are any.
    """

    name: str
    train_steps: Sequence[int]
    train_losses: Sequence[float]
    valid_steps: Sequence[int]
    valid_losses: Sequence[float]
    scores: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    rewards: Sequence[tuple[int, float]] = ()
    phases: Sequence[tuple[str, int]] = ()


def read_curve(run: RunFolder) -> Curve:
    """Return a run's losses from its history."""
    history, valid = read_history(run.history_train), read_history(run.history_valid)
    train = [row for row in history if row["loss"]]  # none where captions are sampled
    first_steps = {row["phase"]: int(row["iteration"]) for row in reversed(history) if row.get("phase")}
    return Curve(
        run.name,
        [int(row["iteration"]) for row in train],
        [float(row["loss"]) for row in train],
        [int(row["iteration"]) for row in valid],
        [float(row["valid_loss"]) for row in valid],
        {
            name: points
            for name in SCORE_LINES
            if (points := [(int(row["iteration"]), float(row[name])) for row in valid if row.get(name)])
        },
        [(int(row["iteration"]), float(row["reward"])) for row in history if row.get("reward")],
        sorted(first_steps.items(), key=lambda phase: phase[1]),
    )


def draw_losses(curves: Sequence[Curve], *, title: str, skip_steps: int = 0, dark: bool = False) -> Figure:
    """Return a figure of the runs' losses: validation as marked lines, smoothed training losses as thin ones.

    Beneath them the scores of captions, where runs made any: of several runs CIDEr-D alone.

    Args:
        curves: one for each run.
        title: above the figure.
        skip_steps: first steps to leave out, at most a tenth of the run.
        dark: for a dark page.
    """
    from matplotlib.figure import Figure

    ink = "#e6e3dc" if dark else "#2b2e33"
    n_panels = 2 if any(curve.scores or curve.rewards for curve in curves) else 1
    figure = Figure(figsize=(7.6, 4.3 + 2.9 * (n_panels - 1)), layout="constrained")
    figure.patch.set_alpha(0)
    axes, *below = figure.subplots(n_panels, sharex=True, squeeze=False, height_ratios=[4.3, 2.9][:n_panels])[:, 0]
    for panel in (axes, *below):
        style(panel, ink, dark)
    last = max((max([*c.train_steps, *c.valid_steps], default=0) for c in curves), default=0)
    skip = min(skip_steps, last // 10) or -1  # step 0 is drawn where it was evaluated
    for curve, colour in zip(curves, COLOURS * (1 + len(curves) // len(COLOURS)), strict=False):
        smooth = [
            (s, loss) for s, loss in zip(curve.train_steps, smoothed(curve.train_losses), strict=True) if s > skip
        ]
        axes.plot([s for s, _ in smooth], [loss for _, loss in smooth], color=colour, alpha=0.45, linewidth=1.1)
        valid = [(s, loss) for s, loss in zip(curve.valid_steps, curve.valid_losses, strict=True) if s > skip]
        marker = "o" if len(valid) <= 40 else ""
        axes.plot(
            [s for s, _ in valid],
            [loss for _, loss in valid],
            color=colour,
            linewidth=2,
            marker=marker,
            markersize=4.5,
            label=f"{curve.name}: validation",
        )
        axes.plot([], [], color=colour, alpha=0.45, linewidth=1.1, label=f"{curve.name}: training")
    for panel in below:
        _draw_scores(panel, curves, skip)
    for panel in (axes, *below):
        _draw_borders(panel, curves, ink, named=panel is axes)
    (below[-1] if below else axes).set_xlabel("step")
    axes.set_ylabel("loss (nats per token)")
    has_names = len(curves) == 1 and curves[0].phases
    axes.set_title(title, color=ink, loc="left", pad=22 if has_names else 10)
    for panel in (axes, *below):
        place, columns = ("upper left", 2) if panel in below else ("best", 1)
        legend = panel.legend(frameon=False, fontsize=9, loc=place, ncols=columns)
        for text in legend.get_texts():
            text.set_color(ink)
    return figure


def _draw_scores(axes: Axes, curves: Sequence[Curve], skip: int) -> None:
    """Draw the scores of captions against steps."""
    names = list(SCORE_LINES) if len(curves) == 1 else ["cider_d"]
    for curve, colour in zip(curves, COLOURS * (1 + len(curves) // len(COLOURS)), strict=False):
        for name in names:
            label, line = SCORE_LINES[name]
            points = [(step, score) for step, score in curve.scores.get(name, ()) if step > skip]
            if points:
                marker = "o" if len(points) <= 40 else ""
                axes.plot(
                    *zip(*points, strict=True),
                    color=colour, linestyle=line, linewidth=1.8, marker=marker, markersize=4, label=f"{curve.name}: {label}",
                )  # fmt: skip
        if curve.rewards and len(curves) == 1:
            steps, rewards = zip(*curve.rewards, strict=True)
            axes.plot(
                steps,
                smoothed(rewards),
                color=colour,
                alpha=0.45,
                linewidth=1.1,
                label=f"{curve.name}: reward of samples",
            )
    axes.set_ylabel("score of captions")
    axes.set_ylim(0, axes.get_ylim()[1] * ROOM_FOR_LEGEND)


def _draw_borders(axes: Axes, curves: Sequence[Curve], ink: str, *, named: bool) -> None:
    """Draw a line where a phase begins; of a single run with its name above."""
    for curve, colour in zip(curves, COLOURS * (1 + len(curves) // len(COLOURS)), strict=False):
        for place, (name, step) in enumerate(curve.phases):
            if place:
                axes.axvline(step - 0.5, color=colour, linewidth=1, linestyle=(0, (3, 3)), alpha=0.7)
            if named and len(curves) == 1:
                at = (max(step - 0.5, axes.get_xlim()[0]), 1)
                axes.annotate(
                    name, at, xycoords=("data", "axes fraction"), xytext=(2, 3), textcoords="offset points", fontsize=8.5, color=ink
                )  # fmt: skip


def style(axes: Axes, ink: str, dark: bool) -> None:
    """Draw axes quietly, in the page's ink."""
    axes.set_facecolor("none")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#6b7079" if dark else "#b9bcc2")
    axes.tick_params(colors=ink, labelsize=9)
    axes.xaxis.label.set_color(ink)
    axes.yaxis.label.set_color(ink)
    axes.grid(True, color="#3b3f47" if dark else "#e8e8ea", linewidth=0.8)
    axes.set_axisbelow(True)


def smoothed(values: Sequence[float], window: int = 0) -> list[float]:
    """Return running means over the last `window` values; by default a fiftieth of them."""
    window = window or max(1, len(values) // 50)
    result, total = [], 0.0
    for i, value in enumerate(values):
        total += value - (values[i - window] if i >= window else 0.0)
        result.append(total / min(i + 1, window))
    return result


def draw_learning_rate(steps: Sequence[int], rates: Sequence[float]) -> Figure:
    """Return a figure of the learning rate at these steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 3.2), layout="constrained")
    axes = figure.subplots()
    style(axes, "#2b2e33", dark=False)
    axes.plot(steps, rates, color=COLOURS[0], linewidth=2)
    axes.set_xlabel("step")
    axes.set_ylabel("learning rate")
    return figure


def save_figure(figure: Figure, path: Path, *, formats: Sequence[str] = ("png", "pdf")) -> None:
    """Write a figure beside `path` in each format, on white."""
    import matplotlib

    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(FONT):
        for kind in formats:
            temporary = path.with_name(f".{path.name}.tmp.{kind}")
            undated = {"CreationDate": None} if kind == "pdf" else {}  # equal figures are equal files
            figure.savefig(temporary, dpi=150, facecolor="white", format=kind, metadata=undated)
            temporary.replace(path.with_suffix(f".{kind}"))
