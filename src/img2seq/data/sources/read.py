"""Find out which format a file has, and read it: the one way from captions on disk to records."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from img2seq.data.records import image_id_of
from img2seq.data.sources import caption_lists, captions_table, coco_annotations
from img2seq.data.sources.content import Content
from img2seq.data.sources.source import Record, Source
from img2seq.errors import DataError, shown, shown_all

# Asked in this order; the table comes last, for nearly any text could be one.
FORMATS = [coco_annotations.FORMAT, caption_lists.FORMAT, captions_table.FORMAT]


@dataclass(frozen=True)
class CaptionsFound:
    """Captions by image ID in the order of the source, and a line for each row that cannot be used."""

    captions: dict[str, list[str]]
    problems: list[str]


def read_source(path: str | Path) -> Source:
    """Return the captions that a path leads to, of whichever format they are.

    Raises:
        DataError: if it cannot be read, or no format knows it.
    """
    content = Content(Path(path))
    for known in FORMATS:
        if known.recognise(content):
            return Source(content, known)
    *first, last = [known.name for known in FORMATS]
    raise DataError(f"{path}: expected {', '.join(first)} or {last}, found {_seems_to_be(content)}")


def _seems_to_be(content: Content) -> str:
    """Return what a file is that no format knows, in a few words."""
    if content.path.is_dir():
        return "a folder"
    data = content.json
    if isinstance(data, dict):
        return f"a JSON object with the keys {shown_all(data)}" if data else "an empty JSON object"
    if isinstance(data, list):
        return f"a JSON list of {len(data):,}, the first {shown(data[0])}" if data else "an empty JSON list"
    return content.binary_kind


def read_captions(path: str | Path) -> CaptionsFound:
    """Read the captions of each image, from any format.

    An ID is text ("000000000009" stays so); one that comes several times has several captions.

    Raises:
        DataError: if the file cannot be read at all. Rows that cannot be used are returned as problems.
    """
    source = read_source(path)
    captions = captions_by_image(source.records())
    return CaptionsFound(captions, source.problems)


def captions_by_image(records: Iterable[Record]) -> dict[str, list[str]]:
    """Return captions by image ID; `x` and `x.jpg` are one image."""
    captions: dict[str, list[str]] = {}
    for record in records:
        captions.setdefault(image_id_of(record.image_id), []).extend(record.captions)
    return captions
