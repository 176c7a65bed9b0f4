"""The fast convolution over small maps equals the ordinary one, in values and in all gradients."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import nn

from img2seq.model.convolution import SmallMapConv2d, replace_small_maps


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("size", "kernel", "stride", "padding"), [
    ((2, 2), 3, 1, 1), ((4, 4), 3, 2, 1), ((4, 4), 1, 2, 0), ((4, 3), 3, 2, 1), ((7, 5), (5, 3), (3, 2), (1, 0)), ((1, 1), 1, 1, 0),
])  # fmt: skip
def test_small_map_equals_convolution(
    size: tuple[int, int], kernel: int | tuple[int, int], stride: int | tuple[int, int], padding: int | tuple[int, int], bias: bool
) -> None:  # fmt: skip
    torch.manual_seed(0)
    plain = nn.Conv2d(6, 10, kernel, stride, padding, bias=bias).double().to(memory_format=torch.channels_last)
    model = nn.Sequential(plain)
    x = torch.randn(3, 6, *size, dtype=torch.float64).requires_grad_()
    wanted = plain(x)
    wanted.square().sum().backward()
    gradients = [x.grad, *(p.grad for p in plain.parameters())]
    x.grad = None
    plain.zero_grad()
    assert replace_small_maps(model, lambda: model(x)) == ["0"]
    fast = model[0]
    assert isinstance(fast, SmallMapConv2d)
    assert fast.weight is plain.weight
    found = fast(x)
    found.square().sum().backward()
    torch.testing.assert_close(found, wanted)
    for ours, theirs in zip([x.grad, *(p.grad for p in fast.parameters())], gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_only_small_ungrouped_convolutions_are_replaced() -> None:
    model: Any = timm.create_model("resnet18", num_classes=0).eval()
    names, state = list(model.state_dict()), model.state_dict()
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        wanted = model.forward_features(image)
        replaced = replace_small_maps(model, lambda: model.forward_features(image))
        torch.testing.assert_close(model.forward_features(image), wanted, atol=1e-5, rtol=1e-5)
    assert replaced == [
        "layer4.0.conv1", "layer4.0.conv2", "layer4.0.downsample.0", "layer4.1.conv1", "layer4.1.conv2",
    ]  # fmt: skip
    assert list(model.state_dict()) == names
    assert all(torch.equal(model.state_dict()[name], state[name]) for name in names)


def test_large_and_grouped_convolutions_stay() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, stride=4, groups=2))
    image = torch.randn(1, 4, 6, 6)
    assert replace_small_maps(model, lambda: model(image)) == []
