"""The photographs and captions that benchmarks run on: Flickr8k where it is there, else generated scenes."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path

ROOT = Path(__file__).parents[1]
FLICKR8K = ROOT.parent / "shared" / "data" / "flickr8k"
VALID = 500


def photographs(folder: Path, n_images: int | None = None) -> dict[str, Path]:
    """Write captions.csv (one caption an image), captions_all.csv (five) and valid_ids.txt (500) and return their paths.

    Args:
        folder: for these files, and for generated scenes where Flickr8k is not there.
        n_images: take the first of the images only.
    """
    source = FLICKR8K
    folder.mkdir(parents=True, exist_ok=True)
    if not source.is_dir():
        from img2seq.demo.dataset import write_dataset

        source = folder / "scenes"
        write_dataset(source, n_train=(n_images or 7000) - VALID, n_valid=VALID, seed=0, size=224)
    table = source / "captions_all.csv"
    with (table if table.is_file() else source / "captions.csv").open(encoding="utf-8", newline="") as file:
        rows = [(row["ID"], row["Sequence"]) for row in csv.DictReader(file)]
    by_image = [list(group) for _, group in itertools.groupby(rows, key=lambda row: row[0])][:n_images]
    tables = {"one": [group[0] for group in by_image], "five": [row for group in by_image for row in group]}
    paths = {"images": source / "images", "valid_ids": folder / "valid_ids.txt"}
    for name, chosen in tables.items():
        paths[name] = folder / f"captions_{name}.csv"
        with paths[name].open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerows([("ID", "Sequence"), *chosen])
    step = max(1, len(by_image) // VALID)
    paths["valid_ids"].write_text("".join(f"{group[0][0]}\n" for group in by_image[::step][:VALID]))
    return paths
