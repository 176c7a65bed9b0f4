"""WebDataset: tar shards with a picture and a `.json` of captions for each sample, `train-000000.tar` and so on.

A sample's key is the name of its members up to the first dot. Times and owners are zero, so that the same data gives the same bytes.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from img2seq.data.picture import picture_bytes
from img2seq.data.sources.source import KEPT_ID
from img2seq.data.sources.webdataset import MOST_TEXT
from img2seq.datasets.convert.folder import SPEC, Work
from img2seq.datasets.convert.sample import Sample, are_kept, made_name, shards
from img2seq.errors import DataError, listed, shown

NEXT = ("",)


def check(samples: Sequence[Sample], name_problems: Mapping[str, str]) -> None:
    """Raise DataError for captions that are longer than a reader takes."""
    long = [shown(sample.image_id) for sample in samples if len(_text(sample, kept=True)) > MOST_TEXT]
    if long:
        raise DataError(
            f"{len(long):,} image(s) have captions of more than {MOST_TEXT:,} bytes together:\n{listed(long)}"
        )


def write(samples: Sequence[Sample], work: Work, shard_size: int) -> None:
    """Write shard after shard, a picture at a time."""
    kept = are_kept(samples, [_key(sample.name) for sample in samples])
    for side, number, _, part in shards(samples, shard_size):
        name = f"{side}-{number:06}.tar"
        if work.has(name):
            work.advance(len(part))
            continue
        with work.file(name) as path, tarfile.open(path, "w") as archive:
            for sample in part:
                for member, data in _members(sample, kept=kept):
                    info = tarfile.TarInfo(member)
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))
                archive.members = []  # type: ignore[attr-defined]  # it would remember all of them
                work.advance(1)


def _members(sample: Sample, *, kept: bool) -> Iterator[tuple[str, bytes]]:
    key = _key(sample.name)
    yield f"{key}{PurePosixPath(sample.name).suffix}", picture_bytes(sample.picture, SPEC)
    yield f"{key}.json", _text(sample, kept=kept)


def _text(sample: Sample, *, kept: bool) -> bytes:
    entry: dict[str, Any] = {"captions": sample.captions} | ({KEPT_ID: sample.written_id} if kept else {})
    return json.dumps(entry, ensure_ascii=False).encode()


def _key(name: str) -> str:
    """Return the key of a picture: its path without the extension, where that has no dot that would end the key."""
    stem = name.removesuffix(PurePosixPath(name).suffix)
    folder, slash, last = stem.rpartition("/")
    return stem if "." not in last else f"{folder}{slash}{made_name(last)}"
