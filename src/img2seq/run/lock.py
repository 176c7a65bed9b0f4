"""The lock of a run folder: one process at a time trains a run.

`run.lock` names its owner by process id, host and the time the process started, so that neither a dead owner nor another
process that was given its number keeps the folder. The owner also holds a lock of the system's on the file, which ends with
it: in another container of this host's name its number tells nothing. Where the owner was on another host nobody here can
tell whether it lives, and the lock holds until somebody removes it.

The package filelock, which torch brings, would lock a file as well, but names no owner, leaves its file behind, and in the
versions that empty the file before they hold it would take the owner's name away.
"""

from __future__ import annotations

import importlib
import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from img2seq.errors import RunError
from img2seq.run.folder import RunFolder


@dataclass(frozen=True)
class Owner:
    """The process that trains a run.

    Attributes:
        pid: its number.
        host: where it runs.
        started: when it started, in the words of the system; what tells it from a later process of that number.
        since: when it took the lock.
    """

    pid: int
    host: str
    started: str | None
    since: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"

    @property
    def may_live(self) -> bool:
        """Tell whether the process runs, or may run: on another host nobody can tell."""
        return self.host != socket.gethostname() or (
            self.started is not None and self.started == process_start(self.pid)
        )


@contextmanager
def locked(run: RunFolder, warn: Callable[[str], None]) -> Iterator[None]:
    """Own a run folder, which is made if absent, and removed if it is still empty at the end.

    Raises:
        RunError: if another process trains this run.
    """
    with ExitStack() as held:
        try:
            run.path.mkdir(parents=True, exist_ok=True)
            file = held.enter_context(_opened_alone(run.lock))
            before = _parse(file.read())
            if before is not None and before.may_live:
                here = before.host == socket.gethostname()
                cure = "wait for it or stop it" if here else f"if it does not run any more, remove {run.lock}"
                raise RunError(f"{run.path}: is being trained by {before}; {cure}")
            if before is not None:
                warn(f"{run.path}: taken over from {before}, which ended without leaving it: killed, or a power cut")
            pid = os.getpid()
            owner = Owner(pid, socket.gethostname(), process_start(pid), time.strftime("%Y-%m-%d %H:%M:%S"))
            file.seek(0)
            file.truncate()
            file.write(json.dumps(asdict(owner)))
            file.flush()
        except OSError as error:
            raise RunError(f"{run.path}: cannot be written: {error.strerror}") from error
        try:
            yield
        finally:
            with suppress(OSError):
                file.truncate(0)  # Windows cannot remove a file that is open
                run.lock.unlink()
                run.path.rmdir()  # only where it is empty: nothing was trained


def owner_of(run: RunFolder) -> Owner | None:
    """Return the process that trains a run, dead or alive, or None where nobody holds it."""
    with suppress(OSError):
        return _parse(run.lock.read_text(encoding="utf-8", errors="replace"))
    return None


@contextmanager
def _opened_alone(path: Path) -> Iterator[TextIO]:
    """Open the lock file, which nobody else can until it is closed. Raises RunError where another process has it open."""
    while True:
        with path.open("a+", encoding="utf-8", errors="replace") as file:
            file.seek(0)
            try:
                _take(file.fileno())
            except (BlockingIOError, PermissionError):
                owner = _parse(file.read()) or "another process"
                raise RunError(f"{path.parent}: is being trained by {owner}; wait for it or stop it") from None
            except OSError:
                pass  # some network file systems have no such locks; the owner's name is still checked
            if _is(path, file):
                yield file
                return


def _take(descriptor: int) -> None:
    """Take the system's lock on an open file. Raises BlockingIOError, on Windows PermissionError, where another process has it."""
    try:
        import fcntl
    except ImportError:
        _take_on_windows(descriptor)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _take_on_windows(descriptor: int) -> None:
    """Lock a byte far behind the owner's name, which others can read all the same. Written and not run: there was no Windows."""
    with suppress(ImportError):  # neither: the owner's name is still checked
        msvcrt: Any = importlib.import_module("msvcrt")
        os.lseek(descriptor, 1 << 30, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        os.lseek(descriptor, 0, os.SEEK_SET)


def _is(path: Path, file: TextIO) -> bool:
    """Tell whether the path still leads to the open file, which its owner may have removed."""
    with suppress(OSError):
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    return False


def _parse(text: str) -> Owner | None:
    try:
        owner = Owner(**json.loads(text))
        return owner if isinstance(owner.pid, int) else None
    except (ValueError, TypeError, RecursionError):  # no lock, or killed while it was written: nothing was trained yet
        return None


def process_start(pid: int) -> str | None:
    """Return when a process started, as the system tells it, or None if no such process runs."""
    if os.name == "nt":
        return None  # there the lock on the file tells
    if not Path("/proc/self/stat").exists():  # no Linux
        done = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
        return done.stdout.strip() or None
    with suppress(OSError):
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if state in "ZX" else fields[18]  # proc(5): field 22; a zombie trains nothing
    return None
