"""Write checkpoints, keep the best, clear away what a killed process left."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from img2seq.errors import RunError
from img2seq.run.checkpoint import Checkpoint, all_checkpoints, manifest_text, verify
from img2seq.run.snapshot import Snapshot
from img2seq.run.write import to_disk


def save(folder: Path, step: int, weights: Snapshot, training: Snapshot, state: dict[str, Any]) -> Checkpoint:
    """Write a checkpoint, and read it back before it takes its place.

    Raises:
        RunError: if a weight is not finite, the disk refuses, or returns other bytes than it was given; what was there before
            is untouched.
    """
    if broken := [*weights.not_finite(), *training.not_finite()]:
        raise RunError(f"step {step}: not saved, for {len(broken)} tensors are not finite, {broken[0]} among them")
    final, temporary = folder / f"step-{step:08d}", folder / f".tmp-step-{step:08d}-{os.getpid()}"
    contents = {
        "state.json": [memoryview(json.dumps(state, indent=1, allow_nan=False).encode())],
        "training.safetensors": training.parts(),
        "weights.safetensors": weights.parts(),
    }
    try:
        temporary.mkdir(parents=True)
        manifest = manifest_text({name: _write(temporary / name, parts) for name, parts in contents.items()})
        contents["manifest.json"] = [memoryview(manifest.encode())]
        _write(temporary / "manifest.json", contents["manifest.json"])
        for path in (*temporary.iterdir(), temporary):
            to_disk(path)
        for name, parts in contents.items():
            _read_back(temporary / name, parts)
        if final.exists():
            shutil.rmtree(final.with_suffix(".old"), ignore_errors=True)
            final.rename(final.with_suffix(".old"))
        temporary.rename(final)
        to_disk(folder)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        free, needed = shutil.disk_usage(folder).free if folder.exists() else 0, weights.n_bytes + training.n_bytes
        raise RunError(
            f"{final}: cannot be written ({error}): about {needed:,} bytes are needed, {free:,} are free; earlier checkpoints are intact"
        ) from error
    return Checkpoint(final)


def _write(path: Path, parts: Sequence[memoryview]) -> dict[str, int | str]:
    """Write a file and return what the manifest says of it."""
    sha = hashlib.sha256()
    with path.open("wb") as file:
        for part in parts:
            sha.update(part)
            file.write(part)
    return {"bytes": sum(map(len, parts)), "sha256": sha.hexdigest()}


def _read_back(path: Path, parts: Sequence[memoryview]) -> None:
    """Raise OSError unless a file holds just these bytes. Comparing is a tenth of the work of another digest."""
    with path.open("rb") as file:  # buffered: it reads on where the system gives less than was asked for
        for part in parts:
            found = np.empty(len(part), np.uint8)
            if file.readinto(found.data) != len(part) or not np.array_equal(found, np.frombuffer(part, np.uint8)):
                raise OSError(errno.EIO, "read back, it is not what was written", str(path))
        if file.read(1):
            raise OSError(errno.EIO, "read back, it is longer than what was written", str(path))


def newest_valid(folder: Path, warn: Callable[[str], None]) -> Checkpoint | None:
    """Return the newest checkpoint that verifies, with a warning for each newer one that does not."""
    for checkpoint in reversed(all_checkpoints(folder)):
        try:
            verify(checkpoint)
            if not checkpoint.training.is_file():
                raise RunError(f"{checkpoint.path}: was exported, without the optimiser's state")
        except RunError as error:
            warn(f"checkpoint {checkpoint.path.name} is passed over: {error}")
        else:
            return checkpoint
    return None


def set_aside_newer(checkpoint: Checkpoint) -> Checkpoint:
    """Rename the damaged checkpoints that are newer than this one: training continues from this one.

    It is removed when the next checkpoint has been verified.
    """
    folder, final = checkpoint.path.parent, checkpoint.path.with_suffix("")
    for newer in reversed(all_checkpoints(folder)):
        if newer.path == checkpoint.path:
            break
        shutil.rmtree(folder / f"damaged-{newer.path.name}", ignore_errors=True)
        newer.path.rename(folder / f"damaged-{newer.path.name}")
    return Checkpoint(checkpoint.path.rename(final))


def prune(newest: Checkpoint, keep_best: int, warn: Callable[[str], None]) -> None:
    """Remove a run's checkpoints but the newest, which must have been verified, and the `keep_best` best ones.

    One that cannot be removed costs a warning: the next call removes it.
    """
    folder = newest.path.parent
    ranks = {c.path: (rank, c.step) for c in all_checkpoints(folder) if (rank := _rank_if_readable(c)) is not None}
    kept = {*sorted(ranks, key=ranks.__getitem__)[:keep_best], newest.path}
    stale = [c.path for c in all_checkpoints(folder) if c.path not in kept]
    for path in (*folder.glob("removed-*"), *folder.glob("damaged-*"), *stale):
        going = folder / f"removed-{path.name.removeprefix('removed-')}"
        try:  # renamed first: half removed, it must not look like a checkpoint
            shutil.rmtree(path.rename(going))
        except OSError as error:  # a network file system refuses while somebody reads a file in it
            warn(f"{going}: cannot be removed now, the next checkpoint tries again: {error.strerror}")


def _rank_if_readable(checkpoint: Checkpoint) -> float | None:
    try:
        return checkpoint.rank
    except RunError:
        return None


def remove_unfinished(folder: Path) -> list[str]:
    """Remove what killed processes left while they wrote a checkpoint, and return its names.

    The caller must hold the run's lock, or it would be the work of another.
    """
    leftovers = [*folder.glob(".tmp-step-*")]
    for leftover in leftovers:
        shutil.rmtree(leftover)
    return [leftover.name for leftover in leftovers]
