"""Checkpoints: complete or absent, and verified before they are used.

    step-00000123/
        weights.safetensors     the model to use (averaged weights, where weights are averaged)
        training.safetensors    optimiser state, the trained weights where `weights` are averaged, the average
        state.json              the position in training and what it depends on, see `state.TrainState`
        manifest.json           size and SHA-256 of the three, written last

A checkpoint is written into a temporary folder whose files and name reach the disk before the folder is renamed, so a
killed process leaves at most a temporary folder, which nothing reads.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from img2seq.errors import RunError
from img2seq.runs import read_json

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder that has been renamed into place."""

    path: Path

    @property
    def step(self) -> int:
        return int(self.path.name.removeprefix("step-"))

    @property
    def weights(self) -> Path:
        return self.path / "weights.safetensors"

    @property
    def training(self) -> Path:
        return self.path / "training.safetensors"

    def state(self) -> dict[str, Any]:
        """Return the content of state.json."""
        state: dict[str, Any] = read_json(self.path / "state.json")
        return state

    @property
    def valid_loss(self) -> float | None:
        """Return the validation loss of these very weights, if they were evaluated."""
        loss: float | None = self.state().get("valid_loss")
        return loss


def save(
    folder: Path, step: int, weights: dict[str, Tensor], training: dict[str, Tensor], state: dict[str, Any]
) -> Checkpoint:
    """Write a checkpoint.

    Raises:
        RunError: if a weight is not finite, or the disk refuses; what was there before is untouched.
    """
    if broken := [
        name for name, tensor in weights.items() if tensor.is_floating_point() and not torch.isfinite(tensor).all()
    ]:
        raise RunError(f"step {step}: not saved, for {len(broken)} tensors are not finite, {broken[0]} among them")
    final, temporary = folder / f"step-{step:08d}", folder / f".tmp-step-{step:08d}-{os.getpid()}"
    needed = sum(t.numel() * t.element_size() for t in (*weights.values(), *training.values()))
    try:
        temporary.mkdir(parents=True)
        save_file(_contiguous(weights), temporary / "weights.safetensors")
        save_file(_contiguous(training), temporary / "training.safetensors")
        (temporary / "state.json").write_text(json.dumps(state, indent=1, allow_nan=False))
        manifest = {p.name: {"bytes": p.stat().st_size, "sha256": _sha256(p)} for p in sorted(temporary.iterdir())}
        (temporary / "manifest.json").write_text(json.dumps({"format": FORMAT_VERSION, "files": manifest}, indent=1))
        for path in temporary.iterdir():
            _flush(path)
        _flush(temporary)
        if final.exists():  # the same step saved again, after a resume: the content is the same
            shutil.rmtree(final)
        temporary.rename(final)
        _flush(folder)
    except Exception as error:  # safetensors has its own error for a full disk
        shutil.rmtree(temporary, ignore_errors=True)
        free = shutil.disk_usage(folder).free if folder.exists() else 0
        raise RunError(
            f"{final}: cannot be written ({error}): about {needed:,} bytes are needed, {free:,} are free; earlier checkpoints are intact"
        ) from error
    return Checkpoint(final)


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify(checkpoint: Checkpoint) -> None:
    """Raise RunError naming the file, if one is missing or its content has changed."""
    manifest = read_json(checkpoint.path / "manifest.json")
    for name, expected in manifest["files"].items():
        path = checkpoint.path / name
        if not path.is_file():
            raise RunError(f"{path}: missing")
        if path.stat().st_size != expected["bytes"]:
            raise RunError(f"{path}: expected {expected['bytes']:,} bytes, found {path.stat().st_size:,}")
        if _sha256(path) != expected["sha256"]:
            raise RunError(f"{path}: damaged: its content is not what was saved (SHA-256 differs)")


def all_checkpoints(folder: Path) -> list[Checkpoint]:
    """Return the checkpoints of a run, oldest first, verified or not."""
    if not folder.is_dir():
        return []
    return sorted(
        (Checkpoint(p) for p in folder.iterdir() if p.name.startswith("step-") and p.is_dir()), key=lambda c: c.step
    )


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


def prune(folder: Path, keep_best: int) -> None:
    """Remove checkpoints but the newest and the `keep_best` best ones. The newest must have been verified."""
    checkpoints = all_checkpoints(folder)
    ranked = sorted((c for c in checkpoints if c.valid_loss is not None), key=lambda c: (c.valid_loss, c.step))
    kept = {c.path for c in [*ranked[:keep_best], *checkpoints[-1:]]}
    for checkpoint in checkpoints:
        if checkpoint.path not in kept:
            shutil.rmtree(checkpoint.path)
    for leftover in folder.glob(".tmp-step-*"):
        if not leftover.name.endswith(f"-{os.getpid()}"):
            shutil.rmtree(leftover, ignore_errors=True)
