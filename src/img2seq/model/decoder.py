"""A causal transformer decoder (Vaswani 2017) over the caption so far and the images' context vectors.

Pre-norm blocks, GELU, output weights tied to the token embedding. What a token may attend to is not the block's business:
it hands its queries, keys and values to an `Attention`, which is `attention.PackedAttention` in training (all tokens of a batch
at once, without padding in any matrix product) and the step-by-step cache of `generation/key_values.py` in decoding.

Shapes: B images, N tokens, S captions, T tokens of a caption, Q tokens of an image, P places of the memory, D width,
H heads, K = D / H, V vocabulary.
"""

from __future__ import annotations

import math
from typing import Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from img2seq.model.cpu.switch import is_on


class Attention(Protocol):
    """Let tokens attend to their caption so far, and to the memory of their image."""

    def attend_to_caption(self, layer: int, qkv: Tensor) -> Tensor:
        """Return what each token gathers from its caption: (N, 3 D) queries, keys, values to (N, D)."""

    def attend_to_memory(self, layer: int, q: Tensor) -> Tensor:
        """Return what each token gathers from its image's memory: (N, D) queries to (N, D)."""


class Block(nn.Module):
    """One decoder layer; without memory it has no cross-attention."""

    def __init__(self, width: int, n_heads: int, feedforward: int, dropout: float, has_memory: bool):
        super().__init__()
        self.self_norm = nn.LayerNorm(width)
        self.self_qkv = nn.Linear(width, 3 * width)
        self.self_out = nn.Linear(width, width)
        self.has_memory = has_memory
        if has_memory:
            self.memory_norm = nn.LayerNorm(width)
            self.memory_q = nn.Linear(width, width)
            self.memory_kv = nn.Linear(width, 2 * width)
            self.memory_out = nn.Linear(width, width)
        self.feedforward_norm = nn.LayerNorm(width)
        self.feedforward_in = nn.Linear(width, feedforward)
        self.feedforward_out = nn.Linear(feedforward, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, layer: int, attention: Attention) -> Tensor:
        """Return (N, D) tokens after this layer."""
        gathered = attention.attend_to_caption(layer, self.self_qkv(self.self_norm(x)))
        x = x + self.dropout(self.self_out(gathered))
        if self.has_memory:
            gathered = attention.attend_to_memory(layer, self.memory_q(self.memory_norm(x)))
            x = x + self.dropout(self.memory_out(gathered))
        hidden = F.gelu(self.feedforward_in(self.feedforward_norm(x)))
        result: Tensor = x + self.dropout(self.feedforward_out(hidden))
        return result


class Decoder(nn.Module):
    """Tokens and memory to logits.

    Args:
        vocabulary: V.
        width: D.
        n_layers: blocks.
        n_heads: H.
        feedforward: width of the feed-forward layers.
        dropout: after attention and feed-forward layers.
        position_dropout: after positions are added.
        position: sine and cosine positions, or learned ones.
        n_positions: most tokens of a caption, <bos> included.
        has_memory: whether there is any image input.
    """

    def __init__(
        self,
        *,
        vocabulary: int,
        width: int,
        n_layers: int,
        n_heads: int,
        feedforward: int,
        dropout: float,
        position_dropout: float,
        position: Literal["encode", "embed"],
        n_positions: int,
        has_memory: bool,
    ):
        super().__init__()
        self.width, self.n_heads, self.n_positions = width, n_heads, n_positions
        self.embedding = nn.Embedding(vocabulary, width)
        if position == "embed":
            self.position = nn.Parameter(0.02 * torch.randn(n_positions, width))
        else:
            self.register_buffer("position", sinusoids(n_positions, width), persistent=False)
        self.position_dropout = nn.Dropout(position_dropout)
        self.blocks = nn.ModuleList(Block(width, n_heads, feedforward, dropout, has_memory) for _ in range(n_layers))
        self.norm = nn.LayerNorm(width)
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        self._initialise(n_layers)

    def _initialise(self, n_layers: int) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for block in self.blocks:  # GPT-2: the residual stream should not grow with depth
            assert isinstance(block, Block)
            outputs = [block.self_out, block.feedforward_out, *([block.memory_out] if block.has_memory else [])]
            for linear in outputs:
                linear.weight.data /= math.sqrt(2 * n_layers)
        nn.init.normal_(self.embedding.weight, std=self.width**-0.5)

    def lay_out_for_decoding(self) -> None:
        """Keep the linear layers' weights by input in place of by output: the same numbers, read faster for few rows.

        Sums are taken in another order, so results differ by rounding.
        """
        if not is_on("decoding_layout"):
            return
        for module in self.modules():
            if isinstance(module, nn.Linear):
                module.weight.data = module.weight.data.t().contiguous().t()

    def memory_keys_values(self, memory: Tensor | None) -> list[tuple[Tensor, Tensor]]:
        """Return each layer's keys and values of the memory, (B, H, P, K) each; (B, P, D) memory."""
        if memory is None:
            return []
        B, P, D = memory.shape
        pairs = []
        for block in self.blocks:
            assert isinstance(block, Block)
            kv = block.memory_kv(memory).view(B, P, 2, self.n_heads, D // self.n_heads).permute(2, 0, 3, 1, 4)
            keys, values = kv.unbind()
            pairs.append((keys, values))
        return pairs

    def memory_by_layer(self, memory: Tensor) -> dict[str, NDArray[np.float32]]:
        """Return what `onnx_decoder.decoder_graph` reads of a (B, P, D) memory: each layer's keys and values, (B, D, P) each."""
        kinds = ("key", "value")
        return {
            f"memory.{n}.{kind}": values.transpose(2, 3).flatten(1, 2).contiguous().numpy()
            for n, pair in enumerate(self.memory_keys_values(memory))
            for kind, values in zip(kinds, pair, strict=True)
        }

    def forward(self, token_ids: Tensor, positions: Tensor, attention: Attention) -> Tensor:
        """Return (N, D) outputs for (N,) tokens at (N,) positions; `logits` turns them into scores."""
        x = self.embedding(token_ids) * math.sqrt(self.width) + self.position[positions]
        x = self.position_dropout(x)
        for layer, block in enumerate(self.blocks):
            x = block(x, layer, attention)
        outputs: Tensor = self.norm(x)
        return outputs

    def logits(self, outputs: Tensor) -> Tensor:
        """Return (N, V) logits of (N, D) outputs."""
        return F.linear(outputs, self.embedding.weight, self.bias)


def sinusoids(n_positions: int, width: int) -> Tensor:
    """Return (n_positions, width) sine and cosine positions (Vaswani 2017, section 3.5)."""
    position = torch.arange(n_positions).unsqueeze(1)
    frequency = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    table = torch.zeros(n_positions, width)
    table[:, 0::2] = torch.sin(position * frequency)
    table[:, 1::2] = torch.cos(position * frequency)
    return table
