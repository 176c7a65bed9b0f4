"""Rows of a CSV file with their places: the one reader for tables of captions, references and lists of paths.

Values are separated by commas; a value with a comma, a quote or a line break stands in double quotes, with a quote inside it written
twice. Spaces before a value do not count. Rows that a stray quote or comma spoiled are found here: `csv` itself reads them in silence.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from img2seq.errors import DataError, shown, shown_all
from img2seq.files import regular

MAX_VALUE = 100_000  # characters; below the limit of `csv` itself, which is one for the whole process and left alone
DELIMITERS = {",": ("comma", "commas"), ";": ("semicolon", "semicolons"), "\t": ("tab", "tabs"), "|": ("bar", "bars")}


@dataclass(slots=True)
class Row:
    """The values of a row, the first of its lines (from 1), how many there are, and their text."""

    line: int
    values: list[str]
    n_lines: int
    raw: str


def decode_text(path: Path, data: bytes) -> str:
    """Return UTF-8 text, with or without a byte order mark. Raises DataError with the line of what is not."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise DataError(f"{path}:{line}: expected UTF-8 text, found byte {error.object[error.start]:#04x}") from error


def file_content(path: Path) -> bytes:
    """Return a file's content. Raises DataError if it cannot be read."""
    try:
        return regular(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def read_rows(path: Path, text: str, delimiter: str = ",") -> Iterator[Row]:
    """Yield the rows of CSV text, those of empty lines left out.

    Raises:
        DataError: where a quote is never closed, or something follows a closing quote: what comes after cannot be told apart.
    """
    taken: list[str] = []

    def lines() -> Iterator[str]:
        for line in io.StringIO(text, newline=""):
            taken.append(line)
            yield line

    reader = csv.reader(lines(), delimiter=delimiter, strict=True, skipinitialspace=True)
    while True:
        line = reader.line_num + 1
        taken.clear()
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(f"{path}:{line}: not a valid CSV row: {_reason(error, line, reader.line_num)}") from error
        if values:
            yield Row(line, values, len(taken), taken[0] if len(taken) == 1 else "".join(taken))


def _reason(error: csv.Error, first: int, last: int) -> str:
    text = str(error)
    if "end of data" in text:
        return "a quote opens in it and is never closed"
    if "field limit" in text:
        return f"a value is too long ({text}); is a quote not closed?"
    where = f" up to line {last}" if last > first else ""
    return f"it holds a quoted value{where} and then {text}; a quote inside a quoted value is written twice"


def row_problem(row: Row, n_columns: int, id_column: int, ids: Collection[str], delimiter: str = ",") -> str:
    """Return why a row cannot be what its author meant, "" if nothing is odd about it. Too few values are the caller's to judge.

    Args:
        row: to look at.
        n_columns: of the header.
        id_column: which value names the image.
        ids: that other rows have.
        delimiter: between two values.
    """
    mark = DELIMITERS[delimiter][0]
    if len(row.values) > n_columns:
        return (
            f"line {row.line}: expected {n_columns} value(s), as many as the header has, found {len(row.values)}: "
            f"{shown_all(row.values)}; a value with a {mark} needs quotes around it"
        )
    if row.n_lines == 1 and len(row.raw) <= MAX_VALUE and '"' not in row.raw:  # as nearly all are
        return ""
    if longest := max((value for value in row.values if len(value) > MAX_VALUE), key=len, default=""):
        return f"line {row.line}: a value has {len(longest):,} characters, expected at most {MAX_VALUE:,}: {shown(longest)}"
    if row.n_lines > 1 and (swallowed := _swallowed_rows(row, id_column, ids, delimiter)):
        return (
            f"line {row.line}: a quote opens here and closes {swallowed} line(s) later, and the lines between look like rows: "
            f"{shown(max(row.values, key=len))}"
        )
    for value in row.values:
        blank = value[: len(value) - len(value.lstrip())]
        if value.lstrip().startswith('"') and blank.strip(" ") and f'{delimiter}{blank}"' in row.raw:
            return f"line {row.line}: expected a quote right after the {mark}, found {blank!r} between them: {shown(value)}"
    return ""


def _swallowed_rows(row: Row, id_column: int, ids: Collection[str], delimiter: str) -> int:
    """Return how many lines a value goes on for, where they look like rows that a stray quote made part of it; else 0.

    A caption may have line breaks. Its lines look like rows where one begins with an ID of the table or of the same form, or where
    several have an ID's place filled by one word.
    """
    own = row.values[id_column].strip() if len(row.values) > id_column else ""
    for value in row.values:
        inner = re.split("\r\n|\r|\n", value)[1:]
        names = [_value_at(line, id_column, delimiter) for line in inner]
        alike = any(name in ids or _same_form(name, own) for name in names if name)
        all_words = len(inner) >= 2 and all(name and len(name.split()) == 1 for name in names)
        if alike or all_words:
            return len(inner)
    return 0


def _value_at(line: str, column: int, delimiter: str) -> str:
    """Return one value of a line that has several, else ""."""
    try:
        values = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
    except csv.Error:
        return ""
    return values[column].strip() if len(values) >= 2 and len(values) > column else ""


def _same_form(name: str, other: str) -> bool:
    """Tell whether two IDs with digits are alike but for their letters and digits: `img00` and `img01`, `a/3.png` and `b/12.png`."""
    if not any(char.isdigit() for char in name) or not any(char.isdigit() for char in other):
        return False
    return re.sub(r"\w+", "w", name) == re.sub(r"\w+", "w", other)
