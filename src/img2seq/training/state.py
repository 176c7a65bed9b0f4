"""The position in training: a few numbers, from which everything else follows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_type_hints

import torch
from torch import Tensor
from torch.optim import Optimizer

from img2seq.errors import RunError
from img2seq.model.caption_model import CaptionModel
from img2seq.model.weights import check_shapes, read_tensors
from img2seq.run.checkpoint import Checkpoint
from img2seq.training.average import WeightAverage
from img2seq.training.parallel import laid_out_as, whole
from img2seq.training.validation import Evaluation

NOT_IN_OLD_RUNS = (
    "best_score",
    "phase",
    "phase_step",
    "phase_epoch",
)  # of the position: then it is where a run without it stands
OPTIMIZER_STATE = {"SGD": ("momentum_buffer",), "AdaBelief": ("step", "mean", "belief")}  # the others are Adam's


@dataclass
class TrainState:
    """Where training stands after a step.

    Attributes:
        step: optimiser steps done.
        epoch: the current epoch, from 0.
        batch: batches of this epoch done.
        best_loss: lowest validation loss so far, or where checkpoints are chosen by a score, that of the best so far.
        best_score: that score of the best so far.
        evaluations_since_best: evaluations without a better one.
        plateau_count: the same since `plateau` last lowered the rate.
        n_falls: how often `plateau` has lowered the rate.
        train_nats: sum of training losses since the last evaluation; of rewards, where captions are sampled.
        train_tokens: tokens they were taken over; samples.
        captions: captions trained on since the run began.
        train_time_s: time spent in training steps.
        elapsed_s: time since the run began, all sessions together.
        phase: the current phase, from 0.
        phase_step: steps done when it began.
        phase_epoch: the epoch it began with.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    best_loss: float | None = None
    best_score: float | None = None
    evaluations_since_best: int = 0
    plateau_count: int = 0
    n_falls: int = 0
    train_nats: float = 0.0
    train_tokens: int = 0
    captions: int = 0
    train_time_s: float = 0.0
    elapsed_s: float = 0.0
    phase: int = 0
    phase_step: int = 0
    phase_epoch: int = 0

    def enter_phase(self, phase: int) -> None:
        """Begin a phase here: the best so far stays, and what waits for a better one begins anew."""
        self.phase, self.phase_step, self.phase_epoch, self.batch = phase, self.step, self.epoch, 0
        self.evaluations_since_best = self.plateau_count = self.n_falls = 0
        self.train_nats, self.train_tokens = 0.0, 0

    def is_better(self, found: Evaluation) -> bool:
        """Return whether an evaluation is better than the best so far."""
        if found.best_by == "loss":
            return self.best_loss is None or found.loss < self.best_loss
        return self.best_score is None or found.scores[found.best_by] > self.best_score

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> TrainState:
        """Return the state that was saved. Raises ValueError for fields that are unknown, missing or no such numbers."""
        kinds, data = get_type_hints(cls), {name: getattr(cls, name) for name in NOT_IN_OLD_RUNS} | data
        wrong = [
            name
            for name in {*kinds, *data}
            if name not in kinds or name not in data or not _is(data[name], kinds[name])
        ]
        if wrong:
            raise ValueError(f"position: {', '.join(sorted(wrong))}")
        return cls(**data)


def _is(value: object, kind: Any) -> bool:
    """Tell whether a value read from JSON is a number that a field can have."""
    if isinstance(value, bool) or (isinstance(value, int | float) and not 0 <= value < 2**63):
        return False
    return isinstance(value, kind) or (isinstance(value, int) and isinstance(0.0, kind))


def training_tensors(model: CaptionModel, optimizer: Optimizer, average: WeightAverage) -> dict[str, Tensor]:
    """Return what a resumed run needs beside the weights to use: optimiser state, trained weights, their average.

    Sharded tensors come whole, so that nothing in a checkpoint depends on how many processes wrote it.
    """
    tensors: dict[str, Tensor] = {}
    for number, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{number}.{name}"] = whole(value)
    if average.active:
        tensors |= {f"average.{name}": whole(tensor) for name, tensor in average.tensors.items()}
        tensors |= {f"trained.{name}": whole(p) for name, p in model.named_parameters() if p.requires_grad}
    return tensors


def position_of(checkpoint: Checkpoint) -> TrainState:
    """Return the position at a checkpoint. Raises RunError for one that no run can have."""
    try:
        state = TrainState.from_json(checkpoint.state()["position"])
        if state.step != checkpoint.step:
            raise ValueError(f"position: step {state.step}")
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{checkpoint.path}: not the state of a training run: {error}") from error
    return state


def restore(
    checkpoint: Checkpoint,
    model: CaptionModel,
    optimizer: Optimizer,
    average: WeightAverage,
    scaler: torch.amp.GradScaler,
) -> TrainState:
    """Put model, optimiser, average and scaler back as they were at a checkpoint, and return the position."""
    data, weights, tensors = checkpoint.state(), read_tensors(checkpoint.weights), read_tensors(checkpoint.training)
    parts: dict[str, dict[str, Tensor]] = {"optimizer": {}, "average": {}, "trained": {}}
    state = position_of(checkpoint)
    try:
        average.n_averaged = data["n_averaged"]
        if not _is(average.n_averaged, int):
            raise ValueError("n_averaged")
        if scaler.is_enabled() and data.get("scaler"):
            scaler.load_state_dict(data["scaler"])
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = tensor
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise RunError(f"{checkpoint.path}: not the state of a training run: {error}") from error
    now, trained = model.state_dict(), {name: p for name, p in model.named_parameters() if p.requires_grad}
    for part in ("average", "trained"):
        _expect(trained if average.n_averaged else {}, parts[part], checkpoint.training)
    _expect(now, weights := weights | parts["trained"], checkpoint.weights)
    optimized = [p for group in optimizer.param_groups for p in group["params"]]
    numbers = {name.partition(".")[0] for name in parts["optimizer"]}
    layout = {
        f"{number}.{key}": torch.empty(()) if key == "step" else p
        for number, p in enumerate(optimized)
        for key in OPTIMIZER_STATE.get(type(optimizer).__name__, ("step", "exp_avg", "exp_avg_sq"))
        if str(number) in numbers  # none of parameters that had no gradient yet
    }
    _expect(layout, parts["optimizer"], checkpoint.training)
    model.load_state_dict({name: laid_out_as(tensor, now[name]) for name, tensor in weights.items()})
    average.tensors = {name: laid_out_as(tensor, now[name]) for name, tensor in parts["average"].items()}
    saved: dict[int, dict[str, Tensor]] = {}
    for name, tensor in parts["optimizer"].items():
        number, _, key = name.partition(".")
        saved.setdefault(int(number), {})[key] = laid_out_as(tensor, optimized[int(number)])
    optimizer.load_state_dict({"state": saved, "param_groups": optimizer.state_dict()["param_groups"]})
    return state


def _expect(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], path: Path) -> None:
    """Raise ModelError unless both have the same names and shapes."""
    names = [{name: tuple(tensor.shape) for name, tensor in tensors.items()} for tensors in (expected, found)]
    check_shapes(names[0], names[1], path)
