"""Convolutions where the CPU's own kernels are slow: chosen by shape alone, so that a run repeats to the last bit.

A ResNet spends most of its time in 3 x 3 convolutions. Winograd's filtering (`model/winograd.py`) does them with a quarter of the
multiplications, where there are enough tiles to pay for the transformed kernels. Over maps of a few places, with fewer tiles,
laying the patches out and multiplying once is faster than the kernels, forward and backward. Either way the numbers are the
same up to rounding.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from img2seq.model import winograd

FEWEST_TILES = 32  # of all images: with fewer, transforming the kernel costs more than is saved
FEWEST_CHANNELS = 32  # for Winograd: below, its products are too small
MOST_PLACES = 4  # of an output map whose patches are laid out; from 4 x 4 on the convolution kernels win


class Conv2d(nn.Conv2d):
    """An ungrouped, undilated convolution with zeros around, in the fastest way for the map at hand; torch's own but on a CPU."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, N, h, w) for (B, C, H, W)."""
        if x.device.type != "cpu" or torch.is_autocast_enabled("cpu") or _is_recorded():
            return super().forward(x)
        B, C, H, W = x.shape
        if self.is_3_x_3 and min(C, self.out_channels) >= FEWEST_CHANNELS:
            side = winograd.tile_side(H, W)
            if B * math.ceil(H / side) * math.ceil(W / side) >= FEWEST_TILES:
                y = winograd.convolve(x, self.weight)
                return y if self.bias is None else y + self.bias.view(1, -1, 1, 1)
        pad_y, pad_x = (int(pad) for pad in self.padding)
        h = (H + 2 * pad_y - self.kernel_size[0]) // self.stride[0] + 1
        w = (W + 2 * pad_x - self.kernel_size[1]) // self.stride[1] + 1
        return self._by_patches(x) if 0 < h * w <= MOST_PLACES else super().forward(x)

    @property
    def is_3_x_3(self) -> bool:
        return (self.kernel_size, self.stride, self.padding) == ((3, 3), (1, 1), (1, 1))

    def _by_patches(self, x: Tensor) -> Tensor:
        (kernel_y, kernel_x), (stride_y, stride_x) = self.kernel_size, self.stride
        pad_y, pad_x = (int(pad) for pad in self.padding)
        places = x.permute(0, 2, 3, 1)  # channels last: a place's channels are neighbours in memory
        if pad_y or pad_x:
            places = F.pad(places, (0, 0, pad_x, pad_x, pad_y, pad_y))
        last_y = (places.shape[1] - kernel_y) // stride_y * stride_y
        last_x = (places.shape[2] - kernel_x) // stride_x * stride_x
        taps = [
            places[:, y : y + last_y + 1 : stride_y, x0 : x0 + last_x + 1 : stride_x]
            for y in range(kernel_y)
            for x0 in range(kernel_x)
        ]
        patches = torch.cat(taps, dim=3)  # (B, h, w, kernel_y * kernel_x * C)
        weight = self.weight.permute(0, 2, 3, 1).flatten(1)  # no copy where weights are channels last
        return F.linear(patches, weight, self.bias).permute(0, 3, 1, 2)


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
