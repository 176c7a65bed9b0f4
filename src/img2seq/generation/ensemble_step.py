"""Several models' answers as one: their probabilities are averaged, token by token. Steps of torch and of ONNX Runtime mix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from img2seq.generation.arrays import NumpyArrays
from img2seq.generation.step import Step


class EnsembleStep:
    """A `Step` of steps. It answers with numpy arrays, whatever they do.

    Args:
        steps: of the same images and the same vocabulary.
    """

    def __init__(self, steps: Sequence[Step]):
        self.steps, self.arrays = steps, NumpyArrays()
        self.n_images, self.most_tokens = steps[0].n_images, min(step.most_tokens for step in steps)

    def begin(self, *, n_rows: int, group: int, max_tokens: int) -> None:
        """Begin with nothing written."""
        for step in self.steps:
            with step.arrays.computing():
                step.begin(n_rows=n_rows, group=group, max_tokens=max_tokens)

    def next_logits(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return (R, V) logits: see `Step`."""
        tables = []
        for step in self.steps:
            with step.arrays.computing():
                tables.append(step.arrays.to_numpy(step.arrays.float32(step.next_logits(step.arrays.array(tokens)))))
        return mean_logits(np.stack(tables))

    def keep_rows(self, rows: NDArray[np.int64]) -> None:
        """See `Step`."""
        for step in self.steps:
            with step.arrays.computing():
                step.keep_rows(step.arrays.array(rows))

    def keep_images(self, images: NDArray[np.int64]) -> None:
        """See `Step`."""
        for step in self.steps:
            with step.arrays.computing():
                step.keep_images(step.arrays.array(images))
        self.n_images = len(images)


def mean_logits(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (R, V): the log of the mean probability of N models' (N, R, V) logits, plus the mean of their normalisers."""
    normalisers = _log_sum(logits, 2)
    logits = logits - normalisers
    mean: NDArray[np.float32] = _log_sum(logits, 0)[0] - np.float32(np.log(len(logits))) + normalisers.mean(0)
    return mean


def _log_sum(logits: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Return the log of the sum of exponentials; what is far below all others keeps its place, too."""
    greatest = logits.max(axis, keepdims=True)
    total: NDArray[np.float32] = greatest + np.log(np.exp(logits - greatest).sum(axis, keepdims=True))
    return total
