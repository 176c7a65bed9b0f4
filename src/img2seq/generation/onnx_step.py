"""An exported decoder's answers, through ONNX Runtime; what the graph takes and gives: `model/onnx_decoder.py`.

Shapes: B images, W rows of an image, R = B W rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from img2seq.errors import ModelError
from img2seq.generation.arrays import NumpyArrays
from img2seq.generation.step import Steps
from img2seq.model.onnx_session import OnnxSession


@dataclass(frozen=True)
class OnnxDecoder:
    """A decoder's graph and its sizes."""

    session: OnnxSession
    kept: Sequence[str]  # what its layers keep of a token: "0.key" and so on
    n_heads: int
    head_width: int
    most_tokens: int

    @classmethod
    def of(cls, session: OnnxSession, n_layers: int, n_heads: int, width: int, most_tokens: int) -> OnnxDecoder:
        """Return a decoder of so many layers."""
        kept = [f"{layer}.{kind}" for layer in range(n_layers) for kind in ("key", "value")]
        return cls(session, kept, n_heads, width // n_heads, most_tokens)


class OnnxStep:
    """A `Step` that answers with numpy arrays. A row's keys and values follow it when beams change places: at captions' lengths that costs little.

    Args:
        decoder: the graph.
        memory: the graph's inputs that hold the memory, images first.
        n_images: B.
    """

    def __init__(self, decoder: OnnxDecoder, memory: Mapping[str, NDArray[np.float32]], n_images: int):
        self.decoder, self.memory, self.n_images = decoder, dict(memory), n_images
        self.most_tokens, self.arrays = decoder.most_tokens, NumpyArrays()

    def begin(self, *, n_rows: int, group: int, max_tokens: int) -> None:
        """Begin with nothing written."""
        self.n_rows = n_rows
        nothing = np.zeros((self.n_images * n_rows, self.decoder.n_heads, 0, self.decoder.head_width), dtype=np.float32)
        self.kept = [nothing for _ in self.decoder.kept]

    def next_logits(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return (R, V) logits."""
        names = self.decoder.kept
        past = {f"past_key_values.{name}": values for name, values in zip(names, self.kept, strict=True)}
        outputs = ["logits", *(f"present.{name}" for name in names)]
        logits, *self.kept = self.decoder.session.run(outputs, {"input_ids": tokens[:, None], **self.memory, **past})
        if logits.ndim != 3 or logits.shape[:2] != (len(tokens), 1):
            raise ModelError(f"the decoder's graph gives logits of the shape {logits.shape} for {len(tokens)} tokens")
        answer: NDArray[np.float32] = logits[:, 0]
        return answer

    def keep_rows(self, rows: NDArray[np.int64]) -> None:
        """See `Step`."""
        self.kept = [values[rows] for values in self.kept]

    def keep_images(self, images: NDArray[np.int64]) -> None:
        """See `Step`."""
        self.keep_rows((images[:, None] * self.n_rows + np.arange(self.n_rows)).ravel())
        self.memory = {name: values[images] for name, values in self.memory.items()}


def onnx_steps(decoder: OnnxDecoder, memory: Mapping[str, NDArray[np.float32]]) -> Steps:
    """Return what gives the step of a part of the images."""
    n_images = len(next(iter(memory.values())))
    return lambda part: OnnxStep(
        decoder, {name: values[part] for name, values in memory.items()}, len(range(n_images)[part])
    )
