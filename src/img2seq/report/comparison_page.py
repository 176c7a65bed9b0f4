"""`img2seq compare`: figures, a table, and one self-contained page."""

from __future__ import annotations

import base64
import hashlib
import io
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from img2seq.errors import RunError
from img2seq.progress import counted
from img2seq.report.comparison import (
    Gain,
    Run,
    as_json,
    choose_baseline,
    config_differences,
    gain_over,
    inputs_of,
    loss_interval,
    read_runs,
    shuffled_gain,
)
from img2seq.report.curves import COLOURS, Curve, draw_losses, read_curve, save_figure, style
from img2seq.report.evaluation_page import METRIC_NAMES, page_template
from img2seq.run.folder import read_json
from img2seq.run.results import MADE_FROM, check_results_folder
from img2seq.run.write import write_json, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FILES = ("compare.json", "report.html", "losses.png", "losses.pdf", "images.png", "images.pdf")
LONGEST_NAME = 100
SKIP_STEPS = 200  # of the curves, at most a tenth of the run: the first fall hides the rest


def compare(paths: Sequence[str | Path], output: str | Path | None = None, *, overwrite: bool = False) -> str:
    """Compare finished runs; write compare.json, figures and report.html; return a table for the terminal.

    Args:
        paths: run folders. The text-only run among them is the baseline, else the first.
        output: the folder to write; by default `compare_<names>` beside the first run.
        overwrite: replace a comparison of other runs, or of these as they were before.

    Raises:
        RunError: for folders that are not finished runs, and an output that cannot be written or would replace another.
    """
    runs = read_runs(paths)
    folder = Path(output) if output is not None else default_folder(runs)
    made_from = inputs_of(runs)
    check_results_folder(folder, FILES, made_from, overwrite=overwrite)
    baseline = choose_baseline(runs)
    gains = [gain_over(baseline, run) for run in runs if run is not baseline]
    curves = [curve_of(run) for run in runs]
    save_figure(draw_losses(curves, title="Loss of each run", skip_steps=SKIP_STEPS), folder / "losses")
    save_figure(draw_what_images_add(runs), folder / "images")
    data = as_json(runs, baseline, gains) | {MADE_FROM: made_from}
    write_json(folder / "compare.json", data)
    write_text(folder / "report.html", page(runs, baseline, gains, data))
    return f"{table(runs, baseline, gains)}\n\nreport: {folder / 'report.html'}"


def default_folder(runs: Sequence[Run]) -> Path:
    """Return `compare_<names>` beside the first run."""
    names = "_".join(re.sub(r"[^\w.-]+", "_", run.name) for run in runs)
    if len(names) > LONGEST_NAME:  # of more a file system may not make a folder
        names = f"{names[:LONGEST_NAME]}_{hashlib.sha256(names.encode()).hexdigest()[:8]}"
    first = runs[0].folder
    here = first.path if first.path.name == first.name else first.path.resolve()  # "." is in the run itself
    return here.parent / f"compare_{names}"


def curve_of(run: Run) -> Curve:
    """Return a run's losses under the name it has in this comparison."""
    return replace(read_curve(run.folder), name=run.name)


def table(runs: Sequence[Run], baseline: Run, gains: Sequence[Gain]) -> str:
    """Return the comparison as text."""
    width = max(12, *(len(run.name) for run in runs))
    lines = [
        f"{'run':<{width}}  {'valid loss':>10}  {'perplexity':>10}  {'parameters':>12}  {'time':>8}  {'captions/s':>10}"
    ]
    for run in runs:
        speed = run.summary["captions_per_s"]
        lines.append(
            f"{run.name:<{width}}  {run.best_loss:>10.4f}  {math.exp(run.best_loss):>10.2f}  {run.summary['parameters']:>12,}  "
            f"{clock(run.summary['elapsed_s']):>8}  {f'{speed:.0f}' if speed else '-':>10}"
        )
    lines.append("")
    lines += [say_gain(gain) for gain in gains]
    lines += [say_shuffled(run) for run in runs if shuffled_gain(run) is not None]
    lines += [say_chosen(run) for run in runs if run.best_by != "loss"]
    return "\n".join(lines)


def may_be_chance(interval: Sequence[float]) -> bool:
    """Return whether an interval of a gain holds zero."""
    return interval[0] <= 0 <= interval[1]


def say_gain(gain: Gain) -> str:
    """Return a gain as one sentence."""
    if gain.nats_per_token is None or gain.ci95 is None:
        return f"{gain.run} cannot be compared with {gain.baseline}: {gain.refused}"
    low, high = gain.ci95
    sure = "; the interval holds zero, so this may be chance" if may_be_chance(gain.ci95) else ""
    word = "below" if gain.nats_per_token >= 0 else "above"
    return f"{gain.run} is {abs(gain.nats_per_token):.4f} nats per token {word} {gain.baseline} (95 % interval of the gain {low:.4f} to {high:.4f}, {counted(gain.n_images, 'image')}){sure}"


def say_shuffled(run: Run) -> str:
    """Return what shuffling the images does to a run, as one sentence."""
    measured = shuffled_gain(run)
    assert measured is not None
    value, (low, high) = measured
    verdict = "it uses its images" if low > 0 else "it does not use its images"
    return f"{run.name} with images shuffled among captions loses {value:.4f} nats per token (95 % interval {low:.4f} to {high:.4f}): {verdict}"


def say_chosen(run: Run) -> str:
    """Return what the checkpoint of a run was chosen by that is not of lowest loss, as one sentence."""
    name, score = METRIC_NAMES[run.best_by], run.summary["scores"][run.best_by]
    return f"{run.name}'s best checkpoint is that of highest {name}, {score:.4f} on validation images; an earlier one may have a lower loss"


def clock(seconds: float) -> str:
    """Return seconds as h:mm:ss or m:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def draw_what_images_add(runs: Sequence[Run], *, dark: bool = False) -> Figure:
    """Return a figure of each run's loss with its interval, and with shuffled images beside it."""
    from matplotlib.figure import Figure

    ink = "#e6e3dc" if dark else "#2b2e33"
    rows = []
    for run, colour in zip(runs, COLOURS * (1 + len(runs) // len(COLOURS)), strict=False):
        rows.append((run.name, *loss_interval(run), colour, True))
        if shuffled_gain(run) is not None:
            rows.append((f"{run.name},\nimages shuffled", *loss_interval(run, shuffled=True), colour, False))
    figure = Figure(figsize=(7.6, 0.62 * len(rows) + 1.0), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.subplots()
    style(axes, ink, dark)
    for y, (_, loss, (low, high), colour, filled) in enumerate(reversed(rows)):
        axes.plot([low, high], [y, y], color=colour, linewidth=2.5, alpha=0.6, solid_capstyle="round")
        axes.plot(
            [loss],
            [y],
            "o",
            color=colour,
            markersize=9,
            markerfacecolor=colour if filled else "none",
            markeredgewidth=2,
        )
        axes.annotate(f"{loss:.3f}", (loss, y), (0, 9), textcoords="offset points", ha="center", fontsize=9, color=ink)
    axes.set_yticks(range(len(rows)), [name for name, *_ in reversed(rows)])
    axes.set_ylim(-0.6, len(rows) - 0.3)
    axes.set_xlabel("validation loss (nats per token, lower is better) with 95 % interval")
    return figure


# --- the page --------------------------------------------------------------------------------------------


def page(runs: Sequence[Run], baseline: Run, gains: Sequence[Gain], data: dict[str, Any]) -> str:
    """Return the report as one HTML file that needs nothing else."""
    curves = [curve_of(run) for run in runs]
    scores = {key: name for key, name in METRIC_NAMES.items() if any(key in run.scores for run in runs)}
    return page_template("compare.html").render(
        runs=data["runs"],
        colours=dict(zip((run.name for run in runs), COLOURS * len(runs), strict=False)),
        baseline=baseline.name,
        gain=data["gain"],
        gain_sentences=[say_gain(gain) for gain in gains],
        shuffled_sentences=[say_shuffled(run) for run in runs if shuffled_gain(run) is not None]
        + [say_chosen(run) for run in runs if run.best_by != "loss"],
        clock=clock,
        may_be_chance=may_be_chance,
        exp=math.exp,
        scores=scores,
        losses_figure=[
            as_svg(draw_losses(curves, title="", skip_steps=SKIP_STEPS, dark=dark)) for dark in (False, True)
        ],
        images_figure=[as_svg(draw_what_images_add(runs, dark=dark)) for dark in (False, True)],
        differences=config_differences(runs),
        gallery=gallery(runs),
    )


def as_svg(figure: Figure) -> str:
    """Return a figure as a data URI; equal figures are equal text."""
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "img2seq"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def _picture(run: Run, name: str) -> Path:
    """Return a picture of a run folder, which may come from anywhere: nothing else may get into the page."""
    path = run.folder.validation / name
    if not path.resolve().is_relative_to(run.folder.validation.resolve()):
        raise RunError(f"{run.folder.validation / 'captions.json'}: {name!r} leads out of the run folder")
    return path


def gallery(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return the images that every run captioned, each with its picture and each run's caption."""
    of_run = {
        run.name: {entry["image_id"]: entry for entry in read_json(run.folder.validation / "captions.json")}
        for run in runs
    }
    first = next(iter(of_run.values()))
    shared = [image_id for image_id in first if all(image_id in entries for entries in of_run.values())]
    shown = []
    for image_id in shared:
        picture = next(
            (
                _picture(run, of_run[run.name][image_id]["picture"])
                for run in runs
                if "picture" in of_run[run.name][image_id]
            ),
            None,
        )
        uri = "" if picture is None else "data:image/jpeg;base64," + base64.b64encode(picture.read_bytes()).decode()
        captions = [(run.name, of_run[run.name][image_id]["caption"]) for run in runs]
        shown.append({"image_id": image_id, "picture": uri, "captions": captions, "true": first[image_id]["true"]})
    return shown
