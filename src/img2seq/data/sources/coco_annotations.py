"""COCO annotations: a JSON object with `annotations`, each an image's id and a caption, and `images` with the file of each id.

Results are a list of the same entries, so `caption_entries` reads both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from img2seq.data.sources.content import Content
from img2seq.data.sources.source import Format, Record, beside, checked_record, kept_id
from img2seq.errors import DataError, shown

ID_COLUMN = "image_id"


def recognise(content: Content) -> bool:
    data = content.json
    has_images = isinstance(data, dict) and bool(_images(data))  # of the test part there are no captions
    return isinstance(data, dict) and (
        isinstance(data.get("annotations"), list) or (has_images and not content.captions_needed)
    )


def read(content: Content, problems: list[str]) -> Iterator[Record]:
    """Yield a record for each annotation, named after the file of its image; the number stays in the column `image_id`."""
    content.title = "COCO annotations"
    images = _images(content.json)
    if not content.captions_needed:
        for image_id, entry in images.items():
            written_path = str(entry.get("file_name") or image_id)
            picture = beside(content.path.parent, written_path)
            columns = {ID_COLUMN: entry["id"]}
            record = checked_record("", [], f"image {image_id}", problems, columns, path=written_path, picture=picture)
            if record is not None:
                yield record
        return
    for written, caption, place in caption_entries(content.path, content.json["annotations"], "annotations", problems):
        image = images.get(str(written))
        if images and image is None:
            problems.append(f"{place}: the image_id {shown(written)} is not in the list images")
            continue
        name = (image or {}).get("file_name")
        path = name if isinstance(name, str) else None
        record = checked_record(
            str(written) if path is None else kept_id(image or {}), [caption], place, problems, {ID_COLUMN: written},
            path=path, picture=None if path is None else beside(content.path.parent, path), split=(image or {}).get("split", ""),
        )  # fmt: skip
        if record is not None:
            yield record


def _images(data: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the entries of the list `images` by their ids."""
    images = data.get("images")
    entries = images if isinstance(images, list) else []
    return {str(image["id"]): image for image in entries if isinstance(image, dict) and "id" in image}


def caption_entries(
    path: Path, items: Sequence[Any], where: str, problems: list[str], *, once: bool = False
) -> Iterator[tuple[str | int, Any, str]]:
    """Yield (image id, caption, place) of each entry, as they are written; an entry that is none is a problem.

    Raises:
        DataError: for an id that is written as 1 and as "1", and with `once` for a second entry of an image: which one was meant
            cannot be known.
    """
    places: dict[str, tuple[str | int, str]] = {}
    for index, item in enumerate(items):
        place = f"{where}[{index}]"
        if not isinstance(item, dict) or ID_COLUMN not in item or "caption" not in item:
            problems.append(f'{place}: expected {{"image_id": ..., "caption": ...}}, found {shown(item)}')
            continue
        written = item[ID_COLUMN]
        if isinstance(written, bool) or not isinstance(written, str | int):
            problems.append(f"{place}: image_id must be a string or an integer, found {shown(written)}")
            continue
        first, first_place = places.setdefault(str(written), (written, place))
        if type(first) is not type(written):
            raise DataError(
                f"{path}: image {written} is written as {first!r} at {first_place} and as {written!r} at {place}"
            )
        if once and first_place != place:
            raise DataError(f"{path}: image {written} has two captions, at {first_place} and at {place}")
        yield written, item["caption"], place


FORMAT = Format("coco", "a COCO annotation file (JSON with images and annotations)", recognise, read, (ID_COLUMN,))
