"""The folder that is written: whole or not there, continued after a kill, and never in place of what a person made.

All is written into a folder beside it, which takes its name at the end. A marker in both says what was written from what.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from img2seq.data.image import ImageSpec
from img2seq.data.picture import Picture, picture_bytes
from img2seq.errors import DataError, listed

MARKER = ".img2seq-convert.json"
SPEC = ImageSpec(64, 64)  # pictures are only checked


@dataclass
class Work:
    """What is being written.

    Attributes:
        target: the folder at the end.
        plan: digest of all that decides what is written.
        advance: called with the number of images that are done.
    """

    target: Path
    plan: str
    advance: Callable[[int], None] = lambda n: None
    folders: set[Path] = field(default_factory=set)

    @property
    def folder(self) -> Path:
        return self.target.with_name(f".{self.target.name}.converting")

    @property
    def replaced(self) -> Path:
        return self.target.with_name(f".{self.target.name}.replaced")

    def marker(self) -> dict[str, Any] | None:
        """Return what an interrupted conversion of the same plan noted, None where there was none."""
        found = read_marker(self.folder)
        return found if found is not None and found.get("plan") == self.plan else None

    def begin(self, notes: dict[str, Any]) -> None:
        """Continue what an interrupted conversion of the same plan left, else begin with an empty folder.

        Raises:
            DataError: where the folder beside the target holds what was not written here.
        """
        if self.marker() is None:
            _remove_own(self.folder)
            self.folder.mkdir(parents=True)
            _write_json(self.folder / MARKER, {"plan": self.plan, **notes})
        for path in self.folder.glob(".part-*"):  # half a file of a process that was killed
            path.unlink()

    def has(self, name: str) -> bool:
        return (self.folder / name).exists()

    @contextlib.contextmanager
    def file(self, name: str) -> Iterator[Path]:
        """Give the path of a file to write, which takes its name in the folder once it is whole."""
        path, temporary = self.folder / name, self.folder / f".part-{os.getpid()}"
        if path.parent not in self.folders:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.folders.add(path.parent)
        try:
            yield temporary
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    @contextlib.contextmanager
    def text(self, name: str) -> Iterator[TextIO]:
        with self.file(name) as path, path.open("w", encoding="utf-8", newline="") as file:
            yield file

    def picture(self, picture: Picture, name: str) -> None:
        """Copy a picture byte for byte, unless it is there already."""
        if not self.has(name):
            data = picture_bytes(picture, SPEC)
            with self.file(name) as path:
                path.write_bytes(data)
        self.advance(1)

    def finish(self, *, overwrite: bool) -> dict[str, Any]:
        """Give the folder its name, in place of what an earlier conversion wrote there, and return its marker.

        Raises:
            DataError: where something else has come to be there meanwhile.
        """
        for path in self.folder.glob(".part-*"):
            path.unlink()
        before = read_marker(self.folder) or {}  # stopped between this and the new name, the next one goes on from it
        done = {**before, "plan": self.plan, "made by": "img2seq data convert", "files": _states(self.folder)}
        _write_json(self.folder / MARKER, done)
        check_target(self.target, overwrite=overwrite)
        _remove_own(self.replaced)
        if read_marker(self.target) is not None:
            self.target.rename(self.replaced)
        elif self.target.exists():
            self.target.rmdir()
        self.folder.rename(self.target)
        _remove_own(self.replaced)
        return done


def check_target(target: Path, *, overwrite: bool = True) -> dict[str, Any] | None:
    """Return the marker of an earlier conversion, None where the target is absent or empty.

    Raises:
        DataError: if it is no folder, or holds what `convert` did not write, or something was changed since; and without
            `overwrite` for whatever it holds.
    """
    if not os.path.lexists(target):
        parent = next(path for path in target.parents if path.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
            raise DataError(
                f"{target}: cannot be written: {parent} is {'read-only' if parent.is_dir() else 'no folder'}"
            )
        return None
    if not target.is_dir() or target.is_symlink():
        raise DataError(
            f"{target}: expected a folder that is empty or not there, found a {'link' if target.is_symlink() else 'file'}"
        )
    if target.is_mount() or target.samefile(Path.cwd()):
        what = "the current folder" if target.samefile(Path.cwd()) else "a mount point"
        raise DataError(f"{target}: is {what}, which cannot be replaced as a whole; name a folder in it")
    marker = read_marker(target)
    if marker is None:
        if names := sorted(path.name for path in target.iterdir()):
            raise DataError(
                f"{target}: expected a folder that is empty or not there, found {len(names):,} file(s) or folder(s), the first {names[0]!r}"
            )
        return None
    if not overwrite:
        raise DataError(f"{target}: was written from something else or in another way; --overwrite replaces it")
    written, there = marker.get("files", {}), _states(target)
    odd = [
        f"{name}: {'changed' if name in written else 'not written by it'}"
        for name in there
        if there[name] != written.get(name)
    ]
    if odd:
        raise DataError(
            f"{target}: holds {len(odd):,} file(s) that are not as `img2seq data convert` wrote them, and are not replaced:\n{listed(odd)}"
        )
    return marker


def read_marker(folder: Path) -> dict[str, Any] | None:
    """Return what a conversion noted in a folder, None where it is none of its folders."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        found = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        if isinstance(found, dict) and isinstance(found.get("plan"), str):
            return found
    return None


def _remove_own(folder: Path) -> None:
    """Remove a folder that a conversion has left. Raises DataError where it holds what none wrote."""
    if not folder.exists():
        return
    if read_marker(folder) is None and any(not path.name.startswith(".part-") for path in folder.iterdir()):
        raise DataError(f"{folder}: was not written by `img2seq data convert`, which needs this name; move it away")
    shutil.rmtree(folder)


def _states(folder: Path) -> dict[str, list[int]]:
    """Return size and time of change of every file in a folder, by name; also of hidden ones, but for the marker."""
    states = {}
    for root, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(root, name)
            if name != MARKER:
                state = path.lstat()
                states[path.relative_to(folder).as_posix()] = [state.st_size, state.st_mtime_ns]
    return states


def _write_json(path: Path, data: dict[str, Any]) -> None:
    temporary = path.with_name(f".part-{os.getpid()}")
    temporary.write_text(json.dumps(data, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(path)
