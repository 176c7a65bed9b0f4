"""Parquet files with pictures in them (Hugging Face data sets), or with the paths of pictures; several shards are one source.

Captions and places are read first, without the pictures. Those are read a row group at a time, when they are asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from img2seq.data.picture import Member, Place
from img2seq.data.sources.content import Content, first_among
from img2seq.data.sources.entries import captions_of
from img2seq.data.sources.source import KEPT_ID, Format, Record, beside, checked_record, kept_id
from img2seq.data.sources.splits import split_of_shard
from img2seq.data.sources.table import ID_NAMES, IMAGE_NAMES, SPLIT_NAMES, caption_places
from img2seq.errors import DataError, did_you_mean, shown, shown_all
from img2seq.files import regular

ENDING = ".parquet"


def recognise(content: Content) -> bool:
    if content.is_folder:
        return bool(content.archives(ENDING))
    return content.head.startswith(b"PAR1")


def _arrow(path: Path) -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise DataError(
            f'{path}: Parquet is read by pyarrow, which is not installed: pip install "img2seq[formats]"'
        ) from None
    return pyarrow


def _opened(path: Path) -> Any:
    arrow = _arrow(path)
    try:
        return arrow.parquet.ParquetFile(regular(path))
    except (OSError, arrow.ArrowException) as error:
        raise DataError(f"{path}: cannot be read as Parquet: {(str(error).splitlines() or [''])[0]}") from error


def read(content: Content, problems: list[str]) -> Iterator[Record]:
    """Yield a record for each row of each shard."""
    shards = content.archives(ENDING) if content.is_folder else content.files
    content.title = "Parquet" if len(shards) == 1 else f"Parquet in {len(shards):,} shards"
    for shard in shards:
        yield from _read_shard(content, shard, problems)


def _read_shard(content: Content, shard: Path, problems: list[str]) -> Iterator[Record]:
    arrow, options = _arrow(shard), content.options
    with _opened(shard) as file:
        schema = file.schema_arrow
        names = list(schema.names)
        if not names and not file.metadata.num_rows:
            return  # an empty part of a split
        for name in filter(None, (options.id_column, options.image_column, *options.caption_columns)):
            if name not in names:
                raise DataError(
                    f"{shard}: expected the column {shown(name)}, found {shown_all(names)}.{did_you_mean(name, names)}"
                )
        captions = list(options.caption_columns) or [names[i] for i in caption_places(names)]
        image = options.image_column or _image_column(arrow, schema)
        own = options.id_column or first_among(names, ID_NAMES)
        if not content.captions_needed:
            captions = []
        if (image is None and own is None) or (content.captions_needed and not captions):
            raise DataError(
                f"{shard}: expected columns with an image and a caption, found {shown_all(names)}. Name them: image_column and caption_columns"
            )
        side = first_among(names, SPLIT_NAMES)
        # the bytes of pictures stay on disk: of an image column only the path is read
        parts = [] if image is None else _parts(arrow, schema.field(image))
        has_bytes = image is not None and (not parts or "bytes" in parts) and not _is_text(arrow, schema.field(image))
        other = first_among([name for name in names if name != image], IMAGE_NAMES) if has_bytes else None
        columns = [name for name in (own, side, other, *captions) if name is not None]
        columns += [KEPT_ID] if KEPT_ID in names else []
        columns += [f"{image}.path"] if "path" in parts else [image] if image is not None and not has_bytes else []
        below = (
            shard.parent.relative_to(content.path).as_posix() + "/" + shard.name if content.is_folder else shard.name
        )
        of_shard = split_of_shard(below)
        number = 0
        pictures = _Pictures(str(image), bool(parts))
        for group in range(file.metadata.num_row_groups):
            try:
                rows = file.read_row_group(group, columns=columns).to_pylist()
            except (OSError, arrow.ArrowException) as error:
                problems.append(
                    f"{shard.name}: row group {group} cannot be read: {(str(error).splitlines() or [''])[0]}"
                )
                continue
            for index, row in enumerate(rows):
                place = f"{shard.name}, row {number}"
                number += 1
                value = row.get(image) if image is not None else None
                path = value.get("path") if isinstance(value, dict) else value if isinstance(value, str) else None
                path = path or (row.get(other) if other is not None and isinstance(row.get(other), str) else None)
                image_id = (
                    str(row[own])
                    if own is not None and row[own] is not None and (path is None or options.id_column)
                    else kept_id(row)
                )
                if has_bytes and path is None and not image_id:
                    path = f"{below.removesuffix(ENDING)}-{number - 1:06}"
                texts = (captions_of(row, captions) or []) if captions else []
                if not texts and content.captions_needed:
                    problems.append(f"{place}: expected captions in {shown_all(captions)}, found none")
                    continue
                picture: Any = None
                if has_bytes:
                    picture = Member(shard, path or image_id, (group, index), pictures)
                elif path is not None:
                    picture = beside(shard.parent, path)
                record = checked_record(
                    image_id, texts, place, problems, {"image_id": row[own]} if own is not None else {},
                    picture=picture, path=path, split=row[side] if side is not None else of_shard,
                )  # fmt: skip
                if record is not None:
                    yield record


def _image_column(arrow: Any, schema: Any) -> str | None:
    """Return the column with pictures: one that holds them before one that names them."""
    names = list(schema.names)
    holds = [
        name
        for name in names
        if "bytes" in _parts(arrow, schema.field(name)) or arrow.types.is_binary(schema.field(name).type)
    ]
    return first_among(holds, IMAGE_NAMES) or first_among(names, IMAGE_NAMES)


def _parts(arrow: Any, field: Any) -> list[str]:
    kind = field.type
    return [kind.field(i).name for i in range(kind.num_fields)] if arrow.types.is_struct(kind) else []


def _is_text(arrow: Any, field: Any) -> bool:
    kind = field.type.value_type if arrow.types.is_dictionary(field.type) else field.type
    return bool(arrow.types.is_string(kind) or arrow.types.is_large_string(kind))


class _RowGroups:
    """The few row groups of pictures that were read last, of any shard: pictures are asked for in order, by several threads."""

    MOST = 3

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.columns: dict[tuple[Any, ...], Any] = {}

    def bytes_at(self, archive: Path, column: str, group: int, row: int) -> bytes:
        with self.lock:
            key = (archive, archive.stat().st_mtime_ns, column, group)
            values = self.columns.pop(key, None)
            if values is None:
                while len(self.columns) >= self.MOST:
                    del self.columns[next(iter(self.columns))]  # the one that was used longest ago
                with _opened(archive) as file:
                    try:
                        (values,) = file.read_row_group(group, columns=[column]).columns
                    except (OSError, _arrow(archive).ArrowException) as error:
                        why = (str(error).splitlines() or [""])[0]
                        raise DataError(f"{archive}: row group {group} cannot be read: {why}") from error
            self.columns[key] = values
            value = values[row].as_py()
        found = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(found, bytes):
            raise DataError(f"{archive}: expected a picture's bytes in the column {column}, found {shown(found)}")
        return found


_LAST = _RowGroups()


class _Pictures:
    """Reads pictures of one column."""

    def __init__(self, column: str, is_struct: bool):
        self.column = f"{column}.bytes" if is_struct else column

    def __call__(self, archive: Path, place: Place) -> bytes:
        return _LAST.bytes_at(archive, self.column, *place)


FORMAT = Format("parquet", "Parquet (columns with an image and captions)", recognise, read)
