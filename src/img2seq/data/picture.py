"""Where a picture is: a file, or a member of an archive (a tar shard, a Parquet file). Both are read through here.

A member is known by the archive and its place in it. Only places are kept in memory, never the bytes: a data set may be larger than
the machine.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from img2seq.data.image import ImageSpec, read_bytes
from img2seq.data.row_store import FileState, file_state
from img2seq.errors import DataError

Place = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Member:
    """A picture in an archive.

    Attributes:
        archive: the file that holds it.
        name: of the picture in the archive.
        place: what `read` needs to find it.
        read: returns the picture's bytes. Raises OSError, or DataError, where it cannot be read.
    """

    archive: Path
    name: str
    place: Place
    read: Callable[[Path, Place], bytes]

    def __str__(self) -> str:
        return f"{self.archive}: {self.name}"


Picture: TypeAlias = Path | Member


def picture_bytes(picture: Picture, spec: ImageSpec) -> bytes:
    """Read a picture. Raises DataError if it is missing, empty or larger than `spec.max_bytes`."""
    if isinstance(picture, Path):
        return read_bytes(picture, spec)
    try:
        data = picture.read(picture.archive, picture.place)
    except OSError as error:
        raise DataError(f"{picture}: cannot be read: {error.strerror or error}") from error
    if not 0 < len(data) <= spec.max_bytes:
        raise DataError(f"{picture}: expected 1 to {spec.max_bytes:,} bytes (max_bytes), found {len(data):,}")
    return data


def picture_state(picture: Picture) -> FileState | None:
    """Return what is equal as long as a picture has not changed (`file_state`), None where that cannot be told."""
    if isinstance(picture, Path):
        return file_state(picture)
    state = file_state(picture.archive)
    if state is None:
        return None
    path, changed = state
    return path + b"\0" + os.fsencode(picture.name), f"{changed} {picture.place}"


def are_different(first: Picture, second: Picture) -> bool:
    """Tell whether two places hold different pictures: files of two names are taken for such, members are compared."""
    if isinstance(first, Path) or isinstance(second, Path):
        return first != second
    if first.archive == second.archive and first.name == second.name and first.place[0] == second.place[0]:
        return False  # rows of one group with one name: a caption a row
    try:
        return first.read(first.archive, first.place) != second.read(second.archive, second.place)
    except (OSError, DataError):
        return False  # said when it is read
