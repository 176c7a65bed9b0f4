"""Training, side by side with EIR: the tutorial's four files, the same photographs, split, vocabulary and threads.

    python -m benchmarks training [--repeats 3]

Short runs (2,500 images, one epoch) give speed, start, evaluation, samples and memory; `python -m benchmarks tutorial` runs the
whole of it. Both sides are run in turn as whole processes with time stamps around their own steps; the first run of either, which
fills caches, is not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.figures import save, show, spread
from benchmarks.peers import EIR, interpreter
from benchmarks.photographs import ROOT, photographs

FILES = ROOT / "examples" / "tutorial"
TIMED = Path(__file__).with_name("timed")
BATCH = 64
SHORT_IMAGES = 2500
WARM_STEPS = 3  # not counted
KINDS = ("image", "text", "five")  # one caption an image; captions alone; five captions an image, which only ours can


def arguments(kind: str, data: dict[str, Path], output: Path, *, epochs: int, interval: int, workers: int) -> list[str]:
    """Return the command line, the same on both sides."""
    globals_ = {
        "basic_experiment.output_folder": output, "basic_experiment.n_epochs": epochs, "basic_experiment.dataloader_workers": workers,
        "basic_experiment.manual_valid_ids_file": data["valid_ids"], "basic_experiment.batch_size": BATCH,
        "evaluation_checkpoint.sample_interval": interval, "evaluation_checkpoint.checkpoint_interval": interval,
    }  # fmt: skip
    if kind == "five":
        globals_["basic_experiment.captions_per_image"] = 5
    line = ["--global_configs", str(FILES / "globals.yaml"), "--fusion_configs", str(FILES / "fusion.yaml")]
    line += ["--output_configs", str(FILES / "output.yaml")]
    line += [f"--globals.{key}={value}" for key, value in globals_.items()]
    line += [f"--output.output_info.output_source={data['five' if kind == 'five' else 'one']}"]
    if kind != "text":
        line += ["--input_configs", str(FILES / "inputs_resnet18.yaml")]
        line += [f"--inputs_resnet18.input_info.input_source={data['images']}"]
    return line


def run(side: str, line: list[str], output: Path) -> dict[str, Any]:
    """Run one side as a process of its own and return what it did when."""
    python = str(interpreter(EIR)) if side == "eir" else sys.executable
    shutil.rmtree(output, ignore_errors=True)
    events = output.with_suffix(".json")
    environment = os.environ | {"BENCHMARK_START": repr(time.time()), "PYTHONPATH": str(ROOT / "src")}
    if side == "eir":
        environment.pop("PYTHONPATH")
    command = [python, str(TIMED / f"run_{side}.py"), str(events), *line]
    log = output.with_suffix(".log")
    with log.open("w") as file:
        done = subprocess.run(command, env=environment, stdout=file, stderr=file, check=False, cwd=output.parent)
    if done.returncode or not events.is_file():
        sys.exit(f"{side} failed; see {log}:\n{log.read_text()[-2000:]}")
    found: dict[str, Any] = json.loads(events.read_text())
    return found


def figures(events: dict[str, Any], captions_per_step: float) -> dict[str, float]:
    """Return the figures of one run."""
    steps, evaluations = events["steps"], events["evaluations"]
    between = [
        later[1] - earlier[1] for earlier, later in zip(steps[WARM_STEPS - 1 :], steps[WARM_STEPS:], strict=False)
    ]
    quiet = [  # an evaluation between two steps is not a step's time
        took for took, later in zip(between, steps[WARM_STEPS:], strict=True)
        if not any(later[0] - took < begun < later[0] for begun, _ in evaluations)
    ]  # fmt: skip
    return {
        "captions_per_s": captions_per_step / statistics.mean(quiet),
        "start_s": steps[0][0] - events["start"],
        "evaluation_s": evaluations[0][1] - evaluations[0][0],
        "samples_s": events["samples"][0][1] - events["samples"][0][0],
        "whole_s": events["end"] - events["start"],
        "peak_gb": events["peak_bytes"] / 1e9,
    }


def short(kind: str, folder: Path, repeats: int, workers: int) -> dict[str, Any]:
    """Measure both sides in turn on one short epoch."""
    data = photographs(folder / "short", SHORT_IMAGES)
    sides = ("ours",) if kind == "five" else ("eir", "ours")
    found: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    steps = (SHORT_IMAGES - 500) // BATCH
    for repeat in range(repeats + 1):  # the first fills caches and is not counted
        for side in sides:
            output = folder / f"{side}_{kind}"
            events = run(side, arguments(kind, data, output, epochs=1, interval=steps, workers=workers), output)
            if repeat:
                per_step = BATCH if kind != "five" else 5 * (BATCH // 5)
                found[side].append(figures(events, per_step))
                print(f"  {kind} {side}: " + ", ".join(f"{k} {v:.2f}" for k, v in found[side][-1].items()), flush=True)
    return {side: {name: spread([one[name] for one in runs]) for name in runs[0]} for side, runs in found.items()}


# work, the kind EIR did, the kind we did, which figure, goal. More captions a second are better, less of anything else.
COMPARED = (
    ("training, image+text, 5 captions an image, captions/s", "image", "five", "captions_per_s", 10),
    ("training, image+text, 1 caption an image, captions/s", "image", "image", "captions_per_s", 3),
    ("training, text only, captions/s", "text", "text", "captions_per_s", 6),
    ("start to first step, image+text, s", "image", "image", "start_s", 10),
    ("evaluation of 500 captions, s", "image", "image", "evaluation_s", 5),
    ("10 sampled captions, s", "image", "image", "samples_s", 20),
    ("peak memory, image+text, GB", "image", "image", "peak_gb", 2),
)
TWO_DIGITS = ("evaluation_s", "samples_s", "peak_gb")


def table(results: dict[str, Any]) -> list[tuple[str, str, str, float, str]]:
    """Return rows: work, EIR, ours, ratio in our favour, goal."""
    rows: list[tuple[str, str, str, float, str]] = []
    for work, kind_of_peer, kind, figure, goal in COMPARED:
        peer, ours = results["short"][kind_of_peer]["eir"][figure], results["short"][kind]["ours"][figure]
        ratio = ours["median"] / peer["median"]
        cells = [show(one, 2 if figure in TWO_DIGITS else 1) for one in (peer, ours)]
        rows.append((work, *cells, ratio if figure == "captions_per_s" else 1 / ratio, str(goal)))
    return rows


def main(line: list[str]) -> None:
    """Measure, print the table and write benchmarks/results/training.json."""
    options = argparse.ArgumentParser(prog="python -m benchmarks training", description=__doc__)
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--workers", type=int, default=0, help="loader workers in short runs, on both sides")
    options.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    options.add_argument("--folder", type=Path, help="keep the runs there")
    chosen = options.parse_args(line)
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        found: dict[str, Any] = {"short": {}}
        for kind in chosen.kinds:
            found["short"][kind] = short(kind, folder, chosen.repeats, chosen.workers)
    if set(chosen.kinds) == set(KINDS):
        rows = table(found)
        print(f"\n{'work':<58}{'EIR 0.25.0':>22}{'img2seq':>22}{'ratio':>8}{'goal':>6}")
        for work, peer, ours, ratio, goal in rows:
            print(f"{work:<58}{peer:>22}{ours:>22}{ratio:>7.1f}x{goal:>6}")
        save("training", found | {"table": rows})
