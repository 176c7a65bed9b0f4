"""What a training step minimises. The loop does not know which objective it has."""

from __future__ import annotations

from typing import Protocol

import torch.nn.functional as F
from torch import Tensor

from img2seq.data.batch import Batch
from img2seq.model.caption_model import CaptionModel
from img2seq.model.packing import PackedBatch, pack
from img2seq.model.teacher_forcing import next_token_logits
from img2seq.training.work import Work


class Objective(Protocol):
    """Prepare a batch outside of the gradient, then compute its loss inside of it."""

    def prepare(self, model: CaptionModel, batch: Batch, *, work: Work, step: int, counts: bool = True) -> PackedBatch:
        """Return what the loss is computed over, on the model's device; what does not count is not measured either."""

    def loss_sum(self, model: CaptionModel, batch: PackedBatch) -> Tensor:
        """Return the loss, summed over the target tokens. May be compiled."""

    def divisor(self, work: Work) -> float:
        """Return what the loss of all processes is divided by."""

    def measured(self, work: Work, loss_sum: float) -> tuple[float, int]:
        """Return this process's part of what a step is judged by, and over how much of all processes it is summed."""


class CrossEntropy:
    """The negative log-probability of people's captions.

    Args:
        label_smoothing: share of the target probability spread over the vocabulary.
    """

    def __init__(self, label_smoothing: float = 0.0):
        self.label_smoothing = label_smoothing

    def prepare(self, model: CaptionModel, batch: Batch, *, work: Work, step: int, counts: bool = True) -> PackedBatch:
        """Return the batch as it is."""
        return pack(batch, model.device)

    def loss_sum(self, model: CaptionModel, batch: PackedBatch) -> Tensor:
        """Return the sum over all target tokens of their negative log-probability, in nats."""
        logits = next_token_logits(model, batch).float()
        return F.cross_entropy(logits, batch.target_ids, reduction="sum", label_smoothing=self.label_smoothing)

    def divisor(self, work: Work) -> float:
        """Return the number of target tokens."""
        return work.n_tokens

    def measured(self, work: Work, loss_sum: float) -> tuple[float, int]:
        """Return the loss in nats, and the target tokens."""
        return loss_sum, work.n_tokens
