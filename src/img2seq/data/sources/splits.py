"""The sides that data gives its images, as they are written in columns, and in the names of folders and shards."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

SIDES = {
    "train": "train", "training": "train", "restval": "train",
    "val": "valid", "valid": "valid", "validation": "valid", "dev": "valid",
    "test": "test", "testing": "test",
}  # fmt: skip
_IN_NAME = re.compile(rf"(?:^|[^a-z])({'|'.join(sorted(SIDES, key=len, reverse=True))})(?:[^a-z]|$)")


def side_of(written: str) -> str | None:
    """Return train, valid or test, None for a word that is no side."""
    return SIDES.get(written.strip().casefold())


def split_of_path(path: str) -> str:
    """Return the first folder of a path where that is the name of a side, "" elsewhere."""
    parts = PurePosixPath(path).parts
    return parts[0] if len(parts) > 1 and side_of(parts[0]) else ""


def split_of_shard(path: str) -> str:
    """Return the side that a folder of a shard is named after, or that its name holds as a word: `train-00000-of-00002.parquet`; "" for none."""
    *folders, name = PurePosixPath(path).parts
    found = _IN_NAME.search(name.casefold())
    return next((folder for folder in folders if side_of(folder)), found[1] if found else "")
