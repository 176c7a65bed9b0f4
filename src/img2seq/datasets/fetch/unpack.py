"""Unpack a ZIP file that somebody else made: nothing outside the folder, no links, no bombs, nothing replaced; resumable.

A member is written beside its place and renamed, so a file that has its name is whole. What is there already with the content of
the member is left as it is, which is how an unpacking that was stopped continues.
"""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from img2seq.datasets.fetch.catalogue import Archive, size
from img2seq.errors import DataError, shown
from img2seq.progress import Announcer

MOST_GROWTH = 4  # times the bytes that the catalogue expects; more is a bomb
MOST_MEMBERS = 2_000_000
CHUNK = 2**20  # bytes
TEMPORARY = ".img2seq-fetch.tmp"  # in the folder of the member that is written
RESERVED = frozenset(':*?"<>|')  # Windows gives these a meaning


@dataclass(frozen=True)
class Unpacked:
    """A file that was unpacked: its path below the folder, with "/", and its length."""

    path: str
    n_bytes: int


def unpack(archive: Archive, path: Path, folder: Path, announce: Announcer) -> list[Unpacked]:
    """Unpack the members of an archive that are needed, and return them.

    Args:
        archive: says which members.
        path: of the ZIP file.
        folder: where they go; their own folders are made in it.
        announce: shows a bar.

    Raises:
        DataError: for an archive that is damaged or dangerous, before any of it is written where its list shows that; for a file
            of a member's name with other content. What was unpacked before stays.
    """
    with _readable(path), zipfile.ZipFile(path) as file:
        members = _checked_members(archive, path, file.infolist())
        with announce.bar(f"unpacking {path.name}", sum(m.file_size for m in members), unit="B") as advance:
            for member in members:
                target = folder / member.filename
                if not _is_there(target, member):
                    target.parent.mkdir(parents=True, exist_ok=True)
                    _write(file, member, target)
                advance(member.file_size)
        for parent in {(folder / member.filename).parent for member in members}:
            (parent / TEMPORARY).unlink(missing_ok=True)  # of a process that was killed
    return [Unpacked(member.filename, member.file_size) for member in members]


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # a full disk, or a place that a damaged list gives and no file has
        raise DataError(f"{error.filename or path}: cannot be unpacked: {error.strerror or error}") from error
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError) as error:
        raise DataError(f"{path}: cannot be unpacked: {error}") from error


def _checked_members(archive: Archive, path: Path, members: Sequence[zipfile.ZipInfo]) -> list[zipfile.ZipInfo]:
    """Return the members that are needed. One dangerous name is enough not to trust the whole archive."""
    if len(members) > MOST_MEMBERS:
        raise DataError(
            f"{path}: expected at most {MOST_MEMBERS:,} files, found {len(members):,}; nothing was unpacked"
        )
    wanted: dict[str, zipfile.ZipInfo] = {}
    for member in members:
        if why := _danger(member):
            raise DataError(f"{path}: the member {shown(member.orig_filename)} {why}; nothing was unpacked")
        if member.is_dir() or not any(fnmatchcase(member.filename, pattern) for pattern in archive.members):
            continue
        if wanted.setdefault(member.filename.casefold(), member) is not member:
            raise DataError(f"{path}: the member {shown(member.filename)} is there twice; nothing was unpacked")
    for pattern in archive.members:
        if not any(fnmatchcase(member.filename, pattern) for member in wanted.values()):
            raise DataError(f"{path}: expected {pattern} in it, found none; nothing was unpacked")
    total, most = sum(member.file_size for member in wanted.values()), MOST_GROWTH * archive.unpacked_bytes
    if total > most:
        raise DataError(f"{path}: would unpack to {size(total)}, more than {size(most)}; nothing was unpacked")
    return list(wanted.values())


def _danger(member: zipfile.ZipInfo) -> str:
    """Return why a member must not be written, "" for a plain file with a plain name."""
    name = member.orig_filename  # as it is in the file: zipfile mends some names
    parts = PurePosixPath(name).parts
    if name.startswith("/") or "\\" in name or any(char in RESERVED or ord(char) < 32 for char in name):
        return "has no plain name"
    if not parts or ".." in parts or "." in name.split("/") or "" in name.removesuffix("/").split("/"):
        return "leads out of its folder"
    mode = member.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device"
    return "is encrypted" if member.flag_bits & 1 else ""


def _is_there(target: Path, member: zipfile.ZipInfo) -> bool:
    """Tell whether a file is there already. Raises DataError for one of that name with other content."""
    if not target.exists() and not target.is_symlink():
        return False
    if target.is_file() and target.stat().st_size == member.file_size:
        found = 0
        with target.open("rb") as file:
            while chunk := file.read(CHUNK):
                found = zlib.crc32(chunk, found)
        if found == member.CRC:
            return True
    raise DataError(f"{target}: exists already with other content, and is not replaced; move it away, then run again")


def _write(file: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    temporary = target.with_name(TEMPORARY)
    try:
        with file.open(member) as packed, temporary.open("wb") as unpacked:
            n_bytes = 0
            while chunk := packed.read(CHUNK):  # no more than the member says; checks the CRC at the end
                n_bytes += len(chunk)
                unpacked.write(chunk)
            if n_bytes < member.file_size:
                raise zipfile.BadZipFile(f"{member.filename} is shorter than it says")
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
