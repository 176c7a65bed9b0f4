"""A Hugging Face image folder: pictures with `metadata.csv`, `.jsonl` or `.parquet` beside them, whose `file_name` is relative to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from img2seq.data.sources import json_lines, parquet, table
from img2seq.data.sources.content import Content
from img2seq.data.sources.source import Format, Record
from img2seq.data.sources.splits import split_of_path

NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")


def recognise(content: Content) -> bool:
    return bool(_tables(content))


def _tables(content: Content) -> list[Path]:
    return [path for path in content.archives(*NAMES) if path.name.lower() in NAMES] if content.is_folder else []


def read(content: Content, problems: list[str]) -> Iterator[Record]:
    """Yield the records of each metadata file, named after their place in the folder."""
    content.title = "image folder"
    for path in _tables(content):
        part = Content(path, content.options)
        reader = {".csv": table, ".jsonl": json_lines, ".parquet": parquet}[path.suffix.lower()]
        below = path.parent.relative_to(content.path).as_posix()
        prefix = "" if below == "." else f"{below}/"
        found: list[str] = []
        for record in reader.read(part, found):
            name = prefix + record.path
            yield Record(
                name if record.id_is_path else record.image_id, record.captions, record.picture,
                record.split or split_of_path(name), record.columns, name, record.id_is_path,
            )  # fmt: skip
        problems += [f"{prefix}{path.name}: {line}" for line in found]
        content.notes += part.notes


FORMAT = Format("imagefolder", "an image folder (with metadata.csv, .jsonl or .parquet)", recognise, read)
