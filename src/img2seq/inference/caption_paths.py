"""Which pictures `img2seq caption` is given: files, folders, patterns, tables of paths, standard input."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from img2seq.data.csv_rows import decode_text, delimiter_hint, file_content, read_rows, row_problem
from img2seq.data.records import EXTENSIONS, images_below, unread_pictures
from img2seq.data.text import clean_name
from img2seq.errors import DataError, listed, shown, shown_all

STANDARD_INPUT = "-"
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
    return path != STANDARD_INPUT and Path(with_home(path)).is_file() and not _is_table(path)


def with_home(path: str) -> str:
    """Return a path with `~` as the user's home folder: in lists no shell has done it."""
    return os.path.expanduser(path) if path[:2] in ("~", f"~{os.sep}") else path  # noqa: PTH111  (pathlib raises without a home)


def expand(
    paths: Iterable[str],
    standard_input: TextIO,
    *,
    picture: bytes | None = None,
    warn: Callable[[str], None],
    by_pattern: bool = False,
) -> Iterator[str]:
    """Yield image paths: of files, of folders with their subfolders, of patterns, of CSV files, of standard input ("-").

    Args:
        paths: what is given.
        standard_input: lines of paths.
        picture: what standard input holds instead; yielded as "-".
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
            yield from _pictures_below(path, warn, may_be_empty=by_pattern)
        elif _is_table(path):
            yield from _paths_in_table(Path(path))
        elif Path(path).exists() or not glob.has_magic(path):
            yield path  # a file that is missing is reported as an image that failed
        elif found := sorted(glob.glob(path, recursive=True)):  # noqa: PTH207  (pathlib knows no absolute patterns)
            yield from expand(found, standard_input, warn=warn, by_pattern=True)
        else:
            raise DataError(f"{path}: no file fits this pattern")


def _is_table(path: str) -> bool:
    return path.lower().endswith(".csv")


def _pictures_below(folder: str, warn: Callable[[str], None], *, may_be_empty: bool) -> Iterator[str]:
    unread = unread_pictures(folder)
    n = 0
    for n, path in enumerate(images_below(folder), 1):  # noqa: B007  (counted)
        yield str(path)
    if not (n or may_be_empty):
        raise DataError(f"{folder}: expected images ({', '.join(sorted(EXTENSIONS))}), found {unread or 'none'}")
    if unread:
        warn(f"{folder}: pictures of kinds that are not read: {unread}")


def _paths_in_table(path: Path) -> Iterator[str]:
    """Yield the column `path` of a CSV file, or its first column where it has no header; relative paths are relative to the file.

    Raises:
        DataError: before the first path, listing all rows that cannot be used: captioning may take hours.
    """
    rows = list(read_rows(path, decode_text(path, file_content(path))))
    header = [name.strip() for name in rows[0].values] if rows else []
    if "path" in header:
        column, rows = header.index("path"), rows[1:]
    elif header and Path(header[0]).suffix.lower() in EXTENSIONS:
        column = 0
    elif header:
        raise DataError(
            f"{path}:1: expected a column path, or paths of images alone, found {shown_all(header)}.{delimiter_hint(header)}"
        )
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
    yield from (str(path.parent / with_home(row.values[column])) for row in rows)
