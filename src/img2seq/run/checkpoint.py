"""Checkpoints: complete or absent, and verified before they are used.

    step-00000123/
        weights.safetensors     the model to use (averaged weights, where weights are averaged)
        training.safetensors    optimiser state, the trained weights where `weights` are averaged, the average; not in an export
        state.json              the position in training and what it depends on, see `state.TrainState`
        manifest.json           size and SHA-256 of these files, written last

A checkpoint is written into a temporary folder, whose files and name reach the disk before it is renamed: a killed process leaves
at most that folder, which nothing reads. Where a step is saved again the older folder is `step-00000123.old` until the new one is in
its place. What is on its way out is `removed-step-...`.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from img2seq.errors import RunError
from img2seq.files import regular
from img2seq.run.folder import read_json

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
        found = [state.get(name) for name in ("valid_loss", "rank")] if isinstance(state, dict) else ["no object"]
        are_numbers = all(n is None or (isinstance(n, float) and math.isfinite(n)) for n in found)
        if not are_numbers or not isinstance(state.get("position", {}), dict):
            raise RunError(f"{self.path / 'state.json'}: not the state of a training run")
        return state

    @property
    def valid_loss(self) -> float | None:
        """Return the validation loss of these very weights, if they were evaluated."""
        loss: float | None = self.state().get("valid_loss")
        return loss

    @property
    def rank(self) -> float | None:
        """Return what checkpoints are chosen by, the lowest first: the validation loss, or a score's negative."""
        rank: float | None = (state := self.state()).get("rank", state.get("valid_loss"))
        return rank


def manifest_entry(path: Path) -> dict[str, int | str]:
    """Return what a manifest says of a file."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 24):  # long parts: each is one wait for the interpreter's lock
            sha.update(part)
    return {"bytes": path.stat().st_size, "sha256": sha.hexdigest()}


def manifest_text(files: Mapping[str, Mapping[str, int | str]]) -> str:
    return json.dumps({"format": FORMAT_VERSION, "files": files}, indent=1)


def verify(checkpoint: Checkpoint) -> None:
    """Raise RunError naming the file, if one is missing or its content has changed."""
    if problems := damage(checkpoint):
        raise RunError(problems[0])


def damage(checkpoint: Checkpoint) -> list[str]:
    """Return what is wrong with each file of a checkpoint, nothing if it is what was saved."""
    path = checkpoint.path / "manifest.json"
    try:
        files = json.loads(text := regular(path).read_text(encoding="utf-8"))["files"]
        entries_are_whole = all(set(entry) == {"bytes", "sha256"} for entry in files.values())
        if {*files, "training.safetensors"} != {*FILES} or not entries_are_whole or manifest_text(files) != text:
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
        elif manifest_entry(path) != expected:
            problems.append(f"{path}: damaged: its content is not what was saved (SHA-256 differs)")
    return problems


def all_checkpoints(folder: Path) -> list[Checkpoint]:
    """Return the checkpoints of a run, oldest first, verified or not."""
    paths = folder.iterdir() if folder.is_dir() else ()
    found = (Checkpoint(p) for p in paths if re.fullmatch(r"step-\d+(\.old)?", p.name) and p.is_dir())
    return sorted(found, key=lambda c: (c.step, c.path.suffix == ""))


def best(folder: Path) -> Checkpoint:
    """Return the best checkpoint by `rank`, or that of an export, verified. Raises RunError if there is none; warns of unreadable ones."""
    evaluated: list[tuple[float, int, Checkpoint]] = []
    for checkpoint in all_checkpoints(folder):
        try:
            if (rank := checkpoint.rank) is not None or not checkpoint.training.exists():
                evaluated.append((math.inf if rank is None else rank, checkpoint.step, checkpoint))
        except RunError as error:
            warnings.warn(f"{error}: this checkpoint is left out", stacklevel=2)
    if not evaluated:
        raise RunError(
            f"{folder}: expected a checkpoint with a validation loss, found none; was the run interrupted before its first evaluation?"
        )
    checkpoint = min(evaluated, key=lambda entry: entry[:2])[2]
    verify(checkpoint)
    return checkpoint
