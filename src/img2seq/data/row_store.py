"""Rows of numbers on disk, one for each image content: decoded pixels, and a frozen encoder's features.

A store is a folder with `rows.bin`, fixed-size rows one after the other, mapped into memory for reading, and
`index.sqlite`, which says which content (SHA-256 of the file) is in which row. Content alone decides which row an image has;
so that files need not be hashed in every run, the index also has the content of each file as it was last seen (`file_state`).
Rows are written before the index that names them, inside one locking transaction, so a killed writer leaves only bytes that
the next one overwrites, and several runs may fill one store at a time. A full store may be read-only.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from img2seq.errors import DataError

if TYPE_CHECKING:
    from sqlite3 import Connection

LOCK_TIMEOUT_S = 600
SETTLED_NS = 2_000_000_000  # the coarsest clock of a file system (FAT): a younger file may change and look the same

FileState = tuple[bytes, str]  # a file's absolute path; device, inode, size and times of change, in ns


def default_cache_folder() -> Path:
    """Return $IMG2SEQ_CACHE, else img2seq in the user's cache folder.

    Raises:
        DataError: if the user has none: a user id without a name, as containers run with.
    """
    if folder := os.environ.get("IMG2SEQ_CACHE"):
        return Path(folder)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "img2seq"
    except RuntimeError as error:
        raise DataError(
            "this user has no home folder to keep a cache in; set basic_experiment.cache_folder or IMG2SEQ_CACHE"
        ) from error


def content_key(data: bytes) -> str:
    """Return the SHA-256 of a file's bytes."""
    return hashlib.sha256(data).hexdigest()


def file_state(path: Path) -> FileState | None:
    """Return what is equal as long as a file has not changed, None where it cannot be seen or changed just now."""
    try:
        status = path.stat()
    except OSError:
        return None
    if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) < SETTLED_NS:
        return None
    parts = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return os.fsencode(path.absolute()), " ".join(map(str, parts))


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
            if self._may_write:
                index.execute("CREATE TABLE IF NOT EXISTS rows (content TEXT PRIMARY KEY, row INTEGER NOT NULL UNIQUE)")
                # the table `files` of the first versions took files of one relative path for the same
                index.execute("CREATE TABLE IF NOT EXISTS seen (path BLOB PRIMARY KEY, state TEXT, content TEXT)")
            self._has_seen = bool(index.execute("SELECT 1 FROM sqlite_master WHERE name = 'seen'").fetchone())

    @property
    def _may_write(self) -> bool:
        """Tell whether this process may change what is there: on a read-only disk not even root may."""
        index = self.folder / "index.sqlite"
        return all(os.access(path, os.W_OK) for path in (self.folder, index) if path.exists())

    @contextmanager
    def _index(self) -> Iterator[Connection]:
        import sqlite3  # no part of captioning: pictures know only the state of a file from here

        path = self.folder / "index.sqlite"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            address = f"{path.absolute().as_uri()}?mode={'rwc' if self._may_write else 'ro'}"
            with closing(
                sqlite3.connect(address, uri=True, timeout=LOCK_TIMEOUT_S, isolation_level=None)
            ) as connection:
                yield connection
        except (OSError, sqlite3.Error) as error:
            raise DataError(
                f"{self.folder}: the cache cannot be used: {error}; remove this folder if it is damaged, or set "
                "basic_experiment.cache_folder or IMG2SEQ_CACHE"
            ) from error

    def contents_of(self, states: Sequence[FileState | None]) -> list[str | None]:
        """Return the content key of each file that was seen in this state before, None for the others."""
        if not self._has_seen:
            return [None] * len(states)
        with self._index() as index:
            known = {(path, state): content for path, state, content in index.execute("SELECT * FROM seen")}
        return [known.get(state) if state is not None else None for state in states]

    def remember(self, contents: Mapping[FileState, str]) -> None:
        """Note the content key of files in their states, where this store may be written."""
        if contents and self._has_seen and self._may_write:
            with self._index() as index:
                index.execute("BEGIN IMMEDIATE")
                entries = [(*state, content) for state, content in contents.items()]
                index.executemany("INSERT OR REPLACE INTO seen VALUES (?, ?, ?)", entries)
                index.execute("COMMIT")

    def contents(self) -> set[str]:
        """Return the content keys of all rows."""
        with self._index() as index:
            return {content for (content,) in index.execute("SELECT content FROM rows")}

    def rows_of(self, contents: Sequence[str]) -> NDArray[np.int64]:
        """Return the row number of each content, -1 where there is none."""
        with self._index() as index:
            known = dict(index.execute("SELECT content, row FROM rows"))
        return np.array([known.get(content, -1) for content in contents], dtype=np.int64)

    def add(self, rows: dict[str, NDArray[np.generic]]) -> None:
        """Append rows by content key; contents that another process has added meanwhile are left as they are.

        Raises:
            DataError: when the disk is full, with the bytes needed, or the store is read-only.
        """
        if not rows:
            return
        if not self._may_write:
            raise DataError(
                f"{self.folder}: the cache is read-only and lacks {len(rows):,} images or more; set basic_experiment.cache_folder or IMG2SEQ_CACHE"
            )
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
                (self.folder / "rows.bin").touch()
                with (self.folder / "rows.bin").open("r+b") as file:
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
