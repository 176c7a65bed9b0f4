"""What a captioner is worth that is begun with for pictures and captions of another kind, and at which learning rate.

    python -m benchmarks other_pictures [--rates 0.0005 0.0002 0.0001]

The captioner is that of `python -m benchmarks transfer`, trained on 5,000 photographs of Flickr8k (it is trained first where it is not there); the pictures are the 80 of COCO in
../shared/data/coco_mini, five captions each. Four times 60 are trained on and the other 20 captioned, so that each is captioned once. Scores are the
means of the four, by `img2seq evaluate --no-repeat-ngram 2`; of the captioner untouched, of `img2seq init` alone, and of `img2seq init --pretrained-run RUN` at several learning rates, each at its
least validation loss. Losses are of the vocabulary that training ends with: comparable between the captioner and its fine-tuned ones alone.
Writes benchmarks/results/other_pictures.json.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks import transfer
from benchmarks.figures import save
from benchmarks.peers import ROOT

COCO = ROOT.parent / "shared/data/coco_mini"
PHOTOGRAPHS, CAPTIONS = COCO / "train2017", COCO / "annotations/captions_train2017.json"
N_VALID = 20
UNTOUCHED, NOTHING = "the captioner, untouched", "`init`, begun with nothing"


def main(line: list[str]) -> None:
    """Train and score them, print the table and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.0005, 0.0002, 0.0001])
    rates = parser.parse_args(line).rates
    rows: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        transfer.train_captioner(folder, transfer.draw_photographs(transfer.splits()))
        for number, ids in enumerate(parts_of_photographs()):
            part = Part(folder / f"{number}.txt", folder / f"{number}.json")
            transfer.write_ids(part.ids, ids)
            write_captions(part.captions, ids)
            of_part = {UNTOUCHED: part.scores(transfer.CAPTIONER_RUN, folder / f"{number}_untouched")}
            of_part[NOTHING] = train(folder / f"{number}_nothing", part, None)
            for rate in rates:
                run = folder / f"{number}_{rate}"
                of_part[f"fine-tuned at {rate}"] = train(run, part, rate)
                of_part[UNTOUCHED]["loss"] = first_loss(run)
            for row, scores in of_part.items():
                print(number, row, scores, flush=True)
                rows.setdefault(row, []).append(scores)
    save("other_pictures", {"valid": N_VALID, "rows": rows})
    print(table(rows))


def parts_of_photographs() -> list[list[str]]:
    """Return the ids of all photographs in parts of 20."""
    ids = sorted(path.stem for path in PHOTOGRAPHS.iterdir())
    random.Random(0).shuffle(ids)
    return [ids[start : start + N_VALID] for start in range(0, len(ids), N_VALID)]


@dataclass(frozen=True)
class Part:
    """Files with the ids of the photographs that are captioned, and with their captions."""

    ids: Path
    captions: Path

    def scores(self, run: Path, output: Path) -> dict[str, float]:
        """Return CIDEr-D and loss of a run on these photographs."""
        found = transfer.scores(run, output, self.captions, PHOTOGRAPHS)
        return {name: found[name] for name in ("cider_d", "loss")}


def write_captions(path: Path, ids: list[str]) -> None:
    """Write the captions of some photographs as COCO does."""
    all_of_them = json.loads(CAPTIONS.read_text(encoding="utf-8"))
    images = [image for image in all_of_them["images"] if Path(image["file_name"]).stem in ids]
    numbers = {image["id"] for image in images}
    captions = [caption for caption in all_of_them["annotations"] if caption["image_id"] in numbers]
    path.write_text(json.dumps({"images": images, "annotations": captions}), encoding="utf-8")


def train(run: Path, part: Part, rate: float | None) -> dict[str, float]:
    """Return the scores of what `init` writes; begun with the captioner where a rate is given."""
    experiment = Path(f"{run}.yaml")
    sections = transfer.written_by_init(PHOTOGRAPHS, CAPTIONS, experiment, with_captioner=rate is not None)
    transfer.validate_on(sections, part.ids, run)
    sections["globals"]["optimization"] |= {"lr": rate} if rate else {}
    transfer.train(experiment, sections)
    return part.scores(run, run / "scores")


def first_loss(run: Path) -> float:
    """Return the validation loss before the first step, with the words that are new."""
    with (run / "history_valid.csv").open(encoding="utf-8", newline="") as file:
        return float(next(csv.DictReader(file))["valid_loss"])


def table(rows: dict[str, list[dict[str, float]]]) -> str:
    """Return the means of the four parts, and each part's CIDEr-D, as Markdown."""
    lines = ["| | CIDEr-D | loss |", "|---|---|---|"]
    for row, parts in rows.items():
        means = {name: statistics.mean(part[name] for part in parts) for name in ("cider_d", "loss")}
        each = ", ".join(f"{part['cider_d']:.3f}" for part in parts)
        lines.append(f"| {row} | {means['cider_d']:.3f} ({each}) | {means['loss']:.3f} |")
    return "\n".join(lines)
