"""The way of a data set from its host into a folder: plan, fetch, verify, unpack, note what was done.

In the folder, beside the data: `archives/` with the ZIP files (removed once they are unpacked, unless they are kept) and for each
a list of what was unpacked from it, and `fetch-NAME.json`, which says where everything came from. Whatever the moment at which the
process ends, the same command goes on and ends with the same files.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from img2seq.data.sources.content import read_json
from img2seq.datasets.fetch.catalogue import DATA_SETS, Archive, DataSet, find, size
from img2seq.datasets.fetch.download import download, fetched_bytes, forget, sha256_of
from img2seq.datasets.fetch.unpack import Unpacked, unpack
from img2seq.datasets.fetch.web import mirrored
from img2seq.errors import DataError
from img2seq.progress import Announcer, counted

try:
    import fcntl
except ImportError:  # Windows: two at once are not noticed there
    fcntl = None  # type: ignore[assignment]

FORMAT = "img2seq-data-fetch"


@dataclass(frozen=True)
class Plan:
    """What will be fetched, and what it takes.

    Attributes:
        name: of the data set.
        data_set: what it is.
        folder: where it goes.
        mirror: where it is fetched from in place of its hosts.
        keeps_archives: ZIP files stay after they were unpacked.
        waiting: archives that are not unpacked yet.
        to_fetch: bytes that are still on the way.
        to_store: bytes of the disk that are taken at most, beside what is taken already.
    """

    name: str
    data_set: DataSet
    folder: Path
    mirror: str | None
    keeps_archives: bool
    waiting: tuple[Archive, ...]
    to_fetch: int
    to_store: int

    def text(self) -> str:
        """Return what a person should know before it begins: licence, sizes, addresses."""
        lines = [self.data_set.title, f"licence: {self.data_set.licence} ({self.data_set.page})"]
        for archive in self.data_set.archives:
            state = "" if archive in self.waiting else ", unpacked already"
            lines.append(f"  {mirrored(archive.address, self.mirror)}  {size(archive.n_bytes)}{state}")
        free = shutil.disk_usage(_existing(self.folder)).free
        lines.append(
            f"to fetch: {size(self.to_fetch)}; needs {size(self.to_store)} of the disk at {self.folder}, {size(free)} are free"
        )
        return "\n".join(lines)

    def check_disk(self) -> None:
        """Raise DataError where the disk is too small for what is to come."""
        free = shutil.disk_usage(_existing(self.folder)).free
        if self.to_store > free:
            raise DataError(
                f"{self.folder}: {self.name} needs {size(self.to_store)} of the disk, {size(free)} are free; nothing was fetched"
            )


def catalogue_text() -> str:
    """Return the names that can be fetched, with sizes and licences."""
    lines = []
    for name, data_set in DATA_SETS.items():
        lines += [f"{name:<15} {data_set.title}"]
        if data_set.why_not:
            lines += [f"{'':<15} not fetched: {data_set.why_not}: {data_set.page}"]
        else:
            sizes = f"{size(data_set.n_bytes)} to fetch, {size(data_set.unpacked_bytes)} unpacked"
            lines += [f"{'':<15} {sizes}", f"{'':<15} {data_set.licence} ({data_set.page})"]
    return "\n".join(lines)


def plan(name: str, folder: str | Path, *, mirror: str | None = None, keeps_archives: bool = False) -> Plan:
    """Return what there is to do. Nothing is fetched and nothing is written.

    Raises:
        DataError: for an unknown name, a data set that is not fetched, a folder that is a file.
        ConfigError: for a mirror that is no address.
    """
    data_set, folder = find(name), Path(folder)
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: expected a folder, found a file")
    waiting = tuple(archive for archive in data_set.archives if not _is_unpacked(archive, folder))
    for archive in waiting:
        mirrored(archive.address, mirror)
    to_fetch = taken = most = 0
    for archive in waiting:
        here = fetched_bytes(_archive_path(folder, archive), archive.n_bytes)
        unpacked = sum(path.stat().st_size for pattern in archive.members for path in folder.glob(pattern))
        to_fetch += archive.n_bytes - here
        taken += archive.n_bytes - here + max(archive.unpacked_bytes - unpacked, 0)
        most = max(most, taken)
        taken -= 0 if keeps_archives else archive.n_bytes
    return Plan(name, data_set, folder, mirror, keeps_archives, waiting, to_fetch, most)


def fetch(planned: Plan, announce: Announcer, *, connections: int = 4) -> None:
    """Fetch, verify and unpack what is waiting.

    Raises:
        DataError: if the disk is too small, a host does not give what is expected, or a file of the same name is in the way.
    """
    planned.check_disk()
    folder = planned.folder
    _read_note(planned)
    (folder / "archives").mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        for archive in planned.waiting:
            if _is_unpacked(archive, folder):  # by a process that held the folder until now
                continue
            address, path = mirrored(archive.address, planned.mirror), _archive_path(folder, archive)
            if path.exists():  # put there by a person, or of a process that was stopped while it unpacked
                _check_archive(archive, path, announce)
            else:
                download(archive, address, path, announce, connections=connections)
            files = unpack(archive, path, folder, announce)
            forget(path)  # what was fetched of it before a person put it there
            _note(planned, archive, address, files)
            _mark_unpacked(archive, folder, files, is_kept=planned.keeps_archives)
            announce.say(f"{path.name}: verified, {counted(len(files), 'file')} unpacked")
            _remove_archive(archive, folder)
        for archive in planned.data_set.archives:  # of a process that was stopped before it removed one
            _remove_archive(archive, folder)


def _archive_path(folder: Path, archive: Archive) -> Path:
    return folder / "archives" / archive.name


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.absolute().parents) if path.is_dir())


def _check_archive(archive: Archive, path: Path, announce: Announcer) -> None:
    if not path.is_file() or path.stat().st_size != archive.n_bytes:
        found = f"{path.stat().st_size:,} bytes" if path.is_file() else "no file"
        raise DataError(f"{path}: expected {archive.n_bytes:,} bytes, found {found}; move it away, then run again")
    if sha256_of(path, f"verifying {path.name}", announce) != archive.sha256:
        raise DataError(f"{path}: its SHA-256 is not {archive.sha256}; move it away, then run again")


# --- what was done ---------------------------------------------------------------------------------------


def _list_path(archive: Archive, folder: Path) -> Path:
    return folder / "archives" / f"{archive.name}.unpacked"


def _mark_unpacked(archive: Archive, folder: Path, files: list[Unpacked], *, is_kept: bool) -> None:
    lines = [
        f"{archive.sha256} {'kept' if is_kept else 'removed'}",
        *(f"{file.n_bytes}\t{file.path}" for file in files),
    ]
    _write_whole(_list_path(archive, folder), "".join(f"{line}\n" for line in lines))


def _is_unpacked(archive: Archive, folder: Path) -> bool:
    """Tell whether all that was unpacked of an archive is still there, by name and length."""
    try:
        head, *lines = _list_path(archive, folder).read_text(encoding="utf-8").removesuffix("\n").split("\n")
        if head.split()[:1] != [archive.sha256] or not lines:
            return False
        for line in lines:
            n_bytes, _, path = line.partition("\t")
            if (folder / path).stat().st_size != int(n_bytes):
                return False
    except (OSError, ValueError):
        return False
    return True


def _remove_archive(archive: Archive, folder: Path) -> None:
    """Remove a ZIP file, unless it was to be kept when it was unpacked: what was kept once stays."""
    with _list_path(archive, folder).open(encoding="utf-8") as file:
        if file.readline().split()[1:] != ["kept"]:
            _archive_path(folder, archive).unlink(missing_ok=True)


def _note_path(planned: Plan) -> Path:
    return planned.folder / f"fetch-{planned.name}.json"


def _read_note(planned: Plan) -> dict[str, Any]:
    """Return what was noted before. Raises DataError for a file of this name that is not ours."""
    path = _note_path(planned)
    if not path.exists():
        return {}
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT or not isinstance(content.get("files"), dict):
        raise DataError(f"{path}: exists already, and no data fetch has written it; move it away, then run again")
    return content


def _note(planned: Plan, archive: Archive, address: str, files: list[Unpacked]) -> None:
    fetched = dict(_read_note(planned).get("files", {}))
    fetched[archive.name] = {
        "address": address,
        "bytes": archive.n_bytes,
        "sha256": archive.sha256,
        "unpacked_files": len(files),
        "unpacked_bytes": sum(file.n_bytes for file in files),
    }
    data_set = planned.data_set
    note = {"format": FORMAT, "version": 1, "name": planned.name, "licence": data_set.licence, "page": data_set.page}
    ordered = {a.name: fetched[a.name] for a in data_set.archives if a.name in fetched}
    _write_whole(_note_path(planned), json.dumps({**note, "files": ordered}, indent=1) + "\n")


def _write_whole(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8", newline="")
    temporary.replace(path)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep a second process out of the folder; the lock ends with the process, however it ends."""
    with (folder / "archives/.lock").open("w") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DataError(f"{folder}: another process fetches into this folder") from None
            except OSError:  # a file system without locks
                pass
        yield
