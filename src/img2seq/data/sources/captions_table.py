"""A table of captions: CSV with the columns ID and Sequence, a caption a row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from img2seq.data.csv_rows import delimiter_hint, read_rows, row_problem, split_header
from img2seq.data.sources.content import Content
from img2seq.data.sources.source import Format, Record, checked_record
from img2seq.errors import DataError, did_you_mean, shown, shown_all

COLUMNS = ("ID", "Sequence")
# What other tools call these columns; only named in an error, for a guess must not decide what is trained on.
_OTHER_NAMES = {
    "ID": {"id", "image", "image_id", "imageid", "image_name", "filename", "file_name", "file", "path", "name"},
    "Sequence": {"sequence", "caption", "captions", "text", "description", "sentence", "comment", "label"},
}


def recognise(content: Content) -> bool:
    """Tell whether content is text that is not JSON: a header that is not right deserves its own error."""
    return not content.path.is_dir() and not content.binary_kind and content.json is None


def read(content: Content, problems: list[str]) -> Iterator[Record]:
    """Yield a record for each row; an ID on several rows has several captions, further columns are kept."""
    rows = read_rows(content.path, content.text())
    first = next(rows, None)
    header = [name.strip() for name in first.values] if first is not None else []
    id_column, sequence_column = _columns(content.path, header)
    others = [(i, name) for i, name in enumerate(header) if i not in (id_column, sequence_column)]
    ids: set[str] = set()
    for row in rows:
        if problem := row_problem(row, len(header), id_column, ids):
            problems.append(problem)
            continue
        place = f"line {row.line}"
        if len(row.values) <= max(id_column, sequence_column):
            problems.append(
                f"{place}: expected an ID and a Sequence, found {len(row.values)} value(s): {shown_all(row.values)}"
            )
            continue
        columns = {name: row.values[i] for i, name in others if i < len(row.values)}
        written = row.values[id_column], [row.values[sequence_column]]
        record = (
            checked_record(*written, place, problems, columns) if others else checked_record(*written, place, problems)
        )
        if record is not None:
            ids.add(record.image_id)
            yield record


def _columns(path: Path, header: Sequence[str]) -> tuple[int, int]:
    """Return the places of ID and Sequence. Raises DataError that says what is nearly right about the header."""
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        raise DataError(
            f"{path}:1: expected the columns ID and Sequence, found {shown_all(header)}.{_hint(header, missing)}"
        )
    for name in COLUMNS:
        if header.count(name) > 1:
            raise DataError(f"{path}:1: expected one column {name}, found {header.count(name)}: {shown_all(header)}")
    return header.index(COLUMNS[0]), header.index(COLUMNS[1])


def _hint(header: Sequence[str], missing: Sequence[str]) -> str:
    delimiter = delimiter_hint(header)
    names = split_header(header) if delimiter else header
    renamed = []
    for column in missing:
        like = [name for name in names if name.lower() in _OTHER_NAMES[column]]
        if len(like) == 1 and like[0] != column:  # it may only stand behind another delimiter
            renamed.append(f"{shown(like[0])} to {column}")
    if renamed:
        return f"{delimiter} Rename {' and '.join(renamed)} if that is what it holds."
    return delimiter or did_you_mean(missing[0], [name for name in header if len(name) < 100])


FORMAT = Format("a table (CSV with the columns ID,Sequence)", recognise, read)
