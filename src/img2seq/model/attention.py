"""Attention over the packed captions of a batch.

Tokens are laid out in tables only inside the attention itself. For self-attention several short captions share a row of the
table, each hidden from the others; for cross-attention the rows are images, so that keys and values of an image serve all of
its captions.

Shapes: N tokens, D width, H heads, K = D / H, S rows of a table, T places of a row, P keys of a row.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from img2seq.model.cpu.attention_products import attend_by_products, is_faster
from img2seq.model.packing import PackedBatch
from img2seq.model.tables import heads, spread, tokens


class PackedAttention:
    """Lets each token of a batch attend to its caption and to its image's memory; see `decoder.Attention`.

    Args:
        batch: whose tokens attend.
        n_heads: H.
        memory: keys and values of each layer, (images, H, P, K) each; none for the text-only model.
    """

    def __init__(self, batch: PackedBatch, n_heads: int, memory: list[tuple[Tensor, Tensor]]):
        self.batch, self.n_heads, self.memory = batch, n_heads, memory

    def attend_to_caption(self, layer: int, qkv: Tensor) -> Tensor:
        """Return (N, D) for (N, 3 D): each token attends to its caption up to itself."""
        batch = self.batch
        slots, (S, T), may_see = batch.caption_slots, batch.caption_shape, batch.may_see
        if is_faster(qkv, T * T):
            return attend_by_products(qkv, None, slots, (S, T), self.n_heads, may_see)
        q, k, v = heads(spread(qkv, slots, S * T), (S, T), self.n_heads, 3).unbind()
        return tokens(F.scaled_dot_product_attention(q, k, v, attn_mask=may_see.unsqueeze(1)), slots)

    def attend_to_memory(self, layer: int, q: Tensor) -> Tensor:
        """Return (N, D) for (N, D): each token attends to all of its image's memory."""
        slots, (S, T) = self.batch.image_slots, self.batch.image_shape
        keys, values = self.memory[layer]
        if is_faster(q, T * keys.shape[2]):
            return attend_by_products(q, (keys, values), slots, (S, T), self.n_heads)
        (table,) = heads(spread(q, slots, S * T), (S, T), self.n_heads, 1)
        return tokens(F.scaled_dot_product_attention(table, keys, values), slots)
