"""Fetch one large file in pieces, over several connections, so that it can be resumed after it was stopped at any byte.

Beside the file, until it is whole: `NAME.part`, as long as the file will be, and `NAME.pieces`, which says which pieces of it are
there. A line is added to that list after its piece was written, so a process killed at any time loses the pieces that were on
their way and nothing else. The file has its name only after its SHA-256 was found right.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from img2seq.datasets.fetch.catalogue import Archive, size
from img2seq.datasets.fetch.web import Answer, Changed, Dropped, ask
from img2seq.errors import DataError
from img2seq.progress import Announcer

PIECE = 16 * 2**20  # bytes; a killed process loses one for each connection
CHUNK = 2**17  # bytes that are read at a time
TRIES, FIRST_WAIT_S, LONGEST_WAIT_S = 8, 0.5, 30.0  # the wait doubles: a minute in all
PROGRESS = 2**18  # bytes after which failures before do not count any more
RESTARTS = 3  # of a file that changes while it is fetched
PATIENCE_S = 1.0  # for connections to end after an interruption


@dataclass(frozen=True)
class Remote:
    """What a server says of a file before it is fetched."""

    address: str
    n_bytes: int
    validator: str
    has_ranges: bool


class _Stopped(Exception):
    """Ends a connection because the fetching has ended."""


def part_of(target: Path) -> Path:
    """Return where a file is while it is fetched."""
    return target.with_name(f"{target.name}.part")


def _journal_of(target: Path) -> Path:
    return target.with_name(f"{target.name}.pieces")


def fetched_bytes(target: Path, n_bytes: int) -> int:
    """Return how many bytes of a file are here, about: for what is said before anything is fetched."""
    if target.is_file():
        return min(target.stat().st_size, n_bytes)
    _, pieces = _read_journal(_journal_of(target))
    return min(len(pieces) * PIECE, n_bytes) if part_of(target).is_file() else 0


def download(archive: Archive, address: str, target: Path, announce: Announcer, *, connections: int = 4) -> None:
    """Fetch a file, or what is missing of it, and verify it.

    Args:
        archive: what it must be.
        address: where it is fetched from.
        target: where it goes; its folder must exist.
        announce: shows a bar with the time left.
        connections: the most at a time; a server that gives no parts gets one.

    Raises:
        DataError: if the server has another file or none, or the connection ends again and again. What was fetched stays.
    """
    for _ in range(RESTARTS):
        remote = _retried(lambda: _probe(archive, address), address, announce)
        try:
            is_resumed = _fetch(remote, target, announce, connections)
        except Changed:
            forget(target)
            announce.warn(f"{address}: the file has changed while it was fetched; it is fetched anew")
            continue
        found = sha256_of(part_of(target), f"verifying {target.name}", announce)
        if found == archive.sha256:
            part_of(target).replace(target)
            _journal_of(target).unlink(missing_ok=True)
            return
        forget(target)
        if not is_resumed:
            raise DataError(
                f"{address}: expected the SHA-256 {archive.sha256}, found {found}: this is another file. It was removed, nothing was unpacked"
            )
        announce.warn(f"{target}: its parts do not make the file that was expected; it is fetched anew")
    raise DataError(f"{address}: the file was fetched {RESTARTS} times and was another each time; try again later")


def sha256_of(path: Path, what: str, announce: Announcer) -> str:
    """Return the SHA-256 of a file of any size, with a bar."""
    digest = hashlib.sha256()
    with path.open("rb") as file, announce.bar(what, path.stat().st_size, unit="B") as advance:
        while chunk := file.read(2**20):
            digest.update(chunk)
            advance(len(chunk))
    return digest.hexdigest()


def forget(target: Path) -> None:
    """Remove what was fetched of a file that is not whole."""
    _journal_of(target).unlink(missing_ok=True)  # first: without it the part counts for nothing
    part_of(target).unlink(missing_ok=True)


# --- what a server has -----------------------------------------------------------------------------------


def _probe(archive: Archive, address: str) -> Remote:
    """Ask for the first byte, which says how long the file is and whether parts of it are given."""
    answer = ask(address, 0, 1)
    answer.body.close()
    _check_length(archive.n_bytes, answer, address)
    return Remote(address, archive.n_bytes, answer.validator, answer.has_ranges)


def _check_length(expected: int, answer: Answer, address: str) -> None:
    if answer.n_bytes not in (expected, None):
        raise DataError(
            f"{address}: expected a file of {expected:,} bytes, the server has {answer.n_bytes:,}: it has changed, or a page stands in its place"
        )


def _retried(work: Callable[[], Remote], address: str, announce: Announcer) -> Remote:
    for n in range(TRIES):
        try:
            return work()
        except Changed:
            raise DataError(f"{address}: the file is empty") from None
        except Dropped as error:
            if error.is_unreachable or n == TRIES - 1:
                raise DataError(f"{address}: {error}") from error
            announce.say(_again(address, error, n))
            time.sleep(_wait_s(n))
    raise AssertionError


def _wait_s(n: int) -> float:
    return float(min(FIRST_WAIT_S * 2**n, LONGEST_WAIT_S))


def _again(address: str, error: Dropped, n: int) -> str:
    return f"{address}: {error}; trying again in {_wait_s(n):g} s"


# --- the list of pieces ----------------------------------------------------------------------------------


def _read_journal(path: Path) -> tuple[dict[str, object], set[int]]:
    """Return what a list of pieces is of, and the pieces. One that cannot be read has none."""
    try:
        first, *lines, _ = path.read_text(encoding="utf-8").split("\n")  # the last line is empty, or was cut by a kill
        head = json.loads(first)
        pieces = {int(line) for line in lines}
    except (OSError, ValueError):
        return {}, set()
    return (head, pieces) if isinstance(head, dict) else ({}, set())


def _resume(remote: Remote, target: Path) -> set[int]:
    """Return the pieces that are here, of this version of the file, and begin a list with them."""
    part, journal = part_of(target), _journal_of(target)
    head, pieces = _read_journal(journal)
    same_layout = (head.get("bytes"), head.get("piece")) == (remote.n_bytes, PIECE)
    # Another address may give the rest of the same file: the SHA-256 will tell.
    same_version = head.get("address") != remote.address or head.get("validator") == remote.validator
    is_whole = part.is_file() and part.stat().st_size == remote.n_bytes
    if not (same_layout and same_version and is_whole and remote.has_ranges):
        forget(target)
        pieces = set()
        with part.open("wb") as file:
            file.truncate(remote.n_bytes)
    head = {"address": remote.address, "validator": remote.validator, "bytes": remote.n_bytes, "piece": PIECE}
    lines = [json.dumps(head), *map(str, sorted(pieces))]
    temporary = journal.with_name(f"{journal.name}.tmp")
    temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    temporary.replace(journal)
    return pieces


# --- fetching --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Piece:
    number: int
    begin: int
    end: int


def _pieces(remote: Remote) -> list[_Piece]:
    """Return the pieces of a file; one that is given as a whole is one piece."""
    step = PIECE if remote.has_ranges else remote.n_bytes
    begins = range(0, remote.n_bytes, step)
    return [_Piece(n, begin, min(begin + step, remote.n_bytes)) for n, begin in enumerate(begins)]


def _fetch(remote: Remote, target: Path, announce: Announcer, connections: int) -> bool:
    """Fetch the pieces that are missing, and tell whether there were any before."""
    present = _resume(remote, target)
    pieces = [piece for piece in _pieces(remote) if piece.number not in present]
    missing = sum(piece.end - piece.begin for piece in pieces)
    if present:
        announce.say(f"{target.name}: {size(remote.n_bytes - missing)} of {size(remote.n_bytes)} are here already")
    if not remote.has_ranges:
        announce.say(f"{remote.address}: the server gives no parts of files: one connection, from the beginning")
    with (
        _journal_of(target).open("a", encoding="utf-8") as journal,
        announce.bar(f"fetching {target.name}", missing, unit="B") as advance,
        _connected(remote, part_of(target), pieces, min(connections, len(pieces))) as reports,
    ):
        waiting = len(pieces)
        while waiting:
            report = reports.get()
            if isinstance(report, int):
                advance(report)
            elif isinstance(report, str):
                announce.say(report)
            elif isinstance(report, _Piece):
                waiting -= 1
                if remote.has_ranges:
                    journal.write(f"{report.number}\n")
                    journal.flush()
            else:
                raise report
    return bool(present)


@contextmanager
def _connected(
    remote: Remote, part: Path, pieces: list[_Piece], connections: int
) -> Iterator[queue.SimpleQueue[int | str | _Piece | Exception]]:
    """Give the reports of threads that fetch pieces; at the end none of them writes any more."""
    waiting, stop = iter(pieces), threading.Event()  # a list's iterator may be shared by threads
    reports: queue.SimpleQueue[int | str | _Piece | Exception] = queue.SimpleQueue()

    def work() -> None:
        try:
            while not stop.is_set() and (piece := next(waiting, None)) is not None:
                _fetch_piece(remote, part, piece, reports.put, stop)
                reports.put(piece)
        except _Stopped:
            return
        except Exception as error:
            reports.put(error)

    # Daemons: a server that says nothing must not keep a process that was interrupted.
    threads = [threading.Thread(target=work, daemon=True, name=f"fetch-{n}") for n in range(connections)]
    for thread in threads:
        thread.start()
    try:
        yield reports
    finally:
        stop.set()
        for thread in threads:
            thread.join(PATIENCE_S)


def _fetch_piece(
    remote: Remote, part: Path, piece: _Piece, report: Callable[[int | str], None], stop: threading.Event
) -> None:
    """Fetch a piece; where the connection ends, go on behind what has arrived."""
    begin, failures, since = piece.begin, 0, 0
    with part.open("r+b", buffering=0) as file:
        while begin < piece.end:
            try:
                answer = ask(remote.address, begin, piece.end, remote.validator)
                with closing(answer.body):
                    if answer.has_ranges != remote.has_ranges or answer.validator != remote.validator:
                        raise Changed
                    _check_length(remote.n_bytes, answer, remote.address)
                    if answer.begin != begin:  # from the beginning once more: what has arrived does not count
                        report(answer.begin - begin)
                        begin = answer.begin
                    file.seek(begin)
                    while begin < piece.end:
                        chunk = _read(answer, min(CHUNK, piece.end - begin))
                        if stop.is_set():
                            raise _Stopped
                        _write(file.write, chunk, part)
                        begin, since = begin + len(chunk), since + len(chunk)
                        report(len(chunk))
            except Dropped as error:
                failures = 1 if since >= PROGRESS and remote.has_ranges else failures + 1
                since = 0
                if failures == TRIES:
                    tried = f"{error}, {TRIES} times in a row; the same command continues from here"
                    raise DataError(f"{remote.address}: {tried}") from error
                report(_again(remote.address, error, failures - 1))
                if stop.wait(_wait_s(failures - 1)):
                    raise _Stopped from None


def _read(answer: Answer, n_bytes: int) -> bytes:
    try:
        chunk = answer.body.read(n_bytes)
    except (OSError, http.client.HTTPException) as error:
        raise Dropped(f"the connection ended: {getattr(error, 'strerror', None) or error}") from error
    if not chunk:
        raise Dropped("the connection ended before the file did")
    return chunk


def _write(write: Callable[[bytes], int | None], chunk: bytes, part: Path) -> None:
    """Write all of a chunk: an unbuffered file may take less."""
    try:
        while chunk:
            chunk = chunk[write(chunk) or 0 :]
    except OSError as error:
        raise DataError(
            f"{part}: cannot be written: {os.strerror(error.errno or 0)}; what was fetched stays"
        ) from error
