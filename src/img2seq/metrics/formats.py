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

from img2seq.config.outputs import ReadOptions
from img2seq.data.records import image_id_of
from img2seq.data.sources.coco_annotations import caption_entries
from img2seq.data.sources.content import GUESSED, read_json
from img2seq.data.sources.read import read_captions
from img2seq.data.text import clean_caption, clean_name
from img2seq.errors import DataError, ScoreError, did_you_mean, listed, shown
from img2seq.metrics.score import check_same_images

MOST_GUESSED = 3  # each takes a second among 50,000 ids


def read_results(path: str | Path) -> dict[str, str]:
    """Return the caption of each image id in a results file; a caption may be empty. Raises ScoreError."""
    path = Path(path)
    problems: list[str] = []
    with _score_errors():
        if path.suffix.lower() in (".csv", ".jsonl", ".txt", ".tsv"):
            raise ScoreError(
                f"{path}: expected COCO results, a JSON list of image_id and caption; img2seq caption --output results.json writes them"
            )
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


def read_references(path: str | Path, options: ReadOptions = GUESSED) -> dict[str, list[str]]:
    """Return the references of each image id in a source of any format that training reads. Raises ScoreError."""
    return _references(path, options, None)[0]


def read_pair(
    results: str | Path, references: str | Path, *, split: str | None = None, options: ReadOptions = GUESSED
) -> tuple[dict[str, str], dict[str, list[str]], list[str]]:
    """Return the captions and the references of the same images, and what to say of how their ids were matched.

    `x` and `x.jpg` are one image. Where the results use other ids of the same images (the numbers of COCO, file names, a file's number)
    they are matched if that is so for every one of them, and it is said.

    Args:
        results: of any system.
        references: captions of any format.
        split: the side of the references that was captioned (train, valid, test), None for all.
        options: what is said of the references' format.

    Raises:
        ScoreError: where the two files are not about the same images, with the nearest guess at why.
    """
    written = read_results(results)
    truths, aliases = _references(references, options, split)
    named: dict[str, str] = {}
    for name in written:
        image_id = _id_among(truths, name)
        if image_id in named:
            raise ScoreError(
                f"{results}: image {image_id} has two captions, one of {shown(named[image_id])} and one of {shown(name)}"
            )
        named[image_id] = name
    notes: list[str] = []
    if not named.keys() & truths.keys():
        named, notes = _matched_by_alias(written, aliases) or (named, notes)
    captions = {image_id: written[name] for image_id, name in named.items()}
    try:
        check_same_images(captions, truths)
    except ScoreError as error:
        hint = _hint(captions.keys() - truths.keys(), truths.keys() - captions.keys(), aliases, references)
        raise ScoreError(f"{results} against {references}: {error}{hint}") from None
    return captions, truths, notes


# Other ids of an image, by what they are: name -> the id of the references.
Aliases = dict[str, dict[str, str]]


def _references(path: str | Path, options: ReadOptions, split: str | None) -> tuple[dict[str, list[str]], Aliases]:
    """Return references by the ids that results are written with, and the other ids of the same images."""
    with _score_errors():
        found = read_captions(path, options)
    _check_usable(path, found.problems)
    chosen = list(found.captions)
    if split is not None:
        chosen = [image_id for image_id in chosen if found.splits.get(image_id) == split]
        if not chosen:
            raise ScoreError(f"{path}: expected images of the split {split}, found {found.summary}")
    references: dict[str, list[str]] = {}
    aliases: Aliases = {}
    for image_id in chosen:
        key = str(found.results_id(image_id))
        references.setdefault(key, []).extend(found.captions[image_id])
        own = {f"id {n} of the file": str(one) for n, one in enumerate(found.own_ids.get(image_id, []), 1)}
        path_id = image_id_of(found.paths.get(image_id, image_id))
        names = {"name of the file": image_id, "path of the file": path_id} if image_id in found.paths else {}
        numbers = {
            f"number at the end of {what}": str(n)
            for what, name in (("the id", key), ("the file's name", path_id))
            if (n := _number(name)) is not None
        }
        for what, name in {**own, **names, **numbers}.items():
            if aliases.setdefault(what, {}).setdefault(name, key) != key:
                aliases[what][name] = ""  # of several images: it names none
    return references, aliases


def _matched_by_alias(written: Mapping[str, str], aliases: Aliases) -> tuple[dict[str, str], list[str]] | None:
    """Return the names of the results by id, where all of them are ids of another kind; None where they are not."""
    for what, id_of in aliases.items():
        named = {image_id: name for name in written if (image_id := _by_alias(name, what, id_of))}
        if len(named) == len(written):
            image_id, name = next(iter(named.items()))
            return named, [f"the results name images by the {what}: matched, as {shown(name)} with {shown(image_id)}"]
    return None


def _by_alias(name: str, what: str, id_of: Mapping[str, str]) -> str:
    """Return the id of the image that a name of another kind stands for, "" where it stands for none."""
    if what.startswith("number"):
        return id_of.get(str(_number(name)), "")
    return id_of.get(clean_name(name)) or id_of.get(image_id_of(name)) or ""


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


def _hint(extra: set[str], missing: set[str], aliases: Aliases, references: str | Path) -> str:
    """Return a line that explains the first unknown id that can be explained, or "" where nothing is near one."""
    for image_id in sorted(extra):
        for what, id_of in aliases.items():
            if (own_id := _by_alias(image_id, what, id_of)) in missing:
                return f"\n{shown(image_id)} is the {what} of image {own_id} in {references}: results must use one kind of ids."
    for image_id in sorted(extra)[:MOST_GUESSED]:
        if guess := did_you_mean(image_id, sorted(missing)):
            return f"\nImage {shown(image_id)} is unknown.{guess}"
    return ""


def _number(name: str) -> int | None:
    """Return the number that a name ends with: 139 of `COCO_val2014_000000000139.jpg`."""
    digits = re.search(r"[0-9]{1,20}$", image_id_of(name))
    return None if digits is None else int(digits.group())
