"""Attention for decoding one token at a time: what earlier tokens and the images gave is kept, not computed again.

Shapes: B images, W rows of an image (beams or samples), R = B W rows in all, T tokens so far, P places of the memory, D
width, H heads, K = D / H.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from img2seq.model.decoder import Decoder


class DecodingCache:
    """Keys and values of the captions so far (one set a row) and of the memory (one set an image).

    Args:
        decoder: whose layers attend here.
        memory: (B, P, D), or None for the text-only model.
        n_images: B.
        n_rows: W.
        max_tokens: most steps that will be taken.
    """

    def __init__(self, decoder: Decoder, memory: Tensor | None, *, n_images: int, n_rows: int, max_tokens: int):
        self.n_heads, self.n_rows, self.length = decoder.n_heads, n_rows, 0
        self.memory = decoder.memory_keys_values(memory)
        weight = decoder.embedding.weight
        shape = (2, n_images * n_rows, self.n_heads, max_tokens, decoder.width // self.n_heads)
        self.captions = [weight.new_empty(shape) for _ in decoder.blocks]

    def attend_to_caption(self, layer: int, qkv: Tensor) -> Tensor:
        """Return (R, D) for (R, 3 D): the newest token of each row attends to all of its row."""
        R = qkv.shape[0]
        q, k, v = qkv.view(R, 3, self.n_heads, -1).unbind(1)
        kept = self.captions[layer]
        kept[0, :, :, self.length] = k
        kept[1, :, :, self.length] = v
        until = self.length + 1
        return F.scaled_dot_product_attention(q.unsqueeze(2), kept[0, :, :, :until], kept[1, :, :, :until]).reshape(
            R, -1
        )

    def attend_to_memory(self, layer: int, q: Tensor) -> Tensor:
        """Return (R, D) for (R, D): all rows of an image attend to its one memory together."""
        R, D = q.shape
        keys, values = self.memory[layer]
        table = q.view(-1, self.n_rows, self.n_heads, D // self.n_heads).transpose(1, 2)
        return F.scaled_dot_product_attention(table, keys, values).transpose(1, 2).reshape(R, D)

    def keep_rows(self, rows: Tensor) -> None:
        """Let row i go on from what row `rows[i]` has seen so far."""
        until = self.length
        for layer, kept in enumerate(self.captions):
            if len(rows) == kept.shape[1]:  # as many rows as before: only the tokens so far need to move
                kept[:, :, :, :until] = kept[:, :, :, :until].index_select(1, rows)
            else:
                self.captions[layer] = kept.index_select(1, rows)

    def keep_images(self, images: Tensor) -> None:
        """Forget all images but these, with their rows."""
        rows = (images.unsqueeze(1) * self.n_rows + torch.arange(self.n_rows, device=images.device)).flatten()
        self.captions = [kept.index_select(1, rows) for kept in self.captions]
        self.memory = [(keys.index_select(0, images), values.index_select(0, images)) for keys, values in self.memory]
