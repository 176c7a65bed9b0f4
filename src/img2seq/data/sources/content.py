"""What a path leads to, before it is known which format it has."""

from __future__ import annotations

import codecs
import glob
import json
import os
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from img2seq.config.outputs import ReadOptions
from img2seq.data.csv_rows import decode_text, file_content
from img2seq.errors import DataError, did_you_mean, shown
from img2seq.files import regular

ARCHIVES = (".tar", ".parquet")  # that hold pictures
HEAD_BYTES = 4096
MOST_SHARDS = 100_000
_SIGNATURES = {
    b"PK\x03\x04": "a ZIP archive",
    b"PAR1": "a Parquet file",
    b"\x1f\x8b": "a gzip file",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"SQLite": "an SQLite database",
    b"\xd0\xcf\x11\xe0": "an old Excel file (.xls); save it as .xlsx or CSV",
}
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


GUESSED = ReadOptions()


class Content:
    """What a path leads to, read once for all the formats that look at it: a file, a folder, or the shards that fit a pattern.

    Attributes:
        path: as it was given.
        options: what a person says of it.
        title: what was found, in a few words; a format makes it more precise when it reads.
        notes: what else to say of what was read.
        n_several: entries that show several pictures, of which the first is taken.
        captions_needed: whether a picture without captions is a problem; a list of pictures to caption has none.

    Raises:
        DataError: if it cannot be read, or is not the text or JSON that it is asked for.
    """

    def __init__(self, path: str | Path, options: ReadOptions = GUESSED, *, captions_needed: bool = True):
        self.path, self.options, self.captions_needed = Path(path), options, captions_needed
        self.title = ""
        self.notes: list[str] = []
        self.n_several = 0

    @cached_property
    def is_folder(self) -> bool:
        return self.path.is_dir()

    @cached_property
    def files(self) -> list[Path]:
        """The file, or those that fit a pattern (`shards/*.tar`, `shard-{000..019}.tar`); none for a folder."""
        if self.is_folder:
            return []
        text = str(self.path)
        if self.path.exists() or not is_pattern(text):
            return [self.path]
        found = sorted({match for part in _braces(text) for match in glob.glob(part, recursive=True)})  # noqa: PTH207
        if not found:
            raise DataError(f"{self.path}: no file fits this pattern")
        if len(found) == 1:
            self.path = Path(found[0])  # then it is that file, whose folder its paths are relative to
        return [Path(name) for name in found]

    def archives(self, *endings: str) -> list[Path]:
        """Return the files with one of these endings, of a folder those in it and below, in order."""
        if not self.is_folder:
            return [path for path in self.files if path.name.lower().endswith(endings)]
        return sorted(path for path in self._walk if path.name.lower().endswith(endings))

    @cached_property
    def _walk(self) -> list[Path]:
        return list(files_below(self.path))

    @cached_property
    def head(self) -> bytes:
        """The first bytes of the first file, none of a folder."""
        if not self.files:
            return b""
        path = self.files[0]
        if not path.exists():
            near = did_you_mean(path.name, os.listdir(path.parent)) if path.parent.is_dir() else ""  # noqa: PTH208  (names)
            raise DataError(f"{path}: cannot be read: No such file or directory.{near}".rstrip("."))
        try:
            with regular(path).open("rb") as file:
                return file.read(HEAD_BYTES)
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from error

    @property
    def binary_kind(self) -> str:
        """What a file is that is no text, "" for text."""
        for signature, name in _SIGNATURES.items():
            if self.head.startswith(signature):
                return name
        if self.head.startswith(UTF16):
            return ""
        if self.head[257:262] == b"ustar":
            return "a tar archive"
        return "binary data" if b"\0" in self.head.partition(b"\n")[0] else ""

    @cached_property
    def json(self) -> Any:
        """What a JSON object or list holds, None for a file that does not begin as one, or has an object on each line."""
        begin = self.head.removeprefix(codecs.BOM_UTF8).lstrip()[:1]
        return read_json(self.path) if begin in (b"{", b"[") and not self.has_json_lines else None

    @cached_property
    def has_json_lines(self) -> bool:
        """Whether the first line that is not empty is a whole JSON object, and something follows or the file's name says so."""
        if not self.head.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"{"):
            return False
        with self.files[0].open("rb") as file:
            lines = (line for line in file if line.strip())
            first, second = next(lines, b""), next(lines, b"")
        try:
            is_object = isinstance(json.loads(first.decode("utf-8-sig")), dict)
        except (ValueError, RecursionError):
            return False
        return is_object and (bool(second) or self.files[0].suffix.lower() in (".jsonl", ".ndjson"))

    def text(self) -> str:
        return decode_text(self.path, file_content(self.path))


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder and its subfolders, in order, without those that a system hides; linked folders are not entered."""
    for root, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            if not name.startswith("."):
                yield Path(root, name)


def is_pattern(path: str) -> bool:
    """Tell whether a path stands for several files: `shards/*.tar`, `shard-{000..019}.tar`."""
    return glob.has_magic(path) or re.search(r"\{\d+\.\.\d+\}", path) is not None


def _braces(text: str) -> list[str]:
    """Return the texts that `{000..019}` stands for, as WebDataset and the shell read it."""
    found = re.search(r"\{(\d+)\.\.(\d+)\}", text)
    if found is None:
        return [text]
    first, last = found.groups()
    if int(last) - int(first) >= MOST_SHARDS:
        raise DataError(f"{text}: expected a pattern of at most {MOST_SHARDS:,} files")
    numbers = [str(n).zfill(len(first)) for n in range(int(first), int(last) + 1)]
    return [rest for n in numbers for rest in _braces(text[: found.start()] + n + text[found.end() :])]


def first_among(names: Sequence[str], wanted: Sequence[str]) -> str | None:
    """Return the first wanted name that is there, as it is written there: names are compared without regard to case, blanks and `_`."""
    plain = {plain_name(name): name for name in reversed(names)}
    return next((plain[want] for want in wanted if want in plain), None)


def plain_name(name: str) -> str:
    """Return the form in which names of columns are compared."""
    return re.sub(r"[\s_-]", "", name).casefold()


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
