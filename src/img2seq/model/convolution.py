"""Convolutions over maps of a few places, as one matrix product.

A ResNet at 64 pixels ends in maps of 2 x 2 places. There the CPU's convolution kernels are far from what they reach on larger
maps. Laying the patches out and multiplying once is faster, forward and backward, and the numbers are the same up to the order
of summation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MOST_PLACES = 4  # of the output map; from 4 x 4 on the convolution kernels win


class SmallMapConv2d(nn.Conv2d):
    """An ungrouped, undilated convolution that is a matrix product on a CPU; elsewhere the ordinary one."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, O, h, w) for (B, C, H, W)."""
        if x.device.type != "cpu":
            return super().forward(x)
        (kernel_y, kernel_x), (stride_y, stride_x) = self.kernel_size, self.stride
        pad_y, pad_x = (int(pad) for pad in self.padding)  # `replace_small_maps` takes numbers only
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


def replace_small_maps(model: nn.Module, run: Callable[[], object]) -> list[str]:
    """Let convolutions with an output of at most MOST_PLACES be `SmallMapConv2d`; return their names.

    Args:
        model: changed in place; parameters and their names stay as they are.
        run: takes an image of the working size through the model, to see the maps.
    """
    places: dict[nn.Module, int] = {}
    hooks = [
        module.register_forward_hook(lambda m, _, out: places.__setitem__(m, out.shape[2] * out.shape[3]))
        for module in model.modules()
        if type(module) is nn.Conv2d and module.groups == 1 and module.dilation == (1, 1)
        if module.padding_mode == "zeros" and not isinstance(module.padding, str)
    ]
    run()
    for hook in hooks:
        hook.remove()
    small = [name for name, module in model.named_modules() if places.get(module, MOST_PLACES + 1) <= MOST_PLACES]
    for name in small:
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, _as_small_map(model.get_submodule(name)))
    return small


def _as_small_map(conv: nn.Module) -> SmallMapConv2d:
    """Return the same convolution, with the same parameters."""
    assert isinstance(conv, nn.Conv2d)
    shape: dict[str, Any] = {"kernel_size": conv.kernel_size, "stride": conv.stride, "padding": conv.padding}
    with torch.device("meta"):  # parameters are replaced at once
        changed = SmallMapConv2d(conv.in_channels, conv.out_channels, bias=conv.bias is not None, **shape)
    changed.weight, changed.bias = conv.weight, conv.bias
    return changed.train(conv.training)
