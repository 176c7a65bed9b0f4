"""A table of captions: CSV, tabs, semicolons, bars or Excel (.xlsx), with a header; a caption a row, or several columns of them.

Columns, delimiter and encoding are guessed where they are not named, and what was guessed is said. A column of paths makes the IDs
where there is no column of IDs.
"""

from __future__ import annotations

import datetime
import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from img2seq.data.csv_rows import DELIMITERS, Row, decode_text, file_content, read_rows, row_problem
from img2seq.data.sources.content import UTF16, Content, first_among, plain_name
from img2seq.data.sources.source import Format, Record, beside, checked_record
from img2seq.errors import DataError, did_you_mean, shown, shown_all

COLUMNS = ("ID", "Sequence")
# In the plain form of `plain_name`, the most telling first.
ID_NAMES = ("id", "imageid", "uid", "key")
IMAGE_NAMES = (
    "filename", "filepath", "imagepath", "image", "imagename", "imagefile", "imagefilename", "file", "path", "picture", "photo", "img",
    "jpg", "png", "imagebytes", "imgbytes", "bild", "bilddatei", "bildname", "datei", "dateiname", "fichier", "nomfichier", "imagen",
    "archivo", "immagine", "afbeelding", "bestand", "name",
)  # fmt: skip
CAPTION_NAMES = (
    "sequence", "caption", "captions", "text", "description", "sentence", "sentences", "alttext", "beschreibung", "bildbeschreibung",
    "légende", "legende", "descripción", "descripcion", "leyenda", "descrizione", "didascalia", "omschrijving", "comment", "label",
)  # fmt: skip
SPLIT_NAMES = ("split", "subset", "partition")
_UNDEFINED_IN_1252 = re.compile(rb"[\x81\x8d\x8f\x90\x9d]")
_MULTIBYTE = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
MOST_TITLE_ROWS = 10  # above the header
MOST_ACCENTED = 0.3  # of the characters; more is no Western European text


def recognise(content: Content) -> bool:
    """Tell whether content is text that is not JSON, or a workbook: a header that is not right deserves its own error."""
    if content.is_folder or len(content.files) != 1:
        return False
    return _is_workbook(content) or (not content.binary_kind and content.json is None and not content.has_json_lines)


def _is_workbook(content: Content) -> bool:
    if not content.head.startswith(b"PK\x03\x04"):
        return False
    try:
        with zipfile.ZipFile(content.files[0]) as archive:
            return "xl/workbook.xml" in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


@dataclass(frozen=True)
class Columns:
    """Places of what is read in a row; None for what the table does not have."""

    id: int | None
    image: int | None
    captions: tuple[int, ...]
    split: int | None

    @property
    def needed(self) -> list[int]:
        return [place for place in (self.id, self.image) if place is not None]

    @property
    def names_image(self) -> int:
        return self.needed[0]


def read(content: Content, problems: list[str]) -> Iterator[Record]:
    """Yield a record for each row; an ID on several rows has several captions, further columns are kept."""
    rows, delimiter = table_rows(content)
    header, columns = _header(content, rows)
    content.title = _title(content, header, columns, delimiter)
    taken = {*columns.needed, *columns.captions, columns.split}
    others = [(i, name) for i, name in enumerate(header) if i not in taken or i == columns.split]
    ids: set[str] = set()
    least = max([columns.names_image, *columns.captions[:1]])
    for row in rows:
        if problem := row_problem(row, len(header), columns.names_image, ids, delimiter):
            problems.append(problem)
            continue
        place = f"line {row.line}"
        if len(row.values) <= least:
            problems.append(
                f"{place}: expected an ID and a Sequence, found {len(row.values)} value(s): {shown_all(row.values)}"
            )
            continue
        record = _record(
            content, row.values, columns, place, problems, [(i, n) for i, n in others if i < len(row.values)]
        )
        if record is not None:
            ids.add(record.image_id)
            yield record


def _header(content: Content, rows: Iterator[Row]) -> tuple[list[str], Columns]:
    """Return the header, which may stand below a title. Raises what is wrong with the first row where no row is one."""
    error: DataError | None = None
    for _, row in zip(range(MOST_TITLE_ROWS + 1), rows, strict=False):
        header = [name.strip() for name in row.values]
        if len(header) == 1 and header[0].startswith("sep="):  # Excel's own mark
            continue
        try:
            return header, columns_of(content, header)
        except DataError as found:
            error = error or found
            if len(header) > 1 and all(header):
                break  # a row that is full is no title
    raise error or DataError(f"{content.path}:1: expected the columns ID and Sequence, found nothing")


def _record(
    content: Content, values: Sequence[str], columns: Columns, place: str, problems: list[str], others: Sequence[tuple[int, str]]
) -> Record | None:  # fmt: skip
    texts = [values[i] for i in columns.captions if i < len(values)]
    if len(texts) > 1:  # of several columns, some may be empty
        texts = [text for text in texts if text.strip()] or [""]
    path = values[columns.image] if columns.image is not None else None
    options: dict[str, Any] = {"columns": {name: values[i] for i, name in others}} if others else {}
    if path is not None and path.strip():
        options |= {"path": path, "picture": beside(content.path.parent, path)}
    elif columns.id is None:
        options["path"] = ""
    split = values[columns.split] if columns.split is not None and columns.split < len(values) else ""
    image_id = values[columns.id] if columns.id is not None else ""
    return checked_record(image_id, texts, place, problems, split=split, **options)


# --- text ------------------------------------------------------------------------------------------------


def table_rows(content: Content) -> tuple[Iterator[Row], str]:
    """Return the rows of a table, and what stands between their values."""
    path = content.files[0]
    if _is_workbook(content):
        return _workbook_rows(path), ","
    text = table_text(content)
    given = content.options.delimiter
    delimiter = "\t" if given == "tab" else given or _delimiter(text)
    return read_rows(path, text, delimiter), delimiter


def table_text(content: Content) -> str:
    """Return a table's text: in the encoding that was named, else UTF-8, or UTF-16 or Windows-1252 where it is evidently that.

    Raises:
        DataError: for text of another encoding, with the line.
    """
    path, data, encoding = content.files[0], file_content(content.files[0]), content.options.encoding
    if encoding is not None:
        try:
            return data.decode(encoding).removeprefix("\ufeff")
        except LookupError:
            raise DataError(f"encoding: expected a name such as utf-8 or cp1252, found {shown(encoding)}") from None
        except UnicodeDecodeError as error:
            line = data[: error.start].count(b"\n") + 1
            raise DataError(f"{path}:{line}: expected {encoding} text, found byte {data[error.start]:#04x}") from None
    if data.startswith(UTF16):
        try:
            return data.decode("utf-16")
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: expected UTF-16 text: {error.reason}") from None
    try:
        return decode_text(path, data)
    except DataError as error:
        if _seems_western(data):
            content.notes.append(f"{path}: read as Windows-1252, for it is not UTF-8; encoding: sets another")
            return data.decode("cp1252")
        raise DataError(f"{error}; encoding: reads it in another, such as cp932 or gb18030") from None


def _seems_western(data: bytes) -> bool:
    """Tell whether text that is not UTF-8 may be Windows-1252: not damaged UTF-8, nor a script of other letters."""
    if b"\0" in data or _UNDEFINED_IN_1252.search(data):
        return False
    n_high = sum(byte >= 0x80 for byte in data)
    in_utf8 = sum(len(found) for found in _MULTIBYTE.findall(data))
    return 2 * in_utf8 < n_high and n_high < MOST_ACCENTED * len(data.translate(None, b" \r\n\t"))


def _delimiter(text: str) -> str:
    """Return what separates the values: what gives the header columns that are known, else what it has most of."""
    lines = [line for line in text.splitlines()[: MOST_TITLE_ROWS + 1] if line.strip()]
    if lines and (found := re.fullmatch(r'"?sep=(.)"?', lines[0].strip())):
        return found[1]
    header = lines[0] if lines else ""
    known = {*ID_NAMES, *IMAGE_NAMES, *CAPTION_NAMES, *SPLIT_NAMES}

    def fit(mark: str) -> tuple[int, int]:
        names = [plain_name(name.strip(' "')) for name in header.split(mark)]
        return sum(name in known for name in names) if len(names) > 1 else 0, len(names)

    return max(DELIMITERS, key=fit)


# --- workbooks -------------------------------------------------------------------------------------------


def _workbook_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of the first sheet of a workbook that has any."""
    try:
        import openpyxl
    except ImportError:
        raise DataError(
            f'{path}: Excel files are read by openpyxl, which is not installed: pip install "img2seq[formats]", or save it as CSV'
        ) from None
    try:
        with path.open("rb") as file, closing(openpyxl.load_workbook(file, read_only=True, data_only=True)) as book:
            for sheet in book.worksheets:
                rows = [
                    Row(line, values, 1, "")
                    for line, cells in enumerate(sheet.iter_rows(), 1)
                    if any(values := [_cell_text(cell) for cell in cells])
                ]
                if any(
                    len(list(filter(None, row.values))) > 1 for row in rows
                ):  # a sheet of one column tells of the others
                    width = max(len(row.values) for row in rows)
                    yield from (Row(row.line, _without_blanks(row.values, width), 1, "") for row in rows)
                    return
    except Exception as error:  # a damaged workbook raises whatever its parts raise
        raise DataError(f"{path}: cannot be read as an Excel file: {(str(error).splitlines() or [''])[0]}") from error


def _without_blanks(values: list[str], width: int) -> list[str]:
    """Return a row without the empty cells behind those of the header."""
    while len(values) > width and not values[-1]:
        values = values[:-1]
    return values


def _cell_text(cell: Any) -> str:
    """Return a cell as it is shown: 7 and not 7.0, with the zeros before an ID that its number format shows."""
    value = cell.value
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        shape = str(cell.number_format or "")
        return str(value).zfill(len(shape)) if shape and set(shape) == {"0"} else str(value)
    return value.isoformat() if isinstance(value, datetime.date | datetime.time) else str(value)


# --- columns ---------------------------------------------------------------------------------------------


def columns_of(content: Content, header: Sequence[str]) -> Columns:
    """Return which columns hold what: those that were named, else ID and Sequence, else those whose names say so.

    Raises:
        DataError: where none does, or a column that was named is not there or there twice.
    """
    options, where = content.options, f"{content.path}:1"
    count = Counter(header)
    for name in [name for name, n in count.items() if n > 1]:
        if name in COLUMNS or name in (options.id_column, options.image_column, *options.caption_columns):
            raise DataError(f"{where}: expected one column {name}, found {count[name]}: {shown_all(header)}")

    def place(name: str | None, known: Sequence[str]) -> int | None:
        if name is not None and name not in header:
            near = did_you_mean(name, [other for other in header if len(other) < 100])
            raise DataError(f"{where}: expected the column {shown(name)}, found {shown_all(header)}.{near}")
        found = name if name is not None else first_among(header, known)
        return None if found is None else header.index(found)

    id_column = place(options.id_column, () if options.image_column else ID_NAMES)
    image = place(options.image_column, IMAGE_NAMES)
    if image == id_column and options.image_column is None:
        image = None
    captions = tuple(place(name, ()) for name in options.caption_columns) or caption_places(header)
    if not content.captions_needed:
        captions = ()
    if (id_column is None and image is None) or (content.captions_needed and not captions):
        raise DataError(f"{where}: expected the columns ID and Sequence, found {shown_all(header)}.{_hint(header)}")
    split = place(None, SPLIT_NAMES)
    return Columns(id_column, image, tuple(i for i in captions if i is not None), split)


def caption_places(names: Sequence[str]) -> tuple[int, ...]:
    """Return the places of the columns whose names say that they hold captions: `caption`, or `caption_1`, `caption_2` and so on."""
    without_number: dict[str, list[int]] = {}  # `caption` and `caption_2` are two captions
    for i, name in enumerate(names):
        without_number.setdefault(plain_name(name).rstrip("0123456789"), []).append(i)
    return next((tuple(without_number[base]) for base in CAPTION_NAMES if base in without_number), ())


def _hint(header: Sequence[str]) -> str:
    near = did_you_mean("ID", header) or did_you_mean("Sequence", [name for name in header if len(name) < 100])
    return f"{near} Name them: id_column (or image_column) and caption_columns (--id-column, --image-column, --caption-columns)"


def _title(content: Content, header: Sequence[str], columns: Columns, delimiter: str) -> str:
    """Return what was found, with all that was guessed."""
    kind = "Excel table" if _is_workbook(content) else "table"
    if delimiter != ",":
        kind += f" with {DELIMITERS.get(delimiter, ('', shown(delimiter)))[1]}"
    names = [header[i] for i in columns.captions]
    if [header[columns.names_image], *names] == list(COLUMNS):
        return kind
    image = f"images from {header[columns.names_image]!r}"
    some = ", ".join(f"{name!r}" for name in names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"{kind} ({image}, captions from {some})"


FORMAT = Format(
    "table", "a table (CSV or Excel with the columns ID and Sequence, or image and caption)", recognise, read
)
