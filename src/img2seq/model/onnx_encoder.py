"""An encoder whose weights are final, through ONNX Runtime: faster on a CPU, the same numbers up to rounding.

Normalisation, batch norms and activations become part of the convolutions, and each thread takes a few images of its own
through the whole network: so few that what passes between two layers stays in the processor's cache. Installed with `img2seq[fast]`; without it, and on
other devices, torch computes. Exporting takes a few seconds, so it is for many images.
"""

from __future__ import annotations

import io
import warnings
from importlib.util import find_spec
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from img2seq.model.caption_model import CaptionModel
from img2seq.model.cpu.switch import is_on
from img2seq.model.encoder import ImageEncoder
from img2seq.model.onnx_session import OnnxSession, in_parts

SLICE_IMAGES = 8  # of a batch, computed by one thread


def is_installed() -> bool:
    """Return whether ONNX Runtime and the exporter's package are there."""
    return find_spec("onnxruntime") is not None and find_spec("onnx") is not None


def accelerate(encoder: ImageEncoder) -> bool:
    """Let an encoder in evaluation mode compute through ONNX Runtime from now on; return whether it does.

    Its weights must not change any more. It stays with torch on other devices, without `img2seq[fast]`, and where a model
    cannot be exported or does not give the same features.
    """
    if encoder.runtime is None and is_on("onnx_encoder") and encoder.scale.device.type == "cpu" and is_installed():
        encoder.runtime = _Session.of(encoder)
    return encoder.runtime is not None


class _Session:
    """Pixels to features in ONNX Runtime."""

    def __init__(self, model: bytes):
        self.session = OnnxSession(model)

    @classmethod
    def of(cls, encoder: ImageEncoder) -> _Session | None:
        """Return the session of an encoder, or None if its features would differ from torch's."""
        pixels = torch.randint(256, (2, encoder.n_channels, *encoder.size), dtype=torch.uint8)
        try:
            with torch.no_grad():
                expected = encoder(pixels)
            session = cls(traced(encoder, pixels, "pixels", "features"))
            found = torch.cat([session(pixels[:1]), session(pixels[1:])])
        except Exception:  # exporter and runtime raise whatever they like; torch can always do it
            return None
        return session if torch.allclose(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max())) else None

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return (B, P, C) features of (B, channels, height, width) uint8 pixels."""
        images = np.ascontiguousarray(pixels.numpy())

        def encoded(part: slice) -> NDArray[np.float32]:
            features: NDArray[np.float32] = self.session.run(["features"], {"pixels": images[part]})[0]
            return features

        return torch.from_numpy(np.concatenate(in_parts(encoded, len(images), SLICE_IMAGES, torch.get_num_threads())))


class _MemoryOfPictures(nn.Module):
    """Normalised pixels to keys and values of the memory, for all of the decoder's layers."""

    def __init__(self, model: CaptionModel, input_name: str):
        super().__init__()
        self.encoder, self.projection = model.encoder(input_name), model.projections[input_name]
        self.blocks = model.own_decoder.blocks

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Return (B, 2 L D, P): layer by layer, keys and then values, each place of the memory a column."""
        memory = self.projection(self.encoder.features(pixel_values))
        kv = torch.cat([block.memory_kv(memory) for block in self.blocks], dim=2)  # type: ignore[operator]
        return kv.transpose(1, 2)


def encoder_graph(model: CaptionModel, input_name: str) -> bytes:
    """Return the ONNX graph of what is computed once for an image: pixel_values (B, C, H, W) to last_hidden_state (B, 2 L D, P).

    Raises whatever torch's exporter cannot do.
    """
    encoder = model.encoder(input_name)
    pixels = torch.randn(2, encoder.n_channels, *encoder.size)
    return traced(_MemoryOfPictures(model, input_name).eval(), pixels, "pixel_values", "last_hidden_state")


def traced(module: nn.Module, example: Tensor, takes: str, gives: str) -> bytes:
    """Return a module of one input and one output as an ONNX file, for any number of images."""
    file, axes = io.BytesIO(), {takes: {0: "batch_size"}, gives: {0: "batch_size"}}
    # The exporter warns of every Python number it meets, and prints the whole graph where it fails.
    with torch.no_grad(), warnings.catch_warnings(), patch.object(torch._C, "_jit_onnx_log", lambda *_: None):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, (example,), file, input_names=[takes], output_names=[gives], dynamic_axes=axes, dynamo=False  # type: ignore[arg-type]
        )  # fmt: skip
    return file.getvalue()
