"""The whole model: encoders, the memory they fill, and the decoder that reads it.

How it is run is written elsewhere: over whole captions in `teacher_forcing`, token by token in `generation.model_step`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from img2seq.errors import ModelError
from img2seq.model.decoder import Decoder
from img2seq.model.encoder import ContextProjection, ImageEncoder

if TYPE_CHECKING:
    from img2seq.model.language_model import LanguageModelDecoder


class CaptionModel(nn.Module):
    """Captions given images; without encoders, a plain language model of captions.

    Args:
        encoders: by input name, in the order of the memory.
        decoder: with memory if and only if there are encoders.
        context_dropout: on the context vectors.
    """

    def __init__(
        self,
        encoders: dict[str, ImageEncoder],
        decoder: Decoder | LanguageModelDecoder,
        *,
        context_dropout: float = 0.0,
    ):
        super().__init__()
        self.encoders = nn.ModuleDict(encoders)
        self.projections = nn.ModuleDict(
            {
                name: ContextProjection(e.n_places, e.n_features, decoder.width, context_dropout)
                for name, e in encoders.items()
            }
        )
        self.decoder: Any = decoder  # of either kind; `own_decoder` has the type of ours

    @property
    def device(self) -> torch.device:
        device: torch.device = next(self.decoder.parameters()).device
        return device

    @property
    def own_decoder(self) -> Decoder:
        """Return the decoder where it is one of ours, whose layers are known. Raises ModelError for a language model."""
        if isinstance(self.decoder, Decoder):
            return self.decoder
        raise ModelError("a language model as decoder cannot be written for ONNX Runtime; export it without --onnx")

    @property
    def n_places(self) -> int:
        """Return P: places of the memory, of all inputs."""
        return sum(self.encoder(name).n_places for name in self.encoders)

    def encoder(self, input_name: str) -> ImageEncoder:
        """Return the encoder of an input."""
        encoder = self.encoders[input_name]
        assert isinstance(encoder, ImageEncoder)
        return encoder

    def encode(self, *, pixels: Mapping[str, Tensor], features: Mapping[str, Tensor]) -> Tensor | None:
        """Return the (B, P, D) memory; None for the text-only model.

        Args:
            pixels: by input name, (B, C, H, W) uint8: what the input's encoder takes.
            features: by input name, (B, P, C): what its encoder has given already.
        """
        contexts = []
        for name in self.encoders:
            given = features[name] if name in features else self.encoder(name)(pixels[name])
            contexts.append(self.projections[name](given))
        return torch.cat(contexts, dim=1) if contexts else None
