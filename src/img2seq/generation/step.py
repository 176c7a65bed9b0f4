"""The next token of captions being written: what a search asks, token by token.

A search does not know who answers: one model, several whose probabilities are averaged, another decoder, an exported graph.

Shapes: B images, W rows of an image (beams or samples), R = B W rows in all, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from img2seq.generation.arrays import Array, Arrays


class Step(Protocol):
    """Tokens so far to scores of the next token.

    Attributes:
        n_images: B.
        most_tokens: of a caption, its end not counted.
        arrays: whose arrays it takes and gives: numpy's, or torch's on a device.
    """

    n_images: int
    most_tokens: int

    @property
    def arrays(self) -> Arrays: ...

    def begin(self, *, n_rows: int, group: int, max_tokens: int) -> None:
        """Forget what was written before, and begin W rows for each image; `group` neighbours may continue one another."""

    def next_logits(self, tokens: Array) -> Array:
        """Take the (R,) newest tokens in, and return (R, V) logits of the next token, which the search may overwrite.

        `repetition_penalty` looks at the sign of a logit. Several models therefore answer with the log of their mean probability
        plus the mean of their normalisers (`logsumexp`): of one model these are its own logits.
        """

    def keep_rows(self, rows: Array) -> None:
        """Let row i (of all R) continue what row `rows[i]` of the same group has seen so far. Only beam search asks for it."""

    def keep_images(self, images: Array) -> None:
        """Forget all images but these, as places among those still here, with their rows; `n_images` stays."""


Steps = Callable[[slice], Step]  # of images that were encoded together: a part of them, which a thread searches
