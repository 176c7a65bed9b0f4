"""What a path leads to, before it is known which format it has."""

from __future__ import annotations

import codecs
import json
from functools import cached_property
from pathlib import Path
from typing import Any

from img2seq.data.csv_rows import decode_text, file_content
from img2seq.errors import DataError, shown

HEAD_BYTES = 4096
_SIGNATURES = {
    b"PK\x03\x04": "a ZIP archive (an .xlsx file is one)",
    b"PAR1": "a Parquet file",
    b"\x1f\x8b": "a gzip file",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
    b"SQLite": "an SQLite database",
}


class Content:
    """What a path leads to, read once for all the formats that look at it.

    Raises:
        DataError: if it cannot be read, or is not the UTF-8 text or JSON that it is asked for.
    """

    def __init__(self, path: Path):
        self.path = path

    @cached_property
    def head(self) -> bytes:
        """The first bytes, none of a folder."""
        if self.path.is_dir():
            return b""
        try:
            with self.path.open("rb") as file:
                return file.read(HEAD_BYTES)
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read: {error.strerror}") from error

    @property
    def binary_kind(self) -> str:
        """What a file is whose first line is no UTF-8 text, "" for text."""
        for signature, name in _SIGNATURES.items():
            if self.head.startswith(signature):
                return name
        line = self.head.partition(b"\n")[0]
        try:
            codecs.getincrementaldecoder("utf-8")().decode(line)  # a character may be cut at the end of the head
        except UnicodeDecodeError:
            return "binary data" if b"\0" in line else "text that is not UTF-8"
        return "binary data" if b"\0" in line else ""

    @cached_property
    def json(self) -> Any:
        """What a JSON object or list holds, None for a file that does not begin as one."""
        begin = self.head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
        return read_json(self.path) if begin in (b"{", b"[") else None

    def text(self) -> str:
        return decode_text(self.path, file_content(self.path))


def read_json(path: Path) -> Any:
    """Return what a JSON file holds. Raises DataError where it cannot be read or an object has a key twice."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) < len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            raise DataError(f"{path}: the key {shown(twice)} appears twice in one object")
        return content

    try:
        return json.loads(decode_text(path, file_content(path)), object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: line {error.lineno}, column {error.colno}: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
