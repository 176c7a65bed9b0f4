"""An encoder whose weights are final, through ONNX Runtime: faster on a CPU, the same numbers up to rounding.

Normalisation, batch norms and activations become part of the convolutions, and each thread takes a few images of its own
through the whole network: so few that what passes between two layers stays in the processor's cache. Installed with `img2seq[fast]`; without it, and on
other devices, torch computes. Exporting takes a few seconds, so it is for many images.
"""

from __future__ import annotations

import io
import warnings
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from img2seq.model.cpu.switch import is_on
from img2seq.model.encoder import ImageEncoder

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
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    @classmethod
    def of(cls, encoder: ImageEncoder) -> _Session | None:
        """Return the session of an encoder, or None if its features would differ from torch's."""
        pixels = torch.randint(256, (2, encoder.n_channels, *encoder.size), dtype=torch.uint8)
        file = io.BytesIO()
        axes = {"pixels": {0: "images"}, "features": {0: "images"}}
        try:
            # The exporter warns of every Python number it meets, and prints the whole graph where it fails.
            with torch.no_grad(), warnings.catch_warnings(), patch.object(torch._C, "_jit_onnx_log", lambda *_: None):
                warnings.simplefilter("ignore")
                expected = encoder(pixels)
                torch.onnx.export(
                    encoder, (pixels,), file, input_names=["pixels"], output_names=["features"], dynamic_axes=axes, dynamo=False  # type: ignore[arg-type]
                )  # fmt: skip
            session = cls(file.getvalue())
            found = torch.cat([session(pixels[:1]), session(pixels[1:])])
        except Exception:  # exporter and runtime raise whatever they like; torch can always do it
            return None
        return session if torch.allclose(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max())) else None

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return (B, P, C) features of (B, channels, height, width) uint8 pixels."""
        images, threads = np.ascontiguousarray(pixels.numpy()), torch.get_num_threads()
        size = min(SLICE_IMAGES, -(-len(images) // threads))
        slices = [images[start : start + size] for start in range(0, len(images), size)]
        with ThreadPoolExecutor(threads) as pool:
            features = pool.map(lambda part: self.session.run(None, {"pixels": part})[0], slices)
            return torch.from_numpy(np.concatenate(list(features)))
