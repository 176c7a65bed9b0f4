"""Averages of the weights over training: exponential (EMA) or plain from a step on (SWA, Izmailov 2018)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from img2seq.config.globals import ModelOptions
from img2seq.model.caption_model import CaptionModel


class WeightAverage:
    """A running average of the trained weights, or nothing where the configuration asks for none.

    Batch statistics are not averaged; those of the trained model are used.
    """

    def __init__(self, model: CaptionModel, config: ModelOptions):
        self.decay, self.first_step = config.ema_decay, config.n_iter_before_swa
        self._trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.n_averaged = 0
        self.tensors: dict[str, Tensor] = {}

    @property
    def active(self) -> bool:
        return self.n_averaged > 0

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after a step."""
        if self.decay is None and (self.first_step is None or step <= self.first_step):
            return
        self.n_averaged += 1
        if not self.tensors:
            self.tensors = {name: p.detach().clone() for name, p in self._trained.items()}
            return
        if self.decay is not None:  # a young average forgets faster, or it would remember the initial weights
            share = 1 - min(self.decay, self.n_averaged / (self.n_averaged + 9))
        else:
            share = 1 / self.n_averaged
        torch._foreach_lerp_(
            list(self.tensors.values()), [self._trained[name].detach() for name in self.tensors], share
        )

    @contextmanager
    @torch.no_grad()
    def applied(self) -> Iterator[None]:
        """Put the averaged weights into the model for a while."""
        if not self.active:
            yield
            return
        kept = {name: self._trained[name].detach().clone() for name in self.tensors}
        for name, tensor in self.tensors.items():
            self._trained[name].copy_(tensor)
        try:
            yield
        finally:
            for name, tensor in kept.items():
                self._trained[name].copy_(tensor)
