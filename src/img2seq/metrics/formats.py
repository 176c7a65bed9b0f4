"""Read captions and references from files, with errors that name the file and the place in it.

Results:     a COCO results file, `[{"image_id": 1, "caption": "a dog"}, ...]`, or a JSON object `{"1": "a dog"}`.
References:  a COCO annotation file (`images`, `annotations`), a CSV file with the columns `ID,Sequence`, or a JSON
             object `{"1": ["a dog", "a brown dog"]}`.

Ids become strings. An id written both as 1 and as "1", an image with two captions in the results and a key that a JSON
object has twice are errors, because which one was meant cannot be known.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from img2seq.errors import ScoreError, did_you_mean
from img2seq.metrics.score import check_same_images

_COLUMNS = ["ID", "Sequence"]


def read_results(path: str | Path) -> dict[str, str]:
    """Return the caption of each image id in a results file. Raises ScoreError."""
    path = Path(path)
    content = _read_json(path)
    results: dict[str, str] = {}
    if isinstance(content, list):
        places: dict[str, tuple[object, str]] = {}
        for image_id, caption, place in _entries(path, content, "", places, once=True):
            results[image_id] = _text(path, place, caption)
    elif isinstance(content, dict) and "annotations" not in content:
        for image_id, caption in content.items():
            results[image_id] = _text(path, f"image {image_id}", caption)
    else:
        raise ScoreError(
            f'{path}: expected results, [{{"image_id": ..., "caption": ...}}, ...] or an object id -> caption'
            + (", found a COCO annotation file" if isinstance(content, dict) else "")
        )
    if not results:
        raise ScoreError(f"{path}: holds no captions")
    return results


def read_references(path: str | Path) -> dict[str, list[str]]:
    """Return the references of each image id in a COCO annotation, CSV or JSON file. Raises ScoreError."""
    path = Path(path)
    references: dict[str, list[str]] = {}
    if path.suffix.lower() == ".csv":
        for image_id, caption in _rows(path):
            references.setdefault(image_id, []).append(caption)
    else:
        content = _read_json(path)
        if not isinstance(content, dict):
            raise ScoreError(f"{path}: expected a COCO annotation file or an object id -> list of captions")
        if isinstance(content.get("annotations"), list):
            places: dict[str, tuple[object, str]] = {}
            for image_id, caption, place in _entries(path, content["annotations"], "annotations", places):
                references.setdefault(image_id, []).append(_text(path, place, caption))
        else:
            for image_id, captions in content.items():
                if not isinstance(captions, list) or not captions:
                    raise ScoreError(f"{path}: image {image_id}: expected a list of captions, found {captions!r}")
                references[image_id] = [_text(path, f"image {image_id}", caption) for caption in captions]
    if not references:
        raise ScoreError(f"{path}: holds no references")
    return references


def read_pair(results: str | Path, references: str | Path) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return the captions and the references of the same images.

    Raises ScoreError where the two files are not about the same images, with the nearest guess at why. Ids are never
    matched by guessing: a results file that uses file names needs to be rewritten with the ids.
    """
    captions, truths = read_results(results), read_references(references)
    try:
        check_same_images(captions, truths)
    except ScoreError as error:
        hint = _hint(captions.keys() - truths.keys(), truths.keys() - captions.keys(), Path(references))
        raise ScoreError(f"{results} against {references}: {error}{hint}") from None
    return captions, truths


def _hint(extra: set[str], missing: set[str], references: Path) -> str:
    """Return a line that explains the first unknown id, or "" where nothing is near it."""
    if not extra:
        return ""
    image_id = min(extra)
    by_name = {} if references.suffix.lower() == ".csv" else _ids_by_file_name(_read_json(references))
    for name in (image_id, Path(image_id).stem):
        if name in by_name:
            return (
                f"\n{image_id!r} is the file_name of image {by_name[name]} in {references}: "
                "results must use the ids of that file."
            )
    guess = did_you_mean(image_id, sorted(missing))
    return f"\nImage {image_id!r} is unknown.{guess}" if guess else ""


def _ids_by_file_name(content: Any) -> dict[str, str]:
    """Return the id of each image of a COCO annotation file by its file_name, with and without its ending."""
    images = content.get("images") if isinstance(content, dict) else None
    by_name: dict[str, str] = {}
    for image in images if isinstance(images, list) else []:
        if isinstance(image, dict) and isinstance(image.get("file_name"), str) and "id" in image:
            name = image["file_name"]
            by_name[name] = by_name[Path(name).stem] = str(image["id"])
    return by_name


def _entries(
    path: Path, items: list[Any], where: str, places: dict[str, tuple[object, str]], *, once: bool = False
) -> Iterator[tuple[str, Any, str]]:
    """Yield (image id, caption, place) of COCO entries; `once` forbids two entries of an image."""
    for index, item in enumerate(items):
        place = f"{where}[{index}]"
        if not isinstance(item, dict) or "image_id" not in item or "caption" not in item:
            raise ScoreError(f'{path}: {place}: expected {{"image_id": ..., "caption": ...}}, found {item!r}')
        written = item["image_id"]
        if isinstance(written, bool) or not isinstance(written, str | int):
            raise ScoreError(f"{path}: {place}: image_id must be a string or an integer, found {written!r}")
        image_id = str(written)
        first, first_place = places.setdefault(image_id, (written, place))
        if type(first) is not type(written):
            raise ScoreError(
                f"{path}: image {image_id} is written as {first!r} at {first_place} and as {written!r} at {place}"
            )
        if once and first_place != place:
            raise ScoreError(f"{path}: image {image_id} has two captions, at {first_place} and at {place}")
        yield image_id, item["caption"], place


def _rows(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (image id, caption) of each row of a CSV file with the columns ID and Sequence."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file, strict=True)
            missing = [name for name in _COLUMNS if name not in (rows.fieldnames or [])]
            if missing:
                raise ScoreError(
                    f"{path}: line 1: expected the columns {','.join(_COLUMNS)}, "
                    f"found {','.join(rows.fieldnames or []) or 'nothing'}"
                )
            for row in rows:
                image_id, caption = row["ID"], row["Sequence"]
                if not image_id or caption is None or None in row:
                    raise ScoreError(f"{path}: line {rows.line_num}: expected an ID and a Sequence, found {row}")
                yield image_id, caption
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ScoreError(f"{path}: cannot be read as CSV: {error}") from error


def _read_json(path: Path) -> Any:
    """Return what a JSON file holds; raise where it cannot be read or an object has a key twice."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content: dict[str, Any] = {}
        for key, value in pairs:
            if key in content:
                raise ScoreError(f"{path}: the key {key!r} appears twice in one object")
            content[key] = value
        return content

    try:
        return json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise ScoreError(f"{path}: line {error.lineno}, column {error.colno}: {error.msg}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ScoreError(f"{path}: cannot be read: {error}") from error


def _text(path: Path, place: str, caption: object) -> str:
    if not isinstance(caption, str):
        raise ScoreError(f"{path}: {place}: expected a caption (text), found {caption!r}")
    return caption
