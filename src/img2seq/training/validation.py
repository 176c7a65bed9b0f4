"""The validation loss: of every image, in nats, so that runs can be compared image by image."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from img2seq.data.caption_set import CaptionSet
from img2seq.data.order import validation_plan
from img2seq.model.caption_model import CaptionModel
from img2seq.model.cpu.cores import on_first_core
from img2seq.model.packing import pack
from img2seq.model.teacher_forcing import token_losses
from img2seq.training.distributed import ALONE, World


@dataclass(frozen=True)
class ImageLosses:
    """Negative log-probability of each image's captions.

    Attributes:
        nats: (images,) sums over the tokens of all captions of an image, end tokens included.
        tokens: (images,) how many tokens those are.
    """

    nats: NDArray[np.float64]
    tokens: NDArray[np.int64]

    @property
    def per_token(self) -> float:
        """Return the loss: nats per token over all images."""
        return float(self.nats.sum() / self.tokens.sum())


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found of the weights of a step.

    Attributes:
        step: the step.
        loss: validation loss, nats per token.
        scores: of captions, by metric; empty where none were made.
        best_by: what checkpoints are chosen by: "loss" or a score.
    """

    step: int
    loss: float
    scores: dict[str, float]
    best_by: str

    @property
    def rank(self) -> float:
        """Return what checkpoints are chosen by, the lower the better: the loss, or the negative of a score."""
        return self.loss if self.best_by == "loss" else -self.scores[self.best_by]

    def to_json(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        ranked = {} if self.best_by == "loss" else {"rank": self.rank}
        return {"valid_loss": self.loss} | ({"scores": self.scores} if self.scores else {}) | ranked


@torch.inference_mode()
def image_losses(
    model: CaptionModel,
    data: CaptionSet,
    *,
    batch_size: int,
    workers: int = 0,
    world: World = ALONE,
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
    advance: Callable[[int], None] | None = None,
    before_batch: Callable[[], None] = lambda: None,
) -> ImageLosses:
    """Return the loss of each image of a set, in its order; the model is left in the mode it was in.

    All processes call `before_batch` equally often, even those that have a batch less: there they can agree to give up.

    Where there are several processes each takes every n-th batch, with a whole model of its own. Batches are the same
    however many there are, and so is the loss, to the last bit, on one kind of machine.
    """
    was_training = model.training
    model.eval()
    plan = validation_plan(data.captions_of, batch_size=batch_size)
    bounds = np.cumsum([0, *(len(groups) for groups in plan)])
    nats, tokens = np.zeros(len(data)), np.zeros(len(data))
    mine = range(world.rank, len(plan), world.size)
    for place, batch in zip(mine, data.batches([plan[i] for i in mine], workers=workers), strict=True):
        before_batch()
        packed = pack(batch, model.device)
        with autocast(), on_first_core():
            losses = token_losses(model, packed).cpu().double().numpy()
        images = slice(bounds[place], bounds[place + 1])
        owners, n_images = packed.image_of_token.cpu().numpy(), packed.image_shape[0]
        nats[images] = np.bincount(owners, weights=losses, minlength=n_images)  # in order: the same sum on every device
        tokens[images] = np.bincount(owners, minlength=n_images)
        if advance:
            advance(bounds[min(place + world.size, len(plan))] - bounds[place])
    if len(mine) * world.size < len(plan):
        before_batch()
    model.train(was_training)
    return ImageLosses(world.sum_arrays(nats), world.sum_arrays(tokens).astype(np.int64))
