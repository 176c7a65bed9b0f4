"""Compare runs in numbers: losses of the same images, what the image adds, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from img2seq.config.load import load_config
from img2seq.config.show import to_flat
from img2seq.data.seeds import generator
from img2seq.errors import RunError
from img2seq.progress import counted
from img2seq.report.evaluation_page import METRIC_NAMES
from img2seq.run.folder import RunFolder, open_run, read_json
from img2seq.run.results import digests
from img2seq.run.tables import read_table

RESAMPLES = 10_000
Interval = tuple[float, float]


@dataclass(frozen=True)
class Run:
    """What a finished run says of itself.

    Attributes:
        folder: where it is.
        name: its folder's name, with its parent's where two runs are named alike.
        has_image: whether it sees images.
        summary: of its best checkpoint, see run/folder.py.
        losses: image id to (nats, tokens, nats with another's image or None) of its best checkpoint.
        scores: of `img2seq evaluate`, where it has been run.
    """

    folder: RunFolder
    name: str
    has_image: bool
    summary: dict[str, Any]
    losses: dict[str, tuple[float, int, float | None]]
    scores: dict[str, float]

    @property
    def best_loss(self) -> float:
        return float(self.summary["valid_loss"])

    @property
    def best_by(self) -> str:
        """Return what its best checkpoint was chosen by: the loss, or a score of captions made while it trained."""
        return str(self.summary.get("best_by", "loss"))


@dataclass(frozen=True)
class Gain:
    """How much lower a run's loss is than the baseline's, over the images that both were validated on.

    Attributes:
        baseline: name of the baseline.
        run: name of the other run.
        nats_per_token: baseline's loss less the run's: above 0, the run is better.
        ci95: 95 % bootstrap interval over images.
        n_images: shared validation images.
        refused: why there is no number, where there is none.
    """

    baseline: str
    run: str
    nats_per_token: float | None
    ci95: Interval | None
    n_images: int
    refused: str = ""


def read_runs(paths: Sequence[str | Path]) -> list[Run]:
    """Read finished runs. Raises RunError for one that is not finished, or named twice."""
    folders = [open_run(path) for path in paths]
    resolved = [folder.path.resolve() for folder in folders]
    if len(set(resolved)) < len(resolved):
        raise RunError(f"compare: expected different runs, found one twice: {', '.join(str(path) for path in paths)}")
    names = [folder.name for folder in folders]
    names = [
        name if names.count(name) == 1 else "/".join(path.parts[-2:])
        for name, path in zip(names, resolved, strict=True)
    ]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    return [_read_run(folder, name) for folder, name in zip(folders, names, strict=True)]


def _read_run(folder: RunFolder, name: str) -> Run:
    if folder.export.is_file():
        raise RunError(
            f"{folder.path}: is an export, without the losses that are compared: name the run it was made from"
        )
    if not (folder.validation / "summary.json").is_file():
        raise RunError(f"{folder.path}: not finished: it has no validation/summary.json; continue with --resume")
    losses = {}
    for row in read_table(folder.validation / "images.csv"):
        shuffled = row.get("loss_nats_shuffled")
        losses[row["image_id"]] = (float(row["loss_nats"]), int(row["tokens"]), float(shuffled) if shuffled else None)
    metrics = folder.path / "evaluation" / "metrics.json"
    scores = {k: v for k, v in read_json(metrics).items() if k in METRIC_NAMES} if metrics.is_file() else {}
    summary = read_json(folder.validation / "summary.json")
    return Run(folder, name, bool(load_config(folder.config).inputs), summary, losses, scores)


def inputs_of(runs: Sequence[Run]) -> dict[str, Any]:
    """Return which runs a comparison is of, and digests of what it reads of them."""
    files = ("config.yaml", "history_train.csv", "history_valid.csv", "evaluation/metrics.json")
    of_validation = ("summary.json", "images.csv", "captions.json")
    folders = [run.folder for run in runs]
    read = [[*(f.path / name for name in files), *(f.validation / name for name in of_validation)] for f in folders]
    return {
        "runs": [str(folder.path.resolve()) for folder in folders],
        "runs_sha256": [digests(paths) for paths in read],
    }


def choose_baseline(runs: Sequence[Run]) -> Run:
    """Return the run without images if there is exactly one, else the first."""
    blind = [run for run in runs if not run.has_image]
    return blind[0] if len(blind) == 1 else runs[0]


def gain_over(baseline: Run, run: Run) -> Gain:
    """Compare the losses of two runs, image by image."""
    shared = [image_id for image_id in baseline.losses if image_id in run.losses]
    refused = ""
    if baseline.summary["tokenizer"] != run.summary["tokenizer"]:
        refused = "their vocabularies differ, and with them what a token is"
    elif len(shared) < 2:
        refused = f"they share {counted(len(shared), 'validation image')}"
    elif any(baseline.losses[i][1] != run.losses[i][1] for i in shared):
        refused = "their captions were cut at different lengths"
    if refused:
        return Gain(baseline.name, run.name, None, None, len(shared), refused)
    ours, theirs = (np.array([r.losses[i][0] for i in shared]) for r in (run, baseline))
    tokens = np.array([run.losses[i][1] for i in shared], dtype=np.float64)
    value, interval = bootstrap(theirs - ours, tokens)
    return Gain(baseline.name, run.name, value, interval, len(shared))


def shuffled_gain(run: Run) -> tuple[float, Interval] | None:
    """Return how much the loss rises when images are shuffled among captions; None for a run without images."""
    rows = [(nats, tokens, shuffled) for nats, tokens, shuffled in run.losses.values() if shuffled is not None]
    if len(rows) < 2:
        return None
    nats, tokens, shuffled = (np.array(column, dtype=np.float64) for column in zip(*rows, strict=True))
    return bootstrap(shuffled - nats, tokens)


def bootstrap(nats: NDArray[np.float64], tokens: NDArray[np.float64], *, seed: int = 0) -> tuple[float, Interval]:
    """Return sum(nats) / sum(tokens) with its 95 % percentile interval over resampled images (Efron 1979)."""
    rng, n = generator("bootstrap", seed), len(nats)
    ratios = []
    chunk = max(1, 2_000_000 // n)
    for start in range(0, RESAMPLES, chunk):
        counts = rng.multinomial(n, np.full(n, 1 / n), size=min(chunk, RESAMPLES - start))
        ratios.append((counts @ nats) / (counts @ tokens))
    low, high = np.percentile(np.concatenate(ratios), [2.5, 97.5])
    return float(nats.sum() / tokens.sum()), (float(low), float(high))


def loss_interval(run: Run, *, shuffled: bool = False) -> tuple[float, Interval]:
    """Return a run's validation loss, with its own or with shuffled images, and its bootstrap interval."""
    rows = [(s if shuffled else nats, tokens) for nats, tokens, s in run.losses.values()]
    nats, tokens = (np.array(column, dtype=np.float64) for column in zip(*rows, strict=True))
    return bootstrap(nats, tokens)


def config_differences(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Return (key, value in each run) of every field that is not alike in all runs."""
    flat = [to_flat(load_config(run.folder.config)) for run in runs]
    keys = sorted({key for values in flat for key in values})
    rows = [(key, [values.get(key, "–") for values in flat]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1 and not key.endswith("output_folder")]


def as_json(runs: Sequence[Run], baseline: Run, gains: Sequence[Gain]) -> dict[str, Any]:
    """Return the comparison as plain data; `gain` is that of the best run over the baseline."""
    entries = []
    for run in runs:
        shuffled = shuffled_gain(run)
        entries.append(
            {
                "name": run.name,
                "path": str(run.folder.path),
                "has_image": run.has_image,
                "best_validation_loss": run.best_loss,
                "perplexity": math.exp(run.best_loss),
                "best_by": run.best_by,
                "validation_scores": run.summary.get("scores"),
                "best_step": run.summary["step"],
                "steps": run.summary["steps"],
                "parameters": run.summary["parameters"],
                "elapsed_s": run.summary["elapsed_s"],
                "captions_per_s": run.summary["captions_per_s"],
                "shuffled_images": None
                if shuffled is None
                else {
                    "validation_loss": loss_interval(run, shuffled=True)[0],
                    "rise_nats_per_token": shuffled[0],
                    "ci95": list(shuffled[1]),
                },
                "scores": run.scores,
            }
        )
    all_gains = [gain_as_json(gain) for gain in gains]
    measured = [gain for gain in gains if gain.nats_per_token is not None]
    best = max(measured, key=lambda gain: gain.nats_per_token or 0.0) if measured else next(iter(gains), None)
    chosen = None if best is None else gain_as_json(best)
    return {"baseline": baseline.name, "runs": entries, "gain": chosen, "gains": all_gains}


def gain_as_json(gain: Gain) -> dict[str, Any]:
    """Return a gain as plain data."""
    return {
        "baseline": gain.baseline,
        "run": gain.run,
        "nats_per_token": gain.nats_per_token,
        "ci95": list(gain.ci95) if gain.ci95 else None,
        "images": gain.n_images,
        "refused": gain.refused or None,
    }
