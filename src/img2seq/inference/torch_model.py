"""A model in torch that captions pictures: on a CPU its decoder may answer through ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from img2seq.generation.fast_decoder import fast_decoder
from img2seq.generation.model_step import ModelStep
from img2seq.generation.onnx_step import OnnxDecoder, onnx_steps
from img2seq.generation.step import Step, Steps
from img2seq.model.caption_model import CaptionModel
from img2seq.model.cpu.cores import leave_a_core
from img2seq.model.cpu.switch import is_on
from img2seq.model.decoder import Decoder
from img2seq.model.onnx_encoder import accelerate, is_installed


class TorchModel:
    """See `predictor.CaptioningModel`. The model is left in evaluation mode."""

    def __init__(self, model: CaptionModel):
        self.model = model
        self.runtime: OnnxDecoder | None = None  # see `prepare_decoder`

    def prepare_for_many(self) -> bool:
        """See `predictor.CaptioningModel`. The weights must not change any more."""
        return all([self.prepare_decoder(), *(accelerate(self.model.encoder(name)) for name in self.model.encoders)])

    def prepare_decoder(self) -> bool:
        """Let the decoder answer through ONNX Runtime from now on; return whether it does. It takes a fraction of a second.

        Its weights must not change any more. It stays with torch on other devices, without `img2seq[fast]`, without a memory, and where the runtime
        does not give the same logits.
        """
        model = self.model
        if (
            self.runtime is None
            and is_on("onnx_decoder")
            and model.device.type == "cpu"
            and model.encoders
            and isinstance(decoder := model.decoder, Decoder)
            and is_installed()
        ):
            self.runtime = fast_decoder(decoder.eval(), model.n_places)
        return self.runtime is not None

    def leave_a_core(self) -> None:
        """See `predictor.CaptioningModel`."""
        leave_a_core()

    @property
    def threads(self) -> int:
        """See `predictor.CaptioningModel`: torch itself computes on several."""
        return 1 if self.runtime is None else torch.get_num_threads()

    def steps(self, *, pixels: Mapping[str, Any], features: Mapping[str, Any], n_images: int) -> Steps:
        """See `predictor.CaptioningModel`."""
        model, decoder, device = self.model.eval(), self.model.decoder, self.model.device
        with torch.inference_mode():
            memory = model.encode(
                pixels={name: torch.as_tensor(values).to(device) for name, values in pixels.items()},
                features={name: torch.as_tensor(values).to(device) for name, values in features.items()},
            )
            if self.runtime is not None and memory is not None:
                return onnx_steps(self.runtime, decoder.memory_by_layer(memory))

        def of_part(part: slice) -> Step:
            n, seen = len(range(n_images)[part]), None if memory is None else memory[part]
            if isinstance(decoder, Decoder):
                return ModelStep(decoder, seen, n_images=n)
            from img2seq.generation.language_model_step import LanguageModelStep

            return LanguageModelStep(decoder, seen, n_images=n)

        return of_part
