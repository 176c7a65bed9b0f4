"""The validation loss: of every image, in nats, so that runs can be compared image by image."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from img2seq.data.caption_set import CaptionSet
from img2seq.data.order import validation_plan
from img2seq.model.captioner import CaptionModel


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


@torch.inference_mode()
def image_losses(
    model: CaptionModel,
    data: CaptionSet,
    *,
    batch_size: int,
    workers: int = 0,
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
    advance: Callable[[int], None] | None = None,
) -> ImageLosses:
    """Return the loss of each image of a set, in its order; the model is left in the mode it was in."""
    was_training = model.training
    model.eval()
    nats, tokens = [], []
    for batch in data.batches(validation_plan(data.captions_of, batch_size=batch_size), workers=workers):
        batch = batch.to(model.device)
        with autocast():
            losses = model.losses(batch).double()
        n_images = batch.image_shape[0]
        nats.append(
            torch.zeros(n_images, dtype=torch.float64, device=losses.device)
            .index_add_(0, batch.image_of_token, losses)
            .cpu()
        )
        tokens.append(torch.bincount(batch.image_of_token, minlength=n_images).cpu())
        if advance:
            advance(n_images)
    model.train(was_training)
    return ImageLosses(torch.cat(nats).numpy(), torch.cat(tokens).numpy())
