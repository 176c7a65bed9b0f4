"""`captions.csv` with the columns ID and Sequence, and pictures in `images/` whose paths are the IDs."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence

from img2seq.data.csv_rows import MAX_VALUE
from img2seq.data.sources.table import COLUMNS
from img2seq.datasets.convert.folder import Work
from img2seq.datasets.convert.sample import Sample
from img2seq.errors import DataError, listed, shown

CAPTIONS, IMAGES = "captions.csv", "images"
NEXT = (CAPTIONS, IMAGES)


def check(samples: Sequence[Sample], name_problems: Mapping[str, str]) -> None:
    """Raise DataError for what a table cannot hold: here an ID is the path of a file."""
    if name_problems:
        lines = [f"{shown(image_id)} {problem}" for image_id, problem in name_problems.items()]
        raise DataError(
            f"{len(lines):,} ID(s) cannot be the names of files, as --to csv needs them; coco, imagefolder, webdataset and parquet "
            f"keep such IDs:\n{listed(lines)}"
        )
    long = [
        f"{shown(sample.image_id)}: {len(text):,} characters"
        for sample in samples for text in (sample.image_id, *sample.captions) if len(text) > MAX_VALUE
    ]  # fmt: skip
    if long:
        raise DataError(
            f"{len(long):,} caption(s) are longer than a value of a table may be ({MAX_VALUE:,}):\n{listed(long)}"
        )


def write(samples: Sequence[Sample], work: Work, shard_size: int) -> None:
    """Write the pictures, then the table."""
    for sample in samples:
        work.picture(sample.picture, f"{IMAGES}/{sample.name}")
    has_sides = any(sample.side for sample in samples)
    with work.text(CAPTIONS) as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow([*COLUMNS, "split"] if has_sides else COLUMNS)
        for sample in samples:
            side = [sample.side] if has_sides else []
            rows.writerows([sample.written_id, caption, *side] for caption in sample.captions)
