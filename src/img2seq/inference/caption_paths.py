"""Which pictures `img2seq caption` is given: files, folders, patterns, lists (whose formats a single picture does not wait for)."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from img2seq.config.outputs import ReadOptions
from img2seq.data.picture import Picture
from img2seq.data.records import EXTENSIONS, Problems, images_below, is_image_name, unread_pictures
from img2seq.data.sources.content import ARCHIVES, GUESSED, Content, is_pattern
from img2seq.data.text import clean_name
from img2seq.errors import DataError, listed, shown, shown_all

STANDARD_INPUT = "-"
LISTS = (".csv", ".tsv", ".xlsx", ".json", ".jsonl", ".ndjson", *ARCHIVES)
_PICTURE = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n|GIF8[79]a|RIFF....WEBP|BM.{4}\0{4}|II\*\0|MM\0\*|P[1-6]\s+\d+\s+\d+\s", re.DOTALL
)


def picture_in(standard_input: TextIO) -> bytes | None:
    """Return the picture that standard input holds, None where it holds paths.

    Raises:
        DataError: where it holds neither.
    """
    stream: Any = getattr(standard_input, "buffer", None)
    head: bytes = stream.peek(64) if hasattr(stream, "peek") else b""
    if _PICTURE.match(head):
        return bytes(stream.read())
    if b"\0" in head:
        raise DataError(f"standard input: expected a picture, or paths on a line each; found {shown(head)}")
    return None


def is_picture(path: str) -> bool:
    """Tell whether a path stands for itself alone, as folders, tables of paths and patterns do not."""
    return path != STANDARD_INPUT and Path(with_home(path)).is_file() and not _is_list(path)


def with_home(path: str) -> str:
    """Return a path with `~` as the user's home folder: in lists no shell has done it."""
    return os.path.expanduser(path) if path[:2] in ("~", f"~{os.sep}") else path  # noqa: PTH111  (pathlib raises without a home)


class Listed(str):
    """A path that a list of pictures holds, as it is written in outputs.

    Attributes:
        picture: where the picture is.
        own_id: the id that the list has for it, which results are written with; None where that is its name.
    """

    picture: Picture
    own_id: str | int | None

    @classmethod
    def of(cls, picture: Picture, own_id: str | int | None) -> Listed:
        """Return the path of a picture."""
        listed_path = cls(picture)
        listed_path.picture, listed_path.own_id = picture, own_id
        return listed_path


def expand(
    paths: Iterable[str],
    standard_input: TextIO,
    *,
    picture: bytes | None = None,
    images: str | None = None,
    options: ReadOptions = GUESSED,
    warn: Callable[[str], None],
    by_pattern: bool = False,
) -> Iterator[str]:
    """Yield image paths: of files, of folders with their subfolders, of patterns, of lists, of standard input ("-").

    A list is a source of captions of any format (their captions are not looked at), or a CSV file of paths alone.

    Args:
        paths: what is given.
        standard_input: lines of paths.
        picture: what standard input holds instead; yielded as "-".
        images: folder of the pictures that lists name; None where they are beside the lists.
        options: what is said of the formats of lists.
        warn: of pictures that are not read.
        by_pattern: whether a pattern found these paths: then a folder may be without images.

    Raises:
        DataError: for a path that leads to nothing, and a folder without images.
    """
    for given in paths:
        path = with_home(given)
        if path == STANDARD_INPUT and picture is not None:
            yield path
        elif path == STANDARD_INPUT:
            lines = (line.removeprefix("\ufeff").rstrip("\r\n") for line in standard_input)
            yield from (with_home(line) for line in lines if line.strip())
        elif Path(path).is_dir():
            from img2seq.data.sources.read import is_folder_of_shards

            is_source = is_folder_of_shards(Content(path))
            yield from (
                _listed(path, images, options) if is_source else _pictures_below(path, warn, may_be_empty=by_pattern)
            )
        elif _is_list(path):
            yield from _paths_in_table(Path(path), images) if _holds_paths(path) else _listed(path, images, options)
        elif Path(path).exists() or not is_pattern(path):
            yield path  # a file that is missing is reported as an image that failed
        elif is_pattern(path) and path.lower().endswith(ARCHIVES):
            yield from _listed(path, images, options)  # shards are one source
        elif found := sorted(glob.glob(path, recursive=True)):  # noqa: PTH207  (pathlib knows no absolute patterns)
            yield from expand(found, standard_input, images=images, options=options, warn=warn, by_pattern=True)
        else:
            raise DataError(f"{path}: no file fits this pattern")


def _is_list(path: str) -> bool:
    return path.lower().endswith(LISTS) and Path(path).is_file()


def _holds_paths(path: str) -> bool:
    """Tell whether a CSV file has the column `path`, or paths alone: all others are sources."""
    if not path.lower().endswith(".csv"):
        return False
    from img2seq.data.csv_rows import read_rows
    from img2seq.data.sources.table import table_text

    first = next(read_rows(Path(path), table_text(Content(path))), None)
    header = [name.strip() for name in first.values] if first is not None else []
    return "path" in header or bool(header and is_image_name(header[0]))


def _listed(path: str, images: str | None, options: ReadOptions) -> Iterator[Listed]:
    """Yield the pictures of a source. Raises DataError, before the first one, listing all rows that cannot be used."""
    from img2seq.data.sources.read import match_images, read_captions

    found = read_captions(path, options, captions_needed=False)
    problems = Problems()
    problems.add(f"row(s) of {path} cannot be used", found.problems)
    if images is not None:
        pictures, _ = match_images(found, found.captions, images, "images", problems)
    else:
        pictures = found.pictures
    if problems:
        raise DataError(problems.text())
    if not pictures:
        raise DataError(
            f"{path}: expected pictures, or their paths, found {found.title} with IDs alone; give --images FOLDER"
        )
    for image_id, picture in pictures.items():
        own = found.own_ids.get(image_id)
        yield Listed.of(picture, own[0] if own else image_id)


def _pictures_below(folder: str, warn: Callable[[str], None], *, may_be_empty: bool) -> Iterator[str]:
    unread = unread_pictures(folder)
    n = 0
    for n, path in enumerate(images_below(folder), 1):  # noqa: B007  (counted)
        yield str(path)
    if not (n or may_be_empty):
        raise DataError(f"{folder}: expected images ({', '.join(sorted(EXTENSIONS))}), found {unread or 'none'}")
    if unread:
        warn(f"{folder}: pictures of kinds that are not read: {unread}")


def _paths_in_table(path: Path, images: str | None) -> Iterator[str]:
    """Yield the column `path` of a CSV file, or its first column where it has no header; relative paths are relative to the file.

    Raises:
        DataError: before the first path, listing all rows that cannot be used: captioning may take hours.
    """
    from img2seq.data.csv_rows import read_rows, row_problem
    from img2seq.data.sources.table import table_text

    rows = list(read_rows(path, table_text(Content(path))))
    header = [name.strip() for name in rows[0].values] if rows else []
    if "path" in header:
        column, rows = header.index("path"), rows[1:]
    else:
        column = 0
    problems = []
    for row in rows:
        problem = row_problem(row, len(header), column, ())
        if not problem and len(row.values) <= column:
            problem = f"line {row.line}: expected a path, found {len(row.values)} value(s): {shown_all(row.values)}"
        if not problem and not clean_name(row.values[column]):
            problem = f"line {row.line}: the path is empty"
        if problem:
            problems.append(problem)
    if problems:
        raise DataError(f"{path}: {len(problems)} row(s) cannot be used:\n{listed(problems)}")
    base = path.parent if images is None else Path(images)
    yield from (str(base / with_home(row.values[column])) for row in rows)
