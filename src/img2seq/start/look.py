"""Find out what a folder of photographs and its captions hold, and which settings read them so."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from img2seq.config.globals import BasicExperiment
from img2seq.config.outputs import ReadOptions
from img2seq.data.records import Problems, match_pictures
from img2seq.data.sources import table
from img2seq.data.sources.content import UTF16, Content
from img2seq.data.sources.read import FORMATS, CaptionsFound, images_at, match_images, read_captions
from img2seq.data.split import split_source, without_test
from img2seq.errors import DataError, listed
from img2seq.progress import counted

INPUT_NAME = "photo"
TABLE_ENDINGS = (".csv", ".tsv", ".xlsx", ".json", ".jsonl", ".ndjson", ".txt", ".token", ".parquet")
FOLDERS_OF_TABLES = ("annotations", "captions", "text")  # beside the photographs, where their names end so
MOST_TABLES = 50  # that are opened to see whether they hold captions


@dataclass(frozen=True)
class Found:
    """Photographs with captions.

    Attributes:
        photos: as they were given.
        source: of the captions: another path, or that of the photographs.
        read_as: every setting of `output_info` that reads the captions as they were read, guessed ones too.
        captions: by ID, of the images that have a picture.
        n_pictures: there are, with captions or without.
        train: IDs to train and validate with; those of the validation part among them.
        valid: IDs of the data's own validation part, empty where it has none.
        splits: from_data or random.
        problems: rows and images that cannot be used.
        notes: what else to say.
    """

    photos: str
    source: str
    read_as: dict[str, Any]
    captions: dict[str, list[str]]
    n_pictures: int
    train: list[str]
    valid: list[str]
    splits: str
    problems: Problems
    notes: list[str]


def look(photos: str, captions_at: str | None, options: ReadOptions) -> Found:
    """Return what photographs and captions hold.

    Args:
        photos: a folder of images, or what holds images with their captions.
        captions_at: of any format; None where `photos` holds them, or one table stands beside the photographs.
        options: what is said of the captions.

    Raises:
        DataError: where there are no captions, they cannot be read, or none has a picture.
    """
    if captions_at is not None and Path(captions_at).is_dir() and Path(photos).is_file():
        raise DataError(f"init: the photographs come first: img2seq init {captions_at} {photos}")
    notes = []
    if captions_at is not None or _holds_captions(photos, options):
        source = captions_at or photos
    else:
        source = _table_of(photos, options)
        notes.append(f"captions are taken from {source}, the one table with captions of these photographs")
    found = read_captions(source, options)
    images = images_at(photos, {source: found})
    problems = Problems()
    problems.add(f"row(s) of {source} cannot be used", found.problems)
    pictures, notes_on_images = match_images(found, list(found.captions), photos, INPUT_NAME, problems, source)
    captions = {i: texts for i, texts in found.captions.items() if i in pictures}
    sides = {i: side for i, side in found.splits.items() if i in pictures}
    basic = BasicExperiment(output_folder="runs")
    splits = split_source(basic, sides)
    train, test = without_test(captions, basic, None, sides)
    valid = [i for i in train if sides.get(i) == "valid"] if splits == "from_data" else []
    if test:
        notes.append(f"{counted(len(test), 'image')} of the test part are left for: img2seq evaluate RUN --split test")
    if problems:
        kinds = "; ".join(f"{len(entries):,} {kind}" for kind, entries in problems.by_kind.items())
        first = next(iter(problems.by_kind.values()))[0]
        notes.append(f"left out (on_bad_data: skip), as img2seq data check lists: {kinds}; the first: {first}")
    return Found(
        photos, source, _read_as(source, options), captions, len(images.pictures), train, valid, splits, problems,
        [found.summary, *found.notes, *notes_on_images, *notes],
    )  # fmt: skip


def _holds_captions(photos: str, options: ReadOptions) -> bool:
    """Tell whether photographs come with their captions: text files beside them, a metadata file, shards, a table of paths."""
    content = Content(photos, options)
    return not content.is_folder or any(known.recognise(content) for known in FORMATS)


def _table_of(photos: str, options: ReadOptions) -> str:
    """Return the one table beside or in a folder that has captions of its photographs.

    Raises:
        DataError: where there is none, or several.
    """
    images = images_at(photos)
    places = _places_of_tables(Path(photos))
    fitting: dict[str, CaptionsFound] = {}
    n_fitting: dict[str, int] = {}
    tables = list(islice((path for place in places for path in _tables_in(place)), MOST_TABLES))
    for path in tables:
        try:
            found = read_captions(path, options)
        except DataError:
            continue
        if n := len(match_pictures(found.captions, found.paths, images.pictures).pictures):
            fitting[str(path)], n_fitting[str(path)] = found, n
    best = max(n_fitting.values(), default=0)
    fitting = {path: found for path, found in fitting.items() if n_fitting[path] > best / 2}
    where = ", ".join(str(place) for place in places)
    if not fitting:
        raise DataError(
            f"{photos}: expected captions. There are no text files (x.txt beside x.jpg), no metadata.csv and no shards in it, and of "
            f"{counted(len(tables), 'file')} ({', '.join(TABLE_ENDINGS)}) in {where} none has captions of its {counted(len(images.pictures), 'picture')}; "
            f"name them: img2seq init {photos} TABLE"
        )
    if len(fitting) > 1:
        lines = [f"{path}: {found.summary}" for path, found in fitting.items()]
        raise DataError(
            f"{photos}: several files have captions of its pictures; name one: img2seq init {photos} TABLE\n{listed(lines)}"
        )
    return next(iter(fitting))


def _places_of_tables(folder: Path) -> list[Path]:
    """Return the folder, the one that it stands in, and those beside it that are named as folders of captions are."""
    parent = folder / ".." if folder.name in ("", "..") else folder.parent
    beside = sorted(
        Path(entry.path) if str(parent) != "." else Path(entry.name)
        for entry in os.scandir(parent)
        if entry.is_dir() and entry.name.lower().endswith(FOLDERS_OF_TABLES)
    )
    return [folder, parent, *(path for path in beside if path != folder)]


def _tables_in(place: Path) -> Iterator[Path]:
    names = sorted(entry.name for entry in os.scandir(place) if entry.is_file())
    yield from (place / name for name in names if name.lower().endswith(TABLE_ENDINGS) and not name.startswith("."))


def _read_as(source: str, options: ReadOptions) -> dict[str, Any]:
    """Return the settings that read a source as it was read: its format, and of a table the columns, delimiter and encoding."""
    content = Content(source, options)
    known = next(known for known in FORMATS if options.format in (None, known.key) and known.recognise(content))
    settings = {"format": known.key, **options.model_dump(exclude_defaults=True)}
    if known is not table.FORMAT:
        return settings
    rows, delimiter = table.table_rows(content)
    header = [name.strip() for name in next(rows).values]
    columns = table.columns_of(content, header)
    settings |= {"id_column": header[columns.id]} if columns.id is not None else {}
    settings |= {"image_column": header[columns.image]} if columns.image is not None else {}
    settings |= {"caption_columns": [header[i] for i in columns.captions]}
    if content.head.startswith(b"PK"):  # a workbook
        return settings
    encoding = "utf-16" if content.head.startswith(UTF16) else "cp1252" if content.notes else "utf-8"
    return settings | {"delimiter": "tab" if delimiter == "\t" else delimiter, "encoding": options.encoding or encoding}
