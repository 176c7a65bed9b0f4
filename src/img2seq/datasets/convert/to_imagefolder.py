"""A Hugging Face image folder: `train/`, `validation/` and `test/`, each with pictures and a `metadata.jsonl`.

https://huggingface.co/docs/datasets/image_dataset: a line an image, with `file_name` relative to the metadata file. Captions are a
list in `text` where an image has several: `datasets` reads a line as an example. Images in no split are in `images/`, under a
`metadata.jsonl` of the folder itself: their own folders may have the name of a side.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from img2seq.data.sources.source import KEPT_ID
from img2seq.datasets.convert.folder import Work
from img2seq.datasets.convert.sample import Sample, are_kept, by_side

METADATA, IMAGES = "metadata.jsonl", "images"
NEXT = ("",)


def check(samples: Sequence[Sample], name_problems: Mapping[str, str]) -> None:
    """JSON holds whatever there is."""


def write(samples: Sequence[Sample], work: Work, shard_size: int) -> None:
    """Write the pictures of each side, then its metadata."""
    kept = are_kept(samples, [sample.name for sample in samples])
    several = any(len(sample.captions) > 1 for sample in samples)  # a column has one type
    for side, of_side in by_side(samples).items():
        for sample in of_side:
            work.picture(sample.picture, f"{side or IMAGES}/{sample.name}")
        with work.text(f"{side}/{METADATA}" if side else METADATA) as file:
            for sample in of_side:
                entry = {
                    "file_name": sample.name if side else f"{IMAGES}/{sample.name}",
                    "text": list(sample.captions) if several else sample.captions[0],
                } | ({KEPT_ID: sample.written_id} if kept else {})
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")
