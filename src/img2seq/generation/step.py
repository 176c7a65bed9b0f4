"""The next token of captions being written: what a search asks, and the model's answer, token by token.

A search does not know who answers: one model, several whose probabilities are averaged, another decoder, an exported graph.

Shapes: B images, W rows of an image (beams or samples), R = B W rows in all, V vocabulary.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from img2seq.generation.key_values import DecodingCache
from img2seq.model.decoder import Decoder


class Step(Protocol):
    """Tokens so far to scores of the next token.

    Attributes:
        n_images: B.
        most_tokens: of a caption, its end not counted.
        device: of the scores.
    """

    n_images: int
    most_tokens: int
    device: torch.device

    def begin(self, *, n_rows: int, group: int, max_tokens: int) -> None:
        """Forget what was written before, and begin W rows for each image; `group` neighbours may continue one another."""

    def next_logits(self, tokens: Tensor) -> Tensor:
        """Take the (R,) newest tokens in, and return (R, V) logits of the next token, which the search may overwrite.

        `repetition_penalty` looks at the sign of a logit. Several models therefore answer with the log of their mean probability
        plus the mean of their normalisers (`logsumexp`): of one model these are its own logits.
        """

    def keep_rows(self, rows: Tensor) -> None:
        """Let row i (of all R) continue what row `rows[i]` of the same group has seen so far. Only beam search asks for it."""

    def keep_images(self, images: Tensor) -> None:
        """Forget all images but these, as places among those still here, with their rows; `n_images` stays."""


class ModelStep:
    """One model's answers.

    Args:
        decoder: in evaluation mode.
        memory: (B, P, D) as `CaptionModel.encode` gives it, None for the text-only model.
        n_images: B; only needed where memory is None.
    """

    def __init__(self, decoder: Decoder, memory: Tensor | None, *, n_images: int | None = None):
        self.decoder, self.memory = decoder, memory
        self.n_images = len(memory) if memory is not None else (n_images or 0)
        self.most_tokens, self.device = decoder.n_positions - 1, decoder.bias.device

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
