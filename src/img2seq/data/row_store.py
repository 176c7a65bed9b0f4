"""Rows of numbers on disk, one for each image content: decoded pixels, and a frozen encoder's features.

A store is a folder with `rows.bin`, fixed-size rows one after the other, mapped into memory for reading, and
`index.sqlite`, which says which content (SHA-256 of the file) is in which row, and which content a file had
when its size and time of change were last seen. Rows are written before the index that names them, inside
one locking transaction, so a killed writer leaves only bytes that the next one overwrites, and several runs
may fill one store at a time.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from img2seq.errors import DataError

LOCK_TIMEOUT_S = 600


def default_cache_folder() -> Path:
    """Return $IMG2SEQ_CACHE, else img2seq in the user's cache folder."""
    if folder := os.environ.get("IMG2SEQ_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "img2seq"


def content_key(data: bytes) -> str:
    """Return the SHA-256 of a file's bytes."""
    return hashlib.sha256(data).hexdigest()


class RowStore:
    """Fixed-shape rows by content key.

    Args:
        folder: made if absent. Everything that decides a row's numbers belongs in its name.
        shape: of one row.
        dtype: of one row.
    """

    def __init__(self, folder: Path, shape: tuple[int, ...], dtype: type[np.generic]):
        self.folder, self.shape, self.dtype = folder, shape, np.dtype(dtype)
        self.row_bytes = int(np.prod(shape)) * self.dtype.itemsize
        with self._index() as index:
            index.execute("CREATE TABLE IF NOT EXISTS rows (content TEXT PRIMARY KEY, row INTEGER NOT NULL UNIQUE)")
            index.execute(
                "CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, size INTEGER, changed_ns INTEGER, content TEXT)"
            )

    @contextmanager
    def _index(self) -> Iterator[sqlite3.Connection]:
        path = self.folder / "index.sqlite"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(path, timeout=LOCK_TIMEOUT_S, isolation_level=None)) as connection:
                yield connection
        except (OSError, sqlite3.Error) as error:
            raise DataError(
                f"{self.folder}: the cache cannot be used: {error}; remove this folder if it is damaged, or set "
                "basic_experiment.cache_folder or IMG2SEQ_CACHE"
            ) from error

    def contents_of(self, paths: Sequence[Path]) -> list[str | None]:
        """Return the content key each file had when it was last read, or None if it is new or has changed."""
        with self._index() as index:
            known = {
                path: (size, changed, content) for path, size, changed, content in index.execute("SELECT * FROM files")
            }
        keys: list[str | None] = []
        for path in paths:
            status = path.stat()
            size, changed, content = known.get(str(path), (None, None, None))
            keys.append(content if (size, changed) == (status.st_size, status.st_mtime_ns) else None)
        return keys

    def remember_files(self, contents: dict[Path, str]) -> None:
        """Note the content key of files as they are now."""
        entries = [
            (str(path), path.stat().st_size, path.stat().st_mtime_ns, content) for path, content in contents.items()
        ]
        with self._index() as index:
            index.execute("BEGIN IMMEDIATE")
            index.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", entries)
            index.execute("COMMIT")

    def rows_of(self, contents: Sequence[str]) -> NDArray[np.int64]:
        """Return the row number of each content, -1 where there is none."""
        with self._index() as index:
            known = dict(index.execute("SELECT content, row FROM rows"))
        return np.array([known.get(content, -1) for content in contents], dtype=np.int64)

    def add(self, rows: dict[str, NDArray[np.generic]]) -> None:
        """Append rows by content key; contents that another process has added meanwhile are left as they are.

        Raises:
            DataError: when the disk is full, with the bytes needed.
        """
        with self._index() as index:
            index.execute("BEGIN IMMEDIATE")  # from here to COMMIT this process alone writes
            first = index.execute("SELECT COUNT(*) FROM rows").fetchone()[0]
            known = {
                content
                for content in rows
                if index.execute("SELECT 1 FROM rows WHERE content = ?", (content,)).fetchone()
            }
            new = {content: row for content, row in rows.items() if content not in known}
            try:
                descriptor = os.open(self.folder / "rows.bin", os.O_RDWR | os.O_CREAT, 0o644)
                with os.fdopen(descriptor, "r+b") as file:
                    file.seek(first * self.row_bytes)
                    for row in new.values():
                        if row.shape != self.shape or row.dtype != self.dtype:
                            raise ValueError(
                                f"expected a row of {self.dtype} {self.shape}, found {row.dtype} {row.shape}"
                            )
                        file.write(np.ascontiguousarray(row).tobytes())
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise DataError(
                    f"{self.folder}: cannot write {len(new) * self.row_bytes:,} bytes to the cache: {error.strerror}"
                ) from error
            index.executemany("INSERT INTO rows VALUES (?, ?)", [(content, first + i) for i, content in enumerate(new)])
            index.execute("COMMIT")

    def map(self) -> NDArray[np.generic]:
        """Return all rows mapped into memory, read-only: shape (rows, *shape)."""
        with self._index() as index:
            count = index.execute("SELECT COUNT(*) FROM rows").fetchone()[0]
        if count == 0:
            return np.empty((0, *self.shape), self.dtype)
        try:
            return np.memmap(self.folder / "rows.bin", dtype=self.dtype, mode="r", shape=(count, *self.shape))
        except (OSError, ValueError) as error:
            raise DataError(
                f"{self.folder}: the cache is damaged ({error}); remove the folder and run again"
            ) from error
