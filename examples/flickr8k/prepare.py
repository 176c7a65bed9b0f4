"""Lay out Flickr8k for this example: captions of the official train and dev images, and the ids of dev.

Expects a folder with `images/`, `captions_all.csv` (ID,Sequence) and `splits.csv` (ID,Split).

    python examples/flickr8k/prepare.py PATH/TO/flickr8k
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path


def main(source: Path) -> None:
    """Write data/captions.csv and data/dev_ids.txt, and link data/images to the source."""
    target = Path(__file__).parent / "data"
    target.mkdir(exist_ok=True)
    with (source / "splits.csv").open(encoding="utf-8", newline="") as file:
        split_of = {row["ID"]: row["Split"] for row in csv.DictReader(file)}
    with (source / "captions_all.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if split_of.get(row["ID"]) in ("train", "dev")]
    with (target / "captions.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["ID", "Sequence"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    dev = sorted(image_id for image_id, split in split_of.items() if split == "dev")
    (target / "dev_ids.txt").write_text("\n".join(dev) + "\n", encoding="utf-8")
    link = target / "images"
    if not link.exists():
        link.symlink_to((source / "images").resolve(), target_is_directory=True)
    print(
        f"{len({row['ID'] for row in rows}):,} images with {len(rows):,} captions, {len(dev):,} of them for validation, in {target}"
    )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
