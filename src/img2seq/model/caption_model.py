"""The whole model: encoders, the memory they fill, and the decoder that reads it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from img2seq.data.batch import Batch
from img2seq.model.attention import PackedAttention
from img2seq.model.decoder import Decoder
from img2seq.model.encoder import ContextProjection, ImageEncoder


class CaptionModel(nn.Module):
    """Captions given images; without encoders, a plain language model of captions.

    Args:
        encoders: by input name, in the order of the memory.
        decoder: with memory if and only if there are encoders.
        context_dropout: on the context vectors.
    """

    def __init__(self, encoders: dict[str, ImageEncoder], decoder: Decoder, *, context_dropout: float = 0.0):
        super().__init__()
        self.encoders = nn.ModuleDict(encoders)
        self.projections = nn.ModuleDict(
            {
                name: ContextProjection(e.n_places, e.n_features, decoder.width, context_dropout)
                for name, e in encoders.items()
            }
        )
        self.decoder = decoder

    @property
    def device(self) -> torch.device:
        return self.decoder.bias.device

    def encode(self, images: dict[str, Tensor]) -> Tensor | None:
        """Return the (B, P, D) memory of each input's (B, C, H, W) pixels or (B, P, C) features; None without inputs."""
        contexts = []
        for name, encoder in self.encoders.items():
            features = encoder(images[name]) if images[name].dtype == torch.uint8 else images[name]
            contexts.append(self.projections[name](features))
        return torch.cat(contexts, dim=1) if contexts else None

    def forward(self, batch: Batch) -> Tensor:
        """Return (N, V) logits of the token after each input token."""
        return self.decoder.logits(self._outputs(batch))

    def _outputs(self, batch: Batch) -> Tensor:
        memory = self.decoder.memory_keys_values(self.encode(batch.images))
        attention = PackedAttention(batch, self.decoder.n_heads, memory)
        outputs: Tensor = self.decoder(batch.input_ids, batch.positions, attention)
        return outputs

    def loss_sum(self, batch: Batch, *, label_smoothing: float = 0.0) -> Tensor:
        """Return the sum over all target tokens of their negative log-probability, in nats."""
        return F.cross_entropy(self(batch).float(), batch.target_ids, reduction="sum", label_smoothing=label_smoothing)

    def losses(self, batch: Batch) -> Tensor:
        """Return (N,) negative log-probabilities of the target tokens, in nats."""
        return F.cross_entropy(self(batch).float(), batch.target_ids, reduction="none")
