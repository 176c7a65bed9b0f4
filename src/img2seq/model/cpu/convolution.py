"""Convolutions where the CPU's own kernels are slow: chosen by shape alone, so that a run repeats to the last bit.

A ResNet spends most of its time in 3 x 3 convolutions. Winograd's filtering (`model/cpu/winograd.py`) does them with a quarter of the
multiplications, where there are enough tiles to pay for the transformed kernels. Onto maps of a few places, one matrix product
for each tap of the kernel is faster: most taps of a 3 x 3 kernel lie beside a 2 x 2 map, and what lies there is left out. Either
way the numbers are the same up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from img2seq.model.cpu import winograd
from img2seq.model.cpu.switch import is_on

FEWEST_TILES = 12  # of all images: with fewer, transforming the kernel costs more than is saved
FEWEST_CHANNELS = 32  # for Winograd: below, its products are too small
MOST_PLACES = 4  # of an output map that is computed tap by tap
MOST_TAPS = 9  # of a kernel that is taken apart: a large one, such as a patch's, is one large product already
EXACT = (
    torch.float32,
    torch.float64,
)  # in which rounding stays what it is; transformed half precision would lose too much


class Conv2d(nn.Conv2d):
    """An ungrouped, undilated convolution with zeros around, in the fastest way for the map at hand; torch's own but on a CPU."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, N, h, w) for (B, C, H, W)."""
        if x.device.type != "cpu" or x.dtype not in EXACT or torch.is_autocast_enabled("cpu") or _is_recorded():
            return super().forward(x)
        B, _, H, W = x.shape
        (pad_y, pad_x), (stride_y, stride_x) = (int(pad) for pad in self.padding), self.stride
        h = (H + 2 * pad_y - self.kernel_size[0]) // stride_y + 1
        w = (W + 2 * pad_x - self.kernel_size[1]) // stride_x + 1
        if 0 < h * w <= MOST_PLACES and self.weight[0, 0].numel() <= MOST_TAPS and is_on("taps"):
            y: Tensor = _ByTaps.apply(x, self.weight, self.stride, (pad_y, pad_x), (h, w))
        elif self._is_for_winograd and B * math.ceil(H / winograd.TILE) * math.ceil(W / winograd.TILE) >= FEWEST_TILES:
            y = winograd.convolve(x, self.weight)
        else:
            return super().forward(x)
        return y if self.bias is None else y + self.bias.view(1, -1, 1, 1)

    @property
    def _is_for_winograd(self) -> bool:
        is_3_x_3 = (self.kernel_size, self.stride, self.padding) == ((3, 3), (1, 1), (1, 1))
        return is_3_x_3 and min(self.in_channels, self.out_channels) >= FEWEST_CHANNELS and is_on("winograd")


class _ByTaps(torch.autograd.Function):
    """A convolution as one matrix product for each tap, of those places of the map that the tap meets.

    Shapes: B images, C channels in, N channels out, H x W places of the map, h x w of the output. Maps are kept with places first,
    (H, W, B, C).
    """

    @staticmethod
    def forward(
        context: Any, x: Tensor, weight: Tensor, stride: tuple[int, int], pad: tuple[int, int], size: tuple[int, int]
    ) -> Tensor:
        """Return (B, N, h, w) for (B, C, H, W)."""
        taps = _taps(x.shape[2:], size, weight.shape[2:], stride, pad)
        places, kernel = x.permute(2, 3, 0, 1).contiguous(), weight.permute(0, 2, 3, 1)
        y = x.new_zeros(*size, x.shape[0], weight.shape[0])
        for tap, read, write in taps:
            y[write] += (places[read].flatten(0, 2) @ kernel[:, *tap].T).view_as(y[write])
        context.save_for_backward(places, weight)
        context.taps = taps
        return y.permute(2, 3, 0, 1).contiguous(memory_format=torch.channels_last)

    @staticmethod
    @once_differentiable
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        places, weight = context.saved_tensors
        kernel = weight.permute(0, 2, 3, 1)
        dy = gradients[0].permute(2, 3, 0, 1).contiguous()
        dx, d_kernel = torch.zeros_like(places), torch.empty_like(kernel, memory_format=torch.contiguous_format)
        if len(context.taps) < kernel.shape[1] * kernel.shape[2]:
            d_kernel.zero_()  # of taps that lie beside the map wherever the kernel stands
        for tap, read, write in context.taps:
            at_tap = dy[write].flatten(0, 2)
            torch.mm(at_tap.T, places[read].flatten(0, 2), out=d_kernel[:, *tap])
            dx[read] += (at_tap @ kernel[:, *tap]).view_as(dx[read])
        d_x = dx.permute(2, 3, 0, 1).contiguous(memory_format=torch.channels_last)
        return d_x, d_kernel.permute(0, 3, 1, 2), None, None, None


_Tap = tuple[tuple[int, int], tuple[slice, slice], tuple[slice, slice]]


@lru_cache(maxsize=64)
def _taps(
    size: tuple[int, int], out_size: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int], pad: tuple[int, int]
) -> list[_Tap]:  # fmt: skip
    """Return each tap that meets the map, with the places it reads and those it writes."""

    def along(axis: int) -> Iterator[tuple[int, slice, slice]]:
        step = stride[axis]
        for tap in range(kernel[axis]):
            ahead = tap - pad[axis]  # of the first place written, in places of the map
            first = max(0, math.ceil(-ahead / step))
            last = min(out_size[axis] - 1, (size[axis] - 1 - ahead) // step)
            if first <= last:
                yield tap, slice(first * step + ahead, last * step + ahead + 1, step), slice(first, last + 1)

    return [
        ((y, x), (read_y, read_x), (write_y, write_x))
        for y, read_y, write_y in along(0)
        for x, read_x, write_x in along(1)
    ]


def _is_recorded() -> bool:
    """Return whether the model is being compiled or exported: its convolutions are to be seen as such."""
    return torch.compiler.is_compiling() or bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]


def replace_convolutions(model: nn.Module) -> list[str]:
    """Let every convolution that can be a `Conv2d` of this module be one; return their names.

    The model is changed in place; parameters and their names stay as they are.
    """
    names = [
        name
        for name, module in model.named_modules()
        if type(module) is nn.Conv2d and module.groups == 1 and module.dilation == (1, 1)
        if module.padding_mode == "zeros" and not isinstance(module.padding, str)
    ]
    for name in names:
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, _replaced(model.get_submodule(name)))
    return names


def _replaced(conv: nn.Module) -> Conv2d:
    """Return the same convolution, with the same parameters."""
    assert isinstance(conv, nn.Conv2d)
    shape: dict[str, Any] = {"kernel_size": conv.kernel_size, "stride": conv.stride, "padding": conv.padding}
    with torch.device("meta"):  # parameters are replaced at once
        changed = Conv2d(conv.in_channels, conv.out_channels, bias=conv.bias is not None, **shape)
    changed.weight, changed.bias = conv.weight, conv.bias
    return changed.train(conv.training)
