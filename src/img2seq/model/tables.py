"""Packed tokens laid out in tables, and back.

Shapes: N tokens, D width, H heads, K = D / H, S rows of a table, T places of a row.
"""

from __future__ import annotations

from torch import Tensor


def spread(packed: Tensor, slots: Tensor, n_slots: int) -> Tensor:
    """Return the rows of packed tokens at their slots of a table of zeros."""
    return packed.new_zeros(n_slots, packed.shape[1]).index_copy_(0, slots, packed)


def heads(table: Tensor, shape: tuple[int, int], n_heads: int, n_parts: int) -> Tensor:
    """Return (parts, S, H, T, K) of a (S T, parts D) table."""
    return table.view(*shape, n_parts, n_heads, -1).permute(2, 0, 3, 1, 4)


def tokens(gathered: Tensor, slots: Tensor) -> Tensor:
    """Return (N, D) packed tokens of a (S, H, T, K) table."""
    S, H, T, K = gathered.shape
    return gathered.transpose(1, 2).reshape(S * T, H * K).index_select(0, slots)
