"""Read the table of captions: a CSV with the columns ID and Sequence."""

from __future__ import annotations

import csv
import io
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

from img2seq.errors import DataError, did_you_mean, listed

csv.field_size_limit(1_000_000)


@dataclass
class CaptionTable:
    """Captions by ID in the order of the file, and the rows that cannot be used."""

    captions: dict[str, list[str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def is_utf8(text: str) -> bool:
    """Tell whether text can be written to a file: names of files need not be, nor texts in JSON."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def clean_caption(text: str) -> str:
    """Return the caption in Unicode NFC on one line: separators and control characters become one space.

    Raises:
        ValueError: for text that is not valid Unicode (a lone surrogate).
    """
    text = unicodedata.normalize("NFC", text)
    if not is_utf8(text):
        raise ValueError("not valid Unicode (a lone surrogate)")
    if not text.isprintable():  # also true of every separator but the space, so plain captions skip the loop
        text = "".join(" " if unicodedata.category(char) in ("Cc", "Zl", "Zp", "Zs") else char for char in text)
    return " ".join(text.split(" ")) if "  " not in text else " ".join(part for part in text.split(" ") if part)


def read_captions(path: str | Path) -> CaptionTable:
    """Read captions from a CSV with a header `ID,Sequence`; further columns are ignored.

    An ID is text ("000000000009" stays so); one that stands on several rows has several captions.

    Raises:
        DataError: if the file cannot be read at all. Rows that cannot be used are returned as problems.
    """
    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise DataError(f"{path}:{line}: expected UTF-8 text, found byte {error.object[error.start]:#04x}") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    table = CaptionTable()
    try:
        header = next(reader, [])
        id_column, sequence_column = (_column(name, header, path) for name in ("ID", "Sequence"))
        for row in reader:
            _add_row(table, row, reader.line_num, id_column, sequence_column)
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: not a valid CSV row: {error}") from error
    if not table.captions:
        why = f":\n{listed(table.problems)}" if table.problems else ""
        raise DataError(f"{path}: expected captions, found none in {reader.line_num} lines{why}")
    return table


def _column(name: str, header: list[str], path: Path) -> int:
    if name not in header:
        raise DataError(
            f"{path}:1: expected the columns ID and Sequence, found {', '.join(map(repr, header)) or 'nothing'}.{did_you_mean(name, header)}"
        )
    return header.index(name)


def _add_row(table: CaptionTable, row: list[str], line: int, id_column: int, sequence_column: int) -> None:
    if not row:
        return
    if len(row) <= max(id_column, sequence_column):
        table.problems.append(f"line {line}: expected an ID and a Sequence, found {len(row)} value(s)")
        return
    image_id = row[id_column].strip()
    try:
        caption = clean_caption(row[sequence_column]).strip()
    except ValueError as error:
        table.problems.append(f"line {line}: ID {image_id!r}: the caption is {error}")
        return
    if not image_id:
        table.problems.append(f"line {line}: the ID is empty")
    elif not caption:
        table.problems.append(f"line {line}: ID {image_id!r}: the caption is empty")
    else:
        table.captions.setdefault(image_id, []).append(caption)
