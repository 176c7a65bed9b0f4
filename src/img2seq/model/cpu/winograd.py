"""3 x 3 convolutions by Winograd's minimal filtering (Lavin and Gray 2016, arXiv:1509.09308): fewer products than taps.

A tile of m x m outputs, m = 4, needs a x a inputs, a = m + 2. Both sides are transformed so that the convolution becomes a x a
products of matrices over channels: a quarter of the multiplications. The transforms are matrix products too, along one axis at a
time, over one row of tiles at a time so that what they make stays in the cache. The numbers are those of the convolution up to
rounding, 1e-5 of the largest.

Shapes: B images, C channels in, N channels out, H x W places of the map, a numbers along a side of a transformed tile, n tiles
in a row of tiles, M = n B. Maps are kept with places first, (H, W, B C), so that each transform is one product.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

TILE = 4  # m
# How a tile's inputs, a kernel and a tile's products are transformed along one axis: the paper's B', G and A' for F(4, 3).
_INPUTS = [
    [4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1],
]  # fmt: skip
_KERNEL = [
    [1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6],
    [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1],
]  # fmt: skip
_OUTPUTS = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]


def convolve(x: Tensor, weight: Tensor) -> Tensor:
    """Return (B, N, H, W) for (B, C, H, W) and a (N, C, 3, 3) weight: stride 1, zeros around. On a CPU only."""
    result: Tensor = _Winograd.apply(x, weight)
    return result


@dataclass(frozen=True)
class _RowOfTiles:
    """Which rows of the map a row of tiles reads and writes, and how they are transformed: (a, rows) and (rows, a)."""

    read: slice
    write: slice
    into: Tensor
    out_of: Tensor


@dataclass(frozen=True)
class _Tiling:
    """The tiles of a map: their rows; (a n, W) and (W, a n) transforms along a row; the kernel's, (a a, 9)."""

    rows: list[_RowOfTiles]
    into: Tensor
    out_of: Tensor
    kernel: Tensor
    a: int


@lru_cache(maxsize=64)
def _tiling(height: int, width: int, dtype: torch.dtype) -> _Tiling:
    inputs, kernel, outputs = (torch.tensor(m, dtype=torch.float64) for m in (_INPUTS, _KERNEL, _OUTPUTS))
    m, a = outputs.shape

    def along(n: int) -> tuple[Tensor, Tensor]:
        """Return (tiles, a, n) and (n, tiles, a): each tile's share of an axis of n places, zeros around it cut away."""
        tiles = -(-n // m)
        into, out_of = torch.zeros(tiles, a, tiles * m + 2).double(), torch.zeros(tiles * m, tiles, a).double()
        for tile in range(tiles):
            into[tile, :, tile * m : tile * m + a] = inputs
            out_of[tile * m : tile * m + m, tile] = outputs
        return into[:, :, 1 : n + 1].to(dtype), out_of[:n].to(dtype)

    into_y, out_of_y = along(height)
    rows = []
    for tile in range(len(into_y)):
        read = slice(max(0, tile * m - 1), min(height, tile * m + m + 1))
        write = slice(tile * m, min(height, tile * m + m))
        rows.append(_RowOfTiles(read, write, into_y[tile, :, read].contiguous(), out_of_y[write, tile].contiguous()))
    into_x, out_of_x = along(width)
    return _Tiling(
        rows,
        into_x.transpose(0, 1).reshape(-1, width),
        out_of_x.transpose(1, 2).reshape(width, -1),
        torch.kron(kernel, kernel).to(dtype),
        a,
    )


class _Winograd(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor, weight: Tensor) -> Tensor:
        B, _C, H, W = x.shape
        tiling = _tiling(H, W, x.dtype)
        kernel = _transformed(weight, tiling)  # (N, a a, C)
        context.save_for_backward(x, kernel)
        y = x.new_empty(H, W, B * len(weight))
        for row, tiles in _tiles(x, tiling):
            products = torch.bmm(tiles, kernel.permute(1, 2, 0))  # (a a, M, N)
            half = tiling.out_of @ products.view(tiling.a, len(tiling.into), -1)  # (a, W, B N)
            torch.mm(row.out_of, half.view(tiling.a, -1), out=y[row.write].flatten(1))
        return _images_first(y, B)

    @staticmethod
    @once_differentiable
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, kernel = context.saved_tensors
        B, C, H, W = x.shape
        N = len(kernel)
        needs_x, needs_weight = context.needs_input_grad
        tiling = _tiling(H, W, x.dtype)
        a = tiling.a
        dy = _places_first(gradients[0])
        dx = dy.new_zeros(H, W, B * C) if needs_x else None
        d_kernel: Tensor | None = None
        for row, tiles in _tiles(x, tiling):
            half = (row.out_of.T @ dy[row.write].flatten(1)).view(a, W, -1)
            d_products = (tiling.out_of.T @ half).view(a * a, -1, N)
            if needs_weight and d_kernel is None:
                d_kernel = torch.bmm(d_products.transpose(1, 2), tiles)  # (a a, N, C)
            elif d_kernel is not None:
                d_kernel.baddbmm_(d_products.transpose(1, 2), tiles)
            if dx is not None:
                d_tiles = torch.bmm(d_products, kernel.transpose(0, 1)).view(a, len(tiling.into), -1)
                dx[row.read].flatten(1).addmm_(row.into.T, (tiling.into.T @ d_tiles).view(a, -1))
        d_weight = None
        if d_kernel is not None:  # kept channels last, as weights are: (N, 9, C)
            d_weight = (tiling.kernel.T @ d_kernel.transpose(0, 1)).view(N, 3, 3, C).permute(0, 3, 1, 2)
        return _images_first(dx, B) if dx is not None else None, d_weight


def _transformed(weight: Tensor, tiling: _Tiling) -> Tensor:
    """Return (N, a a, C) for a (N, C, 3, 3) weight."""
    N, C = weight.shape[:2]
    return tiling.kernel @ weight.permute(0, 2, 3, 1).reshape(N, 9, C)


def _tiles(x: Tensor, tiling: _Tiling) -> Iterator[tuple[_RowOfTiles, Tensor]]:
    """Yield each row of tiles with its transformed inputs, (a a, M, C)."""
    C, W = x.shape[1], x.shape[3]
    places = _places_first(x)
    for row in tiling.rows:
        half = (row.into @ places[row.read].flatten(1)).view(tiling.a, W, -1)
        yield row, (tiling.into @ half).view(tiling.a**2, -1, C)


def _places_first(x: Tensor) -> Tensor:
    """Return (H, W, B C) for (B, C, H, W)."""
    return x.permute(2, 3, 0, 1).flatten(2).contiguous()


def _images_first(x: Tensor, B: int) -> Tensor:
    """Return (B, C, H, W), channels last in memory, for (H, W, B C)."""
    H, W, _ = x.shape
    return x.view(H, W, B, -1).permute(2, 3, 0, 1).contiguous(memory_format=torch.channels_last)
