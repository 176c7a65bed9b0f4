"""A model in torch that captions pictures: on a CPU its decoder may answer through ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from img2seq.config.decoding import Decoding
from img2seq.data.tokenizer import SpecialTokens
from img2seq.generation.model_step import ModelStep
from img2seq.generation.search import Hypothesis, search
from img2seq.model.caption_model import CaptionModel
from img2seq.model.cpu.cores import leave_a_core
from img2seq.model.cpu.few_rows import one_thread_for
from img2seq.model.onnx_encoder import accelerate


class TorchModel:
    """See `predictor.CaptioningModel`. The model is left in evaluation mode."""

    def __init__(self, model: CaptionModel):
        self.model = model

    def prepare_for_many(self) -> bool:
        """See `predictor.CaptioningModel`."""
        return all(accelerate(self.model.encoder(name)) for name in self.model.encoders)

    def leave_a_core(self) -> None:
        """Compute on one core fewer."""
        leave_a_core()

    def search(
        self,
        decoding: Decoding,
        special: SpecialTokens,
        *,
        names: Sequence[str],
        pixels: Mapping[str, Any],
        features: Mapping[str, Any],
        beginnings: Sequence[Sequence[int]] | None,
    ) -> list[list[Hypothesis]]:
        """See `predictor.CaptioningModel`."""
        model, device = self.model.eval(), self.model.device
        with torch.inference_mode():
            memory = model.encode(
                pixels={name: torch.as_tensor(values).to(device) for name, values in pixels.items()},
                features={name: torch.as_tensor(values).to(device) for name, values in features.items()},
            )
        step = ModelStep(model.decoder, memory, n_images=len(names))
        with one_thread_for(len(names) * decoding.n_rows, device):
            return search(step, decoding, special, beginnings=beginnings, names=names)
