"""`annotations/captions.json` in the shape of COCO's captions, and pictures in `images/`.

Written entry by entry: COCO's own file has 600,000 captions.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

from img2seq.data.sources.source import KEPT_ID
from img2seq.datasets.convert.folder import Work
from img2seq.datasets.convert.sample import Sample, are_kept

CAPTIONS, IMAGES = "annotations/captions.json", "images"
NEXT = (CAPTIONS, IMAGES)


def check(samples: Sequence[Sample], name_problems: Mapping[str, str]) -> None:
    """JSON holds whatever there is."""


def write(samples: Sequence[Sample], work: Work, shard_size: int) -> None:
    """Write the pictures, then the annotations."""
    for sample in samples:
        work.picture(sample.picture, f"{IMAGES}/{sample.name}")
    kept = are_kept(samples, [sample.name for sample in samples])
    numbers = _numbers(samples)
    images = (
        {"id": number, "file_name": sample.name}
        | ({"split": sample.side} if sample.side else {})
        | ({KEPT_ID: sample.written_id} if kept else {})
        for number, sample in zip(numbers, samples, strict=True)
    )
    captions = ((number, text) for number, sample in zip(numbers, samples, strict=True) for text in sample.captions)
    annotations = ({"id": i, "image_id": number, "caption": text} for i, (number, text) in enumerate(captions, 1))
    with work.text(CAPTIONS) as file:
        file.write('{"info": {"description": "written by img2seq data convert"},\n"images": ')
        _write_list(file, images)
        file.write(',\n"annotations": ')
        _write_list(file, annotations)
        file.write("}\n")


def _write_list(file: TextIO, entries: Iterable[dict[str, Any]]) -> None:
    mark = "[\n"
    for entry in entries:
        file.write(mark + json.dumps(entry, ensure_ascii=False))
        mark = ",\n"
    file.write("\n]")


def _numbers(samples: Sequence[Sample]) -> list[int]:
    """Return a number for each image: the source's own, unless two images have the same one; else the first that is free."""
    own = [sample.number for sample in samples if sample.number is not None]
    if len(set(own)) < len(own):
        return list(range(1, len(samples) + 1))
    taken = set(own)
    free = (number for number in itertools.count(1) if number not in taken)
    return [next(free) if sample.number is None else sample.number for sample in samples]
