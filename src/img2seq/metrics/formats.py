"""Read results and references that are to be scored against each other.

Results:     a COCO results file, `[{"image_id": 1, "caption": "a dog"}, ...]`, or a JSON object `{"1": "a dog"}`.
References:  captions of any format that training reads (`data/sources`), by the ids that the file itself has for its images.

Ids become strings. An id written both as 1 and as "1", an image with two captions in the results and a key that a JSON
object has twice are errors, because which one was meant cannot be known.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from img2seq.data.records import image_id_of
from img2seq.data.sources.coco_annotations import caption_entries
from img2seq.data.sources.content import read_json
from img2seq.data.sources.read import read_source
from img2seq.data.sources.source import Source
from img2seq.data.text import clean_caption, clean_name
from img2seq.errors import DataError, ScoreError, did_you_mean, listed, shown
from img2seq.metrics.score import check_same_images

MOST_GUESSED = 3  # each takes a second among 50,000 ids


def read_results(path: str | Path) -> dict[str, str]:
    """Return the caption of each image id in a results file; a caption may be empty. Raises ScoreError."""
    path = Path(path)
    problems: list[str] = []
    with _score_errors():
        content = read_json(path)
        if isinstance(content, list):
            entries = caption_entries(path, content, "", problems, once=True)
            results = {str(image_id): _caption(caption, place, problems) for image_id, caption, place in entries}
        elif isinstance(content, dict) and "annotations" not in content:
            results = {i: _caption(caption, f"image {i}", problems) for i, caption in content.items()}
        else:
            found = "a COCO annotation file" if isinstance(content, dict) else shown(content)
            raise ScoreError(
                f'{path}: expected results, [{{"image_id": ..., "caption": ...}}, ...] or an object id -> caption, found {found}'
            )
    _check_usable(path, problems)
    if not results:
        raise ScoreError(f"{path}: holds no captions")
    return results


def _caption(caption: object, place: str, problems: list[str]) -> str:
    """Return a caption in the form that references have."""
    if isinstance(caption, str):
        try:
            return clean_caption(caption).strip()
        except ValueError as error:
            problems.append(f"{place}: the caption is {error}")
    else:
        problems.append(f"{place}: expected a caption (text), found {shown(caption)}")
    return ""


def read_references(path: str | Path) -> dict[str, list[str]]:
    """Return the references of each image id in a file of any format that training reads. Raises ScoreError."""
    return _references(path)[0]


def read_pair(results: str | Path, references: str | Path) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return the captions and the references of the same images.

    `x` and `x.jpg` are one image. Further than that ids are never matched by guessing: results that use file names in place of the
    ids of COCO need to be written again.

    Raises:
        ScoreError: where the two files are not about the same images, with the nearest guess at why.
    """
    written = read_results(results)
    truths, source = _references(references)
    captions: dict[str, str] = {}
    names: dict[str, str] = {}
    for name, caption in written.items():
        image_id = _id_among(truths, name)
        if image_id in captions:
            raise ScoreError(
                f"{results}: image {image_id} has two captions, one of {shown(names[image_id])} and one of {shown(name)}"
            )
        captions[image_id], names[image_id] = caption, name
    try:
        check_same_images(captions, truths)
    except ScoreError as error:
        hint = _hint(captions.keys() - truths.keys(), truths.keys() - captions.keys(), source)
        raise ScoreError(f"{results} against {references}: {error}{hint}") from None
    return captions, truths


def _references(path: str | Path) -> tuple[dict[str, list[str]], Source]:
    references: dict[str, list[str]] = {}
    with _score_errors():
        source = read_source(path)
        for record in source.records():
            own_id = source.own_id(record)  # what results are written with, so only names are brought to one form
            key = str(own_id) if source.format.id_column else image_id_of(record.image_id)
            references.setdefault(key, []).extend(record.captions)
    _check_usable(path, source.problems)
    return references, source


def _id_among(known: Mapping[str, object], name: str) -> str:
    """Return the id that a name in the results stands for, the name itself where none is known."""
    return next((form for form in (name, clean_name(name), image_id_of(name)) if form in known), name)


def _check_usable(path: str | Path, problems: Collection[str]) -> None:
    """Raise ScoreError where something of a file cannot be scored: leaving it out would change the scores."""
    if problems:
        raise ScoreError(f"{path}: {len(problems)} caption(s) cannot be used:\n{listed(problems)}")


@contextmanager
def _score_errors() -> Iterator[None]:
    """Turn what is wrong with a file into what is wrong with scoring it."""
    try:
        yield
    except DataError as error:
        raise ScoreError(str(error)) from error


def _hint(extra: set[str], missing: set[str], source: Source) -> str:
    """Return a line that explains the first unknown id that can be explained, or "" where nothing is near one."""
    path = source.content.path
    own_ids = {}
    if source.format.id_column and extra:
        own_ids = {image_id_of(record.image_id): source.own_id(record) for record in source.records()}
    numbers = {_number(image_id): image_id for image_id in missing if image_id.isdecimal()}
    for image_id in sorted(extra):
        own_id = own_ids.get(image_id_of(image_id))
        is_file_name = own_id is not None
        if own_id is None and _number(image_id) is not None:
            own_id = numbers.get(_number(image_id))
        if own_id is not None:
            what = f"the file_name of image {own_id}" if is_file_name else f"image {shown(own_id)}, by its number,"
            with_or_without = "with" if len(image_id) > len(str(own_id)) else "without"
            flag = f"; img2seq caption writes them {with_or_without} --integer-ids" if image_id.isdecimal() else ""
            return f"\n{shown(image_id)} is {what} in {path}: results must use the ids of that file{flag}."
    for image_id in sorted(extra)[:MOST_GUESSED]:
        if guess := did_you_mean(image_id, sorted(missing)):
            return f"\nImage {shown(image_id)} is unknown.{guess}"
    return ""


def _number(name: str) -> int | None:
    """Return the number that a name ends with: 139 of `COCO_val2014_000000000139.jpg`."""
    digits = re.search(r"[0-9]{1,20}$", image_id_of(name))
    return None if digits is None else int(digits.group())
