"""Which way helps with few photographs, and from how many: CIDEr-D against the number of training photographs.

    python -m benchmarks transfer --base RUN [--photographs 50 100 200 400] [--seeds 3] [--drawn]

The photographs are those that RUN, a captioner of Flickr8k, did not see: 300 of its validation images are captioned, the others are trained on.
`pretrained encoder` is what `img2seq init` writes for so many photographs (encoder with the weights of ImageNet, frozen; a decoder from nothing);
`another captioner` is what it writes with `--pretrained-run RUN` (docs/few-photographs.md). Both are scored by `img2seq evaluate --no-repeat-ngram 2`, as init's commands say, and
choose their checkpoint by the loss of these 300. 100 and 400 photographs are trained on with every seed, the others with the first; a seed also draws
other photographs. Writes benchmarks/results/transfer.json and docs/images/transfer.png; `--drawn` only draws.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.figures import result, save
from benchmarks.peers import ROOT
from benchmarks.photographs import FLICKR8K

N_VALID = 300
WAYS = ("pretrained encoder", "another captioner")
EVERY_SEED = (100, 400)


def main(line: list[str]) -> None:
    """Train and score all points, print the table, write results and figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path)
    parser.add_argument("--photographs", type=int, nargs="+", default=[50, 100, 200, 400])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--drawn", action="store_true")
    arguments = parser.parse_args(line)
    if not arguments.drawn:
        if arguments.base is None:
            parser.error("--base RUN is needed: a captioner of Flickr8k, such as img2seq init makes of it")
        measure(arguments.base.resolve(), arguments.photographs, arguments.seeds)
    found = result("transfer")
    print(table(found))
    draw(found)


def measure(base: Path, counts: list[int], n_seeds: int) -> None:
    """Train and score every point; results are kept after each."""
    unseen = sorted(json.loads((base / "split.json").read_text())["valid"])
    random.Random(0).shuffle(unseen)
    valid, others = sorted(unseen[:N_VALID]), unseen[N_VALID:]
    points: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_captions(folder / "valid.csv", valid)
        (folder / "valid_ids.txt").write_text("\n".join(valid) + "\n")
        of_valid = ["--captions", str(folder / "valid.csv"), "--images", str(FLICKR8K / "images")]
        untouched = scores(base, folder / "untouched", *of_valid)
        for seed in range(n_seeds):
            drawn = random.Random(seed).sample(others, len(others))
            for n in (n for n in counts if n <= len(others) and (seed == 0 or n in EVERY_SEED)):
                for way in WAYS:
                    began = time.monotonic()
                    run = train(folder, base, way, drawn[:n], valid, seed)
                    seconds = time.monotonic() - began
                    points.append(
                        {"photographs": n, "way": way, "seed": seed, "seconds": round(seconds)}
                        | scores(run, run / "scores")
                    )
                    print(points[-1], flush=True)
                    save(
                        "transfer", {"base": base.name, "validation": N_VALID, "untouched": untouched, "points": points}
                    )


def train(folder: Path, base: Path, way: str, photographs: list[str], valid: list[str], seed: int) -> Path:
    """Train on some photographs and return the run."""
    name = f"{len(photographs)}_{way.split()[0]}_{seed}"
    run = folder / name
    write_captions(folder / "train.csv", photographs)
    write_captions(folder / f"{name}.csv", [*photographs, *valid])
    experiment = folder / f"{name}.yaml"
    begins = ["--pretrained-run", base] if way == WAYS[1] else []
    call("init", FLICKR8K / "images", folder / "train.csv", "--output", experiment, "--overwrite", *begins)
    overrides = {
        "globals.basic_experiment.output_folder": run,
        "globals.basic_experiment.manual_valid_ids_file": folder / "valid_ids.txt",
        "globals.basic_experiment.splits": "file",  # init draws them itself
        "globals.basic_experiment.seed": seed,
        "globals.visualization_logging.no_pbar": "true",
        "globals.evaluation_checkpoint.caption_metrics": "null",  # on many more images than init would hold out
        "outputs.captions.output_info.output_source": folder / f"{name}.csv",
    }
    call("train", experiment, *(f"--{key}={value}" for key, value in overrides.items()))
    return run


def write_captions(path: Path, ids: list[str]) -> None:
    """Write the captions of some photographs, five of each."""
    chosen = set(ids)
    with (FLICKR8K / "captions_all.csv").open(encoding="utf-8", newline="") as source, path.open("w", encoding="utf-8", newline="") as target:  # fmt: skip
        writer = csv.DictWriter(target, ["ID", "Sequence"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(row for row in csv.DictReader(source) if row["ID"] in chosen)


def scores(run: Path, output: Path, *data: str) -> dict[str, Any]:
    """Return the scores of a run on the validation photographs."""
    call("evaluate", run, "--output", output, "--no-repeat-ngram", "2", *data)
    metrics = json.loads((output / "metrics.json").read_text())
    names = ("cider_d", "bleu_4", "loss")
    return {name: metrics[name] for name in names} | {"distinct": metrics["diversity"]["distinct_captions_ratio"]}


def call(*arguments: object) -> None:
    """Run the command line in a process of its own."""
    command = [sys.executable, "-m", "img2seq", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr[-2000:]}")


def table(found: dict[str, Any]) -> str:
    """Return CIDEr-D by photographs and way as Markdown: the mean of the seeds, each of them, and how many times as much it is."""
    lines = ["| photographs | " + " | ".join(WAYS) + " | times |", "|---|---|---|---|"]
    for n in sorted({point["photographs"] for point in found["points"]}):
        of_ways = [[p["cider_d"] for p in found["points"] if (p["photographs"], p["way"]) == (n, way)] for way in WAYS]
        means = [sum(values) / len(values) for values in of_ways if values]
        cells = [
            f"{mean:.3f}" + (f" ({', '.join(f'{v:.3f}' for v in values)})" if len(values) > 1 else "")
            for mean, values in zip(means, of_ways, strict=False)
        ]
        if len(means) == len(WAYS):
            lines.append(f"| {n} | {' | '.join(cells)} | {means[1] / means[0]:.1f} |")
    untouched = found["untouched"]["cider_d"]
    return "\n".join([*lines, f"\nThe captioner begun with, untouched: {untouched:.3f}"])


def draw(found: dict[str, Any]) -> None:
    """Write docs/images/transfer.png."""
    from matplotlib.figure import Figure

    from img2seq.report.curves import COLOURS, save_figure

    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.add_subplot()
    counts = sorted({point["photographs"] for point in found["points"]})
    for way, colour in zip(WAYS, COLOURS, strict=False):
        of_way = [(p["photographs"], p["cider_d"]) for p in found["points"] if p["way"] == way]
        means = [(n, sum(v for m, v in of_way if m == n) / sum(m == n for m, _ in of_way)) for n in counts]
        axes.plot([n for n, _ in means], [mean for _, mean in means], color=colour, marker="o", label=way)
        axes.scatter([n for n, _ in of_way], [value for _, value in of_way], s=12, color=colour, alpha=0.6)
    axes.axhline(
        found["untouched"]["cider_d"], color="grey", linestyle="--", linewidth=1, label="that captioner, untouched"
    )
    axes.set_xscale("log")
    axes.set_xticks(counts, [str(n) for n in counts])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("training photographs, five captions each")
    axes.set_ylabel(f"CIDEr-D of {found['validation']} others")
    axes.legend(frameon=False)
    save_figure(figure, ROOT / "docs/images/transfer.png", formats=("png",))


if __name__ == "__main__":
    main(sys.argv[1:])
