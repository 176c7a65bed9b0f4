"""What turns images into the prefix of a language model (ClipCap, Mokady 2021, https://arxiv.org/abs/2111.09734).

Shapes: B images, P places of the memory, L vectors of the prefix, E width of the language model's embeddings.

Both kinds end with a normalisation that has the deviation of the language model's own embeddings, dimension by dimension, and begins with their mean, so
that its first prefix is among the vectors that it knows; ClipCap has none. The mean is most of it: those of SmolLM2 are 3.2 long, their mean 2.2, and a
prefix without it lets the loss rise for a quarter of a short training. The deviation is not trained: what an image adds is noise at first, and a
training that may shrink it leaves one prefix for all images.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class MlpMapping(nn.Module):
    """Two layers over the mean of an image's context vectors; (B, P, E) to (B, L, E)."""

    def __init__(self, width: int, length: int, dropout: float):
        super().__init__()
        self.length, hidden = length, width * length // 2
        self.layers = nn.Sequential(
            nn.Linear(width, hidden), nn.Tanh(), nn.Dropout(dropout), nn.Linear(hidden, width * length)
        )

    def forward(self, memory: Tensor) -> Tensor:
        """Return the prefix of each image."""
        prefix: Tensor = self.layers(memory.mean(1))
        return prefix.view(len(memory), self.length, -1)


class TransformerMapping(nn.Module):
    """Learned queries that attend to an image's context vectors and to each other; (B, P, E) to (B, L, E)."""

    def __init__(self, width: int, length: int, n_layers: int, dropout: float):
        super().__init__()
        self.queries = nn.Parameter(0.02 * torch.randn(length, width))
        n_heads = next(n for n in (8, 4, 2, 1) if width % n == 0)
        layer = nn.TransformerEncoderLayer(
            width, n_heads, 2 * width, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, n_layers, enable_nested_tensor=False)

    def forward(self, memory: Tensor) -> Tensor:
        """Return the prefix of each image."""
        queries = self.queries.expand(len(memory), -1, -1)
        prefix: Tensor = self.layers(torch.cat([memory, queries], 1))[:, -len(self.queries) :]
        return prefix


class Mapping(nn.Module):
    """A mapping whose prefix has the deviation of the language model's embeddings, and begins with their mean."""

    def __init__(self, inner: MlpMapping | TransformerMapping, embeddings: Tensor):
        super().__init__()
        self.inner = inner
        self.norm = nn.LayerNorm(embeddings.shape[1])
        with torch.no_grad():
            self.norm.weight.copy_(embeddings.std(0))
            self.norm.bias.copy_(embeddings.mean(0))
        self.norm.weight.requires_grad_(False)

    def forward(self, memory: Tensor) -> Tensor:
        """Return (B, L, E) for (B, P, E)."""
        prefix: Tensor = self.norm(self.inner(memory))
        return prefix
