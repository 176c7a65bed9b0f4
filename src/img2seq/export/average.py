"""Average the weights of a run's last checkpoints (Izmailov 2018, Wortsman 2022) into a lean run of its own, which captions at the cost of one.

Batch norms' running statistics are averaged like weights; whole numbers are the newest checkpoint's. The folder holds the run's split, so that
`img2seq evaluate` scores it, and its loss, as the run.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from img2seq.build.trained import load_run
from img2seq.errors import RunError
from img2seq.export.lean import replace_weights, write_lean_run
from img2seq.export.target import check_target, new_folder
from img2seq.model.weights import check_shapes, read_shapes, read_tensors
from img2seq.progress import Announcer
from img2seq.run.checkpoint import Checkpoint, all_checkpoints, verify
from img2seq.run.folder import RunFolder, open_run, read_json
from img2seq.run.write import sign, to_disk, write_json

MADE_HERE = ("valid_loss", "rank", "scores")  # of state.json: of a checkpoint's own weights, which these are not


def average_run(path: str | Path, target: str | Path, *, last: int, announce: Announcer) -> str:
    """Write the mean of a run's last checkpoints as a lean run; return what was written, with the next commands.

    Raises:
        RunError: if the run has fewer checkpoints, one of them is damaged, or the target is no empty or new folder.
    """
    run, place = open_run(path), Path(target)
    check_target(place, overwrite=False)
    by_step = {checkpoint.step: checkpoint for checkpoint in all_checkpoints(run.checkpoints)}
    chosen = list(by_step.values())[-last:]
    if len(chosen) < last:
        raise RunError(
            f"{run.checkpoints}: expected {last} checkpoints to average, found {len(chosen)}; "
            "n_saved_models says how many a run keeps beside its newest"
        )
    for checkpoint in chosen:
        verify(checkpoint)
    trained = load_run(run.path, device="cpu", step=chosen[-1].step)
    mean = mean_of_weights(chosen)
    steps = [checkpoint.step for checkpoint in chosen]
    with new_folder(place, overwrite=False, needed=lambda: chosen[-1].weights.stat().st_size) as folder:
        write_lean_run(trained, folder, announce)
        _put_average(RunFolder(folder), mean, steps, run.split.read_bytes() if run.split.is_file() else b"")
        written = load_run(folder, device="cpu").model.state_dict()
        if different := [name for name, tensor in mean.items() if not torch.equal(written[name], tensor)]:
            raise RunError(f"not written: read back, the weights are not the average: {', '.join(different[:3])}")
    words = ", ".join(f"{step:,}" for step in steps)
    lines = [f"{place}: the mean of steps {words} of {run.path}", "next:"]
    return "\n".join([*lines, *(f"  img2seq evaluate {shlex.quote(str(one))}" for one in (run.path, place))])


def mean_of_weights(checkpoints: Sequence[Checkpoint]) -> dict[str, Tensor]:
    """Return the mean of each tensor, in double precision until it is whole. Raises ModelError where checkpoints hold other tensors."""
    newest = read_tensors(checkpoints[-1].weights)
    floating = {name: tensor.double() for name, tensor in newest.items() if tensor.is_floating_point()}
    for checkpoint in checkpoints[:-1]:
        check_shapes(read_shapes(checkpoints[-1].weights), read_shapes(checkpoint.weights), checkpoint.weights)
        for name, tensor in read_tensors(checkpoint.weights, list(floating)).items():
            floating[name] += tensor
    n = len(checkpoints)
    return newest | {name: (total / n).to(newest[name].dtype) for name, total in floating.items()}


def _put_average(export: RunFolder, mean: dict[str, Tensor], steps: Sequence[int], split: bytes) -> None:
    """Put the average in the place of a lean run's weights, and say of what it is one."""
    (to,) = all_checkpoints(export.checkpoints)
    state = {name: value for name, value in to.state().items() if name not in MADE_HERE}
    write_json(to.path / "state.json", state)
    replace_weights(export, mean)
    write_json(export.export, read_json(export.export) | {"valid_loss": None, "averaged_steps": list(steps)})
    if split:
        export.split.write_bytes(split)
    sign(export)
    for place in (export.path / export.split.name, export.path):
        if place.exists():
            to_disk(place)
