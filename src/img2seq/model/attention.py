"""Attention over the packed captions of a batch.

Tokens are laid out in tables only inside the attention itself. For self-attention several short captions share a row of the
table, each hidden from the others; for cross-attention the rows are images, so that keys and values of an image serve all of
its captions.

Shapes: N tokens, D width, H heads, K = D / H, S rows of a table, T places of a row, P keys of a row.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from img2seq.model.packing import PackedBatch

MOST_PAIRS = 96 * 96  # of a row and head, queries times keys, that plain products compute


class PackedAttention:
    """Lets each token of a batch attend to its caption and to its image's memory; see `decoder.Attention`.

    Args:
        batch: whose tokens attend.
        n_heads: H.
        memory: keys and values of each layer, (images, H, P, K) each; none for the text-only model.
    """

    def __init__(self, batch: PackedBatch, n_heads: int, memory: list[tuple[Tensor, Tensor]]):
        self.batch, self.n_heads, self.memory = batch, n_heads, memory

    def by_products(self, n_pairs: int) -> bool:
        """Return whether `_ByProducts` computes: on a CPU, in full precision, while its tables stay in a cache."""
        if self.batch.input_ids.device.type != "cpu" or n_pairs > MOST_PAIRS:
            return False
        return not torch.is_autocast_enabled("cpu") and not torch.compiler.is_compiling()

    def attend_to_caption(self, layer: int, qkv: Tensor) -> Tensor:
        """Return (N, D) for (N, 3 D): each token attends to its caption up to itself."""
        batch = self.batch
        slots, (S, T), may_see = batch.caption_slots, batch.caption_shape, batch.may_see
        if self.by_products(T * T):
            gathered: Tensor = _ByProducts.apply(qkv, None, None, slots, (S, T), self.n_heads, may_see)
            return gathered
        q, k, v = _heads(_spread(qkv, slots, S * T), (S, T), self.n_heads, 3).unbind()
        return _tokens(F.scaled_dot_product_attention(q, k, v, attn_mask=may_see.unsqueeze(1)), slots)

    def attend_to_memory(self, layer: int, q: Tensor) -> Tensor:
        """Return (N, D) for (N, D): each token attends to all of its image's memory."""
        slots, (S, T) = self.batch.image_slots, self.batch.image_shape
        keys, values = self.memory[layer]
        if self.by_products(T * keys.shape[2]):
            gathered: Tensor = _ByProducts.apply(q, keys, values, slots, (S, T), self.n_heads, None)
            return gathered
        (table,) = _heads(_spread(q, slots, S * T), (S, T), self.n_heads, 1)
        return _tokens(F.scaled_dot_product_attention(table, keys, values), slots)


class _ByProducts(torch.autograd.Function):
    """Attention as two matrix products around a softmax, from packed tokens to packed tokens.

    It gives what `scaled_dot_product_attention` gives, and for rows of some dozens of tokens on a CPU it is faster: that kernel is
    made for long rows, where it is the faster, and around it autograd would copy each table once more.
    """

    @staticmethod
    def forward(
        context: Any, packed: Tensor, keys: Tensor | None, values: Tensor | None, slots: Tensor, shape: tuple[int, int],
        n_heads: int, may_see: Tensor | None,
    ) -> Tensor:  # fmt: skip
        """Return (N, D) for (N, 3 D) queries, keys and values; or for (N, D) queries and (S, H, P, K) keys and values."""
        n_parts = 1 if keys is not None else 3
        table = _spread(packed, slots, shape[0] * shape[1])
        parts = _heads(table, shape, n_heads, n_parts).flatten(1, 2)  # (parts, S H, T, K)
        q, k, v = parts if keys is None or values is None else (parts[0], keys.flatten(0, 1), values.flatten(0, 1))
        scores = torch.bmm(q, k.transpose(1, 2)).mul_(q.shape[2] ** -0.5)  # (S H, T, P)
        if may_see is not None:
            scores.view(shape[0], n_heads, *scores.shape[1:]).masked_fill_(~may_see.unsqueeze(1), -torch.inf)
        shares = scores.softmax(2)
        context.save_for_backward(q, k, v, shares, slots)
        context.n_heads, context.n_parts = n_heads, n_parts
        return _tokens(torch.bmm(shares, v).view(shape[0], n_heads, shape[1], -1), slots)

    @staticmethod
    @once_differentiable
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, shares, slots = context.saved_tensors
        H, (SH, T, K) = context.n_heads, q.shape
        S = SH // H
        d_gathered = _heads(_spread(gradients[0], slots, S * T), (S, T), H, 1).reshape(SH, T, K)
        d_shares = torch.bmm(d_gathered, v.transpose(1, 2))
        d_scores = d_shares.sub_((d_shares * shares).sum(2, keepdim=True)).mul_(shares).mul_(K**-0.5)
        d_parts = q.new_empty(context.n_parts, SH, T, K)
        torch.bmm(d_scores, k, out=d_parts[0])
        if context.n_parts == 3:
            torch.bmm(d_scores.transpose(1, 2), q, out=d_parts[1])
            torch.bmm(shares.transpose(1, 2), d_gathered, out=d_parts[2])
            d_keys = d_values = None
        else:
            d_keys = torch.bmm(d_scores.transpose(1, 2), q).view(S, H, -1, K)
            d_values = torch.bmm(shares.transpose(1, 2), d_gathered).view(S, H, -1, K)
        d_table = d_parts.view(-1, S, H, T, K).permute(1, 3, 0, 2, 4).reshape(S * T, -1)
        return d_table.index_select(0, slots), d_keys, d_values, None, None, None, None


def _spread(packed: Tensor, slots: Tensor, n_slots: int) -> Tensor:
    """Return the rows of packed tokens at their slots of a table of zeros."""
    return packed.new_zeros(n_slots, packed.shape[1]).index_copy_(0, slots, packed)


def _heads(table: Tensor, shape: tuple[int, int], n_heads: int, n_parts: int) -> Tensor:
    """Return (parts, S, H, T, K) of a (S T, parts D) table."""
    return table.view(*shape, n_parts, n_heads, -1).permute(2, 0, 3, 1, 4)


def _tokens(gathered: Tensor, slots: Tensor) -> Tensor:
    """Return (N, D) packed tokens of a (S, H, T, K) table."""
    S, H, T, K = gathered.shape
    rows: Tensor = _Gather.apply(gathered.transpose(1, 2).reshape(S * T, H * K), slots)
    return rows


class _Gather(torch.autograd.Function):
    """The rows of a table at some slots, no slot twice: what `_spread` undoes.

    `index_select` itself does not know that slots differ, and adds gradients up one by one.
    """

    @staticmethod
    def forward(context: Any, table: Tensor, slots: Tensor) -> Tensor:
        context.save_for_backward(slots)
        context.n_slots = len(table)
        return table.index_select(0, slots)

    @staticmethod
    @once_differentiable
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (slots,) = context.saved_tensors
        return _spread(gradients[0], slots, context.n_slots), None
