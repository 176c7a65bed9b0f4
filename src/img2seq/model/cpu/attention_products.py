"""Attention over short rows as plain matrix products.

Shapes: N tokens, D width, H heads, K = D / H, S rows of a table, T places of a row, P keys of a row.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from img2seq.model.cpu.switch import is_on
from img2seq.model.tables import heads, spread, tokens

MOST_PAIRS = (
    96 * 96
)  # of a row and head, queries times keys: beyond, the tables leave the cache and the fused kernel is faster


def is_faster(packed: Tensor, n_pairs: int) -> bool:
    """Return whether products are the faster way: on a CPU, in full precision, for rows of few queries and keys."""
    if packed.device.type != "cpu" or n_pairs > MOST_PAIRS or torch.compiler.is_compiling():
        return False
    return not torch.is_autocast_enabled("cpu") and is_on("attention_products")


def attend_by_products(
    packed: Tensor,
    memory: tuple[Tensor, Tensor] | None,
    slots: Tensor,
    shape: tuple[int, int],
    n_heads: int,
    may_see: Tensor | None = None,
) -> Tensor:
    """Return what each token gathers, (N, D).

    Args:
        packed: (N, 3 D) queries, keys and values; or with memory (N, D) queries.
        memory: keys and values, (S, H, P, K) each.
        slots: (N,) place of each token in the table.
        shape: (S, T) of the table.
        n_heads: H.
        may_see: (S, T, T) which key each query may see; all where it is None.
    """  # fmt: skip
    gathered: Tensor = _ByProducts.apply(packed, *(memory or (None, None)), slots, shape, n_heads, may_see)
    return gathered


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
        table = spread(packed, slots, shape[0] * shape[1])
        parts = heads(table, shape, n_heads, n_parts).flatten(1, 2)  # (parts, S H, T, K)
        q, k, v = parts if keys is None or values is None else (parts[0], keys.flatten(0, 1), values.flatten(0, 1))
        scores = torch.bmm(q, k.transpose(1, 2)).mul_(q.shape[2] ** -0.5)  # (S H, T, P)
        if may_see is not None:
            scores.view(shape[0], n_heads, *scores.shape[1:]).masked_fill_(~may_see.unsqueeze(1), -torch.inf)
        shares = scores.softmax(2)
        context.save_for_backward(q, k, v, shares, slots)
        context.n_heads, context.n_parts = n_heads, n_parts
        return tokens(torch.bmm(shares, v).view(shape[0], n_heads, shape[1], -1), slots)

    @staticmethod
    @once_differentiable
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, shares, slots = context.saved_tensors
        H, (SH, T, K) = context.n_heads, q.shape
        S = SH // H
        d_gathered = heads(spread(gradients[0], slots, S * T), (S, T), H, 1).reshape(SH, T, K)
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
