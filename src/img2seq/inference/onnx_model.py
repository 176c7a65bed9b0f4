"""An exported model that captions pictures: ONNX Runtime and numpy, without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from img2seq.errors import ModelError
from img2seq.generation.onnx_step import OnnxDecoder, onnx_steps
from img2seq.generation.step import Steps
from img2seq.model.onnx_session import OnnxSession, in_parts, usable_threads

ENCODED_TOGETHER = 8  # images of a thread: so few that what passes between two layers stays in the processor's cache


class OnnxModel:
    """See `predictor.CaptioningModel`.

    Args:
        encoder: pixel_values to last_hidden_state.
        decoder: what writes captions.
        mean: of each channel, pixel values in 0..1.
        std: of each channel, pixel values in 0..1.
        memory_shape: 2 L D and P, of what the encoder gives.
    """

    def __init__(
        self,
        encoder: OnnxSession,
        decoder: OnnxDecoder,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        memory_shape: tuple[int, int],
    ):
        self.memory_shape = memory_shape
        self.encoder, self.decoder, self.threads = encoder, decoder, usable_threads()
        self.scale = (1 / (255 * np.array(std, np.float32))).reshape(-1, 1, 1)
        self.shift = (np.array(mean, np.float32) / np.array(std, np.float32)).reshape(-1, 1, 1)

    def steps(self, *, pixels: Mapping[str, Any], features: Mapping[str, Any], n_images: int) -> Steps:
        """See `predictor.CaptioningModel`. There are no features: the encoder is always computed."""
        (of_input,) = pixels.values()
        return onnx_steps(self.decoder, {"encoder_hidden_states": self.encode(np.asarray(of_input))})

    def encode(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return (B, 2 L D, P): what the decoder's layers read of each image; (B, C, H, W) pixels."""

        def encoded(part: slice) -> NDArray[np.float32]:
            values = pixels[part].astype(np.float32) * self.scale - self.shift
            states: NDArray[np.float32] = self.encoder.run(["last_hidden_state"], {"pixel_values": values})[0]
            if (found := (len(values), *self.memory_shape)) != states.shape:
                raise ModelError(f"the encoder's graph gives states of the shape {states.shape}, expected {found}")
            return states

        return np.concatenate(in_parts(encoded, len(pixels), ENCODED_TOGETHER, self.threads))

    def prepare_for_many(self) -> bool:
        """See `predictor.CaptioningModel`: it is as fast as it can be."""
        return True

    def prepare_decoder(self) -> bool:
        """See `predictor.CaptioningModel`."""
        return True

    def leave_a_core(self) -> None:
        """See `predictor.CaptioningModel`."""
        self.threads = usable_threads(spare=1)
