"""Keep what a run of Flickr8k came to, and print the table of the runs that were kept, with text beside scores.

    python -m benchmarks flickr8k RUN --row NAME [--says "+ self-critical"] [--run RUN ...]
    python -m benchmarks flickr8k                    # the table alone

RUN has been evaluated (`img2seq evaluate RUN`). Several runs of one row, which differ in their seed, are given with --run; the table shows
their mean, and the least and the most, and under it stand the commands of each row: the shipped file with what is changed of it. Of an
ensemble RUN is the first member and --evaluation the folder of the evaluation of all; minutes are those of all. Writes
benchmarks/results/flickr8k_NAME.json: how the run was made, its scores, its history, what its captions are like, and ten of them that a fixed
seed draws among the images.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import shlex
from pathlib import Path
from typing import Any

from benchmarks.figures import RESULTS, result, save
from benchmarks.peers import ROOT
from img2seq.config.decoding import Decoding
from img2seq.config.load import load_config
from img2seq.config.schema import Experiment
from img2seq.config.show import to_flat, value_text

SHIPPED = ROOT / "examples/flickr8k/experiment.yaml"
# Where things are on a machine, who reads them, and what is kept does not change what comes out.
NEUTRAL = (
    "output_folder", "cache_folder", "manual_valid_ids_file", "input_source", "output_source", "dataloader_workers", "n_saved_models",
)  # fmt: skip
SEARCH = ("method", "beam_size", "length_penalty", "no_repeat_ngram")  # what the searches of rows may differ in
SCORES = ("bleu_4", "meteor", "cider_d", "rouge_l", "loss")
N_CAPTIONS = 10


def main(line: list[str]) -> None:
    """Keep the row that is named, if one is, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", type=Path)
    parser.add_argument("--run", dest="others", action="append", type=Path, default=[])
    parser.add_argument("--evaluation", default="evaluation", help="folder of the evaluation within RUN")
    parser.add_argument("--row")
    parser.add_argument("--says", help="what the row stands for")
    arguments = parser.parse_args(line)
    if arguments.run is not None:
        if arguments.row is None:
            parser.error("--row NAME is needed: what the row is kept as")
        runs = [kept(run, arguments.evaluation) for run in (arguments.run, *arguments.others)]
        save(f"flickr8k_{arguments.row}", {"says": arguments.says or arguments.row, "runs": runs})
    print(table())


def kept(run: Path, evaluation: str) -> dict[str, Any]:
    """Return what a run came to."""
    metrics = json.loads((run / evaluation / "metrics.json").read_text())
    captions = {one["image_id"]: one["caption"] for one in json.loads((run / evaluation / "captions.json").read_text())}
    drawn = random.Random(0).sample(sorted(captions), N_CAPTIONS)
    with (run / "history_valid.csv").open(encoding="utf-8", newline="") as file:
        history = list(csv.DictReader(file))
    environment = json.loads((run / "environment.json").read_text())
    members = metrics.get("models", [run.name])
    return {
        "config": flat(run / "config.yaml"),
        "members": len(members),
        "minutes": round(len(members) * float(history[-1]["elapsed_s"]) / 60, 1),
        "threads": environment["torch_threads"],
        "step": metrics.get("step"),
        "scores": {name: metrics[name] for name in SCORES if name in metrics},
        "intervals_95": {name: metrics["intervals_95"][name] for name in SCORES if name in metrics["intervals_95"]},
        "decoding": {name: metrics["decoding"][name] for name in SEARCH},
        "captions": metrics["diversity"],
        "ten": {image_id: captions[image_id] for image_id in drawn},
        "history": history,
    }


def table() -> str:
    """Return the kept rows as Markdown, in the order of their names."""
    lines = [
        "| | minutes | BLEU-4 | METEOR | CIDEr-D | ROUGE-L | loss | distinct of 1,000 | words used | mean length | end badly |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for path in _rows():
        row = result(path.stem)
        runs = row["runs"]
        scores = [_mean([run["scores"][name] for run in runs if name in run["scores"]], 3) for name in SCORES]
        texts = [
            _mean([run["captions"][name] for run in runs], digits)
            for name, digits in (("distinct_captions", 0), ("vocabulary_used", 0), ("mean_length", 1))
        ]
        badly = _mean([100 * run["captions"]["bad_endings_ratio"] for run in runs], 1)
        minutes = _mean([run["minutes"] for run in runs], 0)
        lines.append(f"| {row['says']} | {' | '.join([minutes, *scores, *texts, f'{badly} %'])} |")
    return "\n".join([*lines, "", *(f"- {result(path.stem)['says']}: `{command(path.stem)}`" for path in _rows())])


def command(row: str) -> str:
    """Return the commands that train and score what a row stands for, by the shipped file of today; of several seeds for the first."""
    runs = result(row)["runs"]
    now, then = flat(SHIPPED), of_consequence(runs[0]["config"])
    names = [name for name in now if name not in then and not any(key.startswith(f"{name}.") for key in then)]
    names += [name for name in then if now.get(name) != then[name]]
    changed = [f"--{name}={then.get(name, 'null')}" for name in names]
    said = [
        f"--{name.replace('_', '-')}={value}"
        for name, value in runs[0]["decoding"].items()
        if value != getattr(Decoding(), name)
    ]
    train = shlex.join(["img2seq", "train", str(SHIPPED.relative_to(ROOT)), *changed])
    return f"{train} && {shlex.join(['img2seq', 'evaluate', *['RUN'] * runs[0].get('members', 1), *said])}"


def flat(path: Path) -> dict[str, str]:
    """Return the values of a configuration that decide what comes out, as the command line takes them, by dotted key."""
    return flat_config(load_config(path))


def flat_config(config: Experiment) -> dict[str, str]:
    """Return the same of one that is loaded."""
    values = to_flat(config) | {
        "globals.phases": value_text([p.model_dump(exclude_none=True) for p in config.globals.phases])
    }
    return of_consequence({name: "null" if value == "None" else value for name, value in values.items()})


def of_consequence(values: dict[str, str]) -> dict[str, str]:
    """Return the values that decide what comes out."""
    return {name: value for name, value in values.items() if name.rpartition(".")[2] not in NEUTRAL}


def _rows() -> list[Path]:
    return sorted(RESULTS.glob("flickr8k_*.json"))


def _mean(values: list[float], digits: int) -> str:
    if not values:
        return ""
    mean = f"{sum(values) / len(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.{digits}f} to {max(values):.{digits}f})"


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
