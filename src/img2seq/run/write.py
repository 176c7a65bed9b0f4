"""Write files of a run: each is whole or as it was, whenever the process ends."""

from __future__ import annotations

import contextlib
import csv
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from img2seq.run.folder import RunFolder, file_digest

HALF_WRITTEN = ".*.tmp-*"  # what a killed process leaves beside a file

RUN_README = Path(__file__).with_name("readme.txt")  # what is what in a run folder


def write_json(path: Path, data: Any, *, synced: bool = True) -> None:
    """Write JSON as `write_text` does. Not-a-number is refused: it is not JSON."""
    write_text(path, json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n", synced=synced)


def write_text(path: Path, text: str, *, synced: bool = True) -> None:
    """Write a file so that it is whole or as it was, whenever the process ends, and if synced whenever the power fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, synced=synced) as file:
        file.write(text)


@contextlib.contextmanager
def replacing(path: Path, *, synced: bool = True) -> Iterator[TextIO]:
    """Open a file beside this one that takes its place once it is written."""
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            yield file
        if synced:
            to_disk(temporary)
        temporary.replace(path)
        if synced:
            to_disk(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_table(path: Path, columns: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as CSV so that the file is always whole. Numbers keep all their digits: only what people read is rounded."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        writer = csv.DictWriter(file, list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def remove_half_written(folder: Path) -> None:
    """Remove what a killed process was writing beside a file of a run; only for the owner of the run."""
    for path in folder.rglob(HALF_WRITTEN):
        if path.is_file():
            path.unlink()


def to_disk(path: Path) -> None:
    """Return when what was written to a file, or into a folder, would survive a power cut."""
    is_folder = path.is_dir()
    try:
        descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)  # Windows syncs only what may be written
    except PermissionError:
        if is_folder:  # Windows opens none
            return
        raise
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sign(run: RunFolder) -> None:
    """Note the digests of the files that a model cannot be rebuilt without; an export has no split."""
    write_json(run.digests, {path.name: file_digest(path) for path in run.signed if path.exists()})
