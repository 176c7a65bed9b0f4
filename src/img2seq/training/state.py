"""The position in training: a few numbers, from which everything else follows."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from img2seq.checkpoints import Checkpoint
from img2seq.errors import RunError
from img2seq.model.captioner import CaptionModel
from img2seq.model.weights import read_tensors
from img2seq.training.average import WeightAverage
from img2seq.training.parallel import laid_out_as, whole


@dataclass
class TrainState:
    """Where training stands after a step.

    Attributes:
        step: optimiser steps done.
        epoch: the current epoch, from 0.
        batch: batches of this epoch done.
        best_loss: lowest validation loss so far.
        evaluations_since_best: evaluations without a lower one.
        plateau_count: the same since `plateau` last lowered the rate.
        n_falls: how often `plateau` has lowered the rate.
        train_nats: sum of training losses since the last evaluation.
        train_tokens: tokens they were taken over.
        captions: captions trained on since the run began.
        train_time_s: time spent in training steps.
        elapsed_s: time since the run began, all sittings together.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    best_loss: float | None = None
    evaluations_since_best: int = 0
    plateau_count: int = 0
    n_falls: int = 0
    train_nats: float = 0.0
    train_tokens: int = 0
    captions: int = 0
    train_time_s: float = 0.0
    elapsed_s: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


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


def restore(
    checkpoint: Checkpoint,
    model: CaptionModel,
    optimizer: Optimizer,
    average: WeightAverage,
    scaler: torch.amp.GradScaler,
) -> TrainState:
    """Put model, optimiser, average and scaler back as they were at a checkpoint, and return the position."""
    data = checkpoint.state()
    try:
        state = TrainState(**data["position"])
        average.n_averaged = data["n_averaged"]
    except (KeyError, TypeError) as error:
        raise RunError(f"{checkpoint.path / 'state.json'}: not the state of a training run: {error}") from error
    if scaler.is_enabled() and data.get("scaler"):
        scaler.load_state_dict(data["scaler"])
    weights, tensors = read_tensors(checkpoint.weights), read_tensors(checkpoint.training)
    for name, tensor in tensors.items():
        if name.startswith("trained."):
            weights[name.removeprefix("trained.")] = tensor
    now = model.state_dict()
    model.load_state_dict({name: laid_out_as(tensor, now.get(name, tensor)) for name, tensor in weights.items()})
    average.tensors = {
        name: laid_out_as(tensors[f"average.{name}"], now[name]) for name in now if f"average.{name}" in tensors
    }
    optimized = [p for group in optimizer.param_groups for p in group["params"]]
    saved: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, number, key = name.split(".", 2)
            saved.setdefault(int(number), {})[key] = laid_out_as(tensor, optimized[int(number)])
    optimizer.load_state_dict({"state": saved, "param_groups": optimizer.state_dict()["param_groups"]})
    return state
