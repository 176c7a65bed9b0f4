"""Checkpoints: complete or absent, and verified before they are used.

    step-00000123/
        weights.safetensors     the model to use (averaged weights, where weights are averaged)
        training.safetensors    optimiser state, the trained weights where `weights` are averaged, the average
        state.json              the position in training and what it depends on, see `state.TrainState`
        manifest.json           size and SHA-256 of the three, written last

A checkpoint is written into a temporary folder whose files and name reach the disk before the folder is renamed, so a
killed process leaves at most a temporary folder, which nothing reads. Where a step is saved again (with the validation
loss it did not have before) the older folder is `step-00000123.old` until the new one is in its place.
What is on its way out is `removed-step-...`.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from img2seq.errors import RunError
from img2seq.run.folder import read_json, to_disk
from img2seq.run.snapshot import Snapshot

FORMAT_VERSION = 1
FILES = ("state.json", "training.safetensors", "weights.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder that has been renamed into place."""

    path: Path

    @property
    def step(self) -> int:
        return int(self.path.stem.removeprefix("step-"))

    @property
    def weights(self) -> Path:
        return self.path / "weights.safetensors"

    @property
    def training(self) -> Path:
        return self.path / "training.safetensors"

    def state(self) -> dict[str, Any]:
        """Return the content of state.json. Raises RunError if it is none."""
        state: dict[str, Any] = read_json(self.path / "state.json")
        loss = state.get("valid_loss") if isinstance(state, dict) else "no object"
        is_loss = loss is None or (isinstance(loss, float) and math.isfinite(loss))
        if not is_loss or not isinstance(state.get("position", {}), dict):
            raise RunError(f"{self.path / 'state.json'}: not the state of a training run")
        return state

    @property
    def valid_loss(self) -> float | None:
        """Return the validation loss of these very weights, if they were evaluated."""
        loss: float | None = self.state().get("valid_loss")
        return loss


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
        manifest = _manifest({name: _write(temporary / name, parts) for name, parts in contents.items()})
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


def _described(path: Path) -> dict[str, int | str]:
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 24):  # long parts: each is one wait for the interpreter's lock
            sha.update(part)
    return {"bytes": path.stat().st_size, "sha256": sha.hexdigest()}


def _manifest(files: Mapping[str, Mapping[str, int | str]]) -> str:
    return json.dumps({"format": FORMAT_VERSION, "files": files}, indent=1)


def verify(checkpoint: Checkpoint) -> None:
    """Raise RunError naming the file, if one is missing or its content has changed."""
    if problems := damage(checkpoint):
        raise RunError(problems[0])


def damage(checkpoint: Checkpoint) -> list[str]:
    """Return what is wrong with each file of a checkpoint, nothing if it is what was saved."""
    path = checkpoint.path / "manifest.json"
    try:
        text = path.read_text(encoding="utf-8")
        files = json.loads(text)["files"]
        entries_are_whole = all(set(entry) == {"bytes", "sha256"} for entry in files.values())
        if sorted(files) != sorted(FILES) or not entries_are_whole or _manifest(files) != text:
            raise ValueError
    except OSError as error:
        return [f"{path}: cannot be read: {error.strerror}"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):  # no JSON, or JSON laid out otherwise
        return [f"{path}: damaged: its content is not what was saved"]
    problems = []
    for name, expected in files.items():
        path = checkpoint.path / name
        if not path.is_file():
            problems.append(f"{path}: missing")
        elif path.stat().st_size != expected["bytes"]:
            problems.append(f"{path}: expected {expected['bytes']} bytes, found {path.stat().st_size}")
        elif _described(path) != expected:
            problems.append(f"{path}: damaged: its content is not what was saved (SHA-256 differs)")
    return problems


def all_checkpoints(folder: Path) -> list[Checkpoint]:
    """Return the checkpoints of a run, oldest first, verified or not."""
    if not folder.is_dir():
        return []
    found = (Checkpoint(p) for p in folder.iterdir() if re.fullmatch(r"step-\d+(\.old)?", p.name) and p.is_dir())
    return sorted(found, key=lambda c: (c.step, c.path.suffix == ""))


def newest_valid(folder: Path, warn: Callable[[str], None]) -> Checkpoint | None:
    """Return the newest checkpoint that verifies, with a warning for each newer one that does not."""
    for checkpoint in reversed(all_checkpoints(folder)):
        try:
            verify(checkpoint)
        except RunError as error:
            warn(f"checkpoint {checkpoint.path.name} is passed over: {error}")
        else:
            return checkpoint
    return None


def set_aside_newer(checkpoint: Checkpoint) -> Checkpoint:
    """Rename what is newer than this checkpoint, for it is damaged: training goes on before it.

    It is removed when the next checkpoint has been verified.
    """
    folder, final = checkpoint.path.parent, checkpoint.path.with_suffix("")
    for newer in reversed(all_checkpoints(folder)):
        if newer.path == checkpoint.path:
            break
        shutil.rmtree(folder / f"damaged-{newer.path.name}", ignore_errors=True)
        newer.path.rename(folder / f"damaged-{newer.path.name}")
    return Checkpoint(checkpoint.path.rename(final))


def best(folder: Path) -> Checkpoint:
    """Return the checkpoint of lowest validation loss, verified. Raises RunError if there is none."""
    evaluated = [(c.valid_loss, c) for c in all_checkpoints(folder)]
    ranked = sorted(((loss, c) for loss, c in evaluated if loss is not None), key=lambda pair: (pair[0], pair[1].step))
    if not ranked:
        raise RunError(
            f"{folder}: expected a checkpoint with a validation loss, found none; was the run interrupted before its first evaluation?"
        )
    checkpoint = ranked[0][1]
    verify(checkpoint)
    return checkpoint


def prune(newest: Checkpoint, keep_best: int, warn: Callable[[str], None]) -> None:
    """Remove a run's checkpoints but the newest, which must have been verified, and the `keep_best` best ones.

    One that cannot be removed costs a warning: the next call removes it.
    """
    folder = newest.path.parent
    losses = {c.path: (loss, c.step) for c in all_checkpoints(folder) if (loss := _loss_if_readable(c)) is not None}
    kept = {*sorted(losses, key=losses.__getitem__)[:keep_best], newest.path}
    stale = [c.path for c in all_checkpoints(folder) if c.path not in kept]
    for path in (*folder.glob("removed-*"), *folder.glob("damaged-*"), *stale):
        going = folder / f"removed-{path.name.removeprefix('removed-')}"
        try:  # renamed first: half removed, it must not look like a checkpoint
            shutil.rmtree(path.rename(going))
        except OSError as error:  # a network file system refuses while somebody reads a file in it
            warn(f"{going}: cannot be removed now, the next checkpoint tries again: {error.strerror}")


def _loss_if_readable(checkpoint: Checkpoint) -> float | None:
    try:
        return checkpoint.valid_loss
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
