"""A model's answers to a search, token by token: keys and values of earlier tokens are kept."""

from __future__ import annotations

import torch
from torch import Tensor

from img2seq.generation.key_values import DecodingCache
from img2seq.generation.torch_arrays import TorchArrays
from img2seq.model.decoder import Decoder


class ModelStep:
    """One model's answers: see `Step`.

    Args:
        decoder: in evaluation mode.
        memory: (B, P, D) as `CaptionModel.encode` gives it, None for the text-only model.
        n_images: B; only needed where memory is None.
    """

    def __init__(self, decoder: Decoder, memory: Tensor | None, *, n_images: int | None = None):
        self.decoder, self.memory = decoder, memory
        self.n_images = len(memory) if memory is not None else (n_images or 0)
        self.most_tokens, self.arrays = decoder.n_positions - 1, TorchArrays(decoder.bias.device)

    def begin(self, *, n_rows: int, group: int, max_tokens: int) -> None:
        """Begin with nothing written."""
        self.cache = DecodingCache(
            self.decoder, self.memory, n_images=self.n_images, n_rows=n_rows, group=group, max_tokens=max_tokens
        )

    def next_logits(self, tokens: Tensor) -> Tensor:
        """Return (R, V) logits."""
        outputs = self.decoder(tokens, torch.full_like(tokens, self.cache.length), self.cache)
        self.cache.length += 1
        return self.decoder.logits(outputs)

    def keep_rows(self, rows: Tensor) -> None:
        """See `Step`."""
        self.cache.keep_rows(rows)

    def keep_images(self, images: Tensor) -> None:
        """See `Step`."""
        self.cache.keep_images(images)
