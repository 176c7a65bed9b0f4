"""The fast convolutions equal the ordinary one, in values and in all gradients, and are chosen where they should be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from img2seq.model.cpu import convolution, winograd
from img2seq.model.cpu.convolution import Conv2d, replace_convolutions

pytestmark = pytest.mark.usefixtures("speed_ups_on")


def values_and_gradients(conv: nn.Module, x: Tensor) -> list[Tensor]:
    """Return the output, and the gradients of x and of each parameter."""
    x = x.detach().requires_grad_()
    y = conv(x)
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)  # a gradient that differs from place to place
    return [y, *torch.autograd.grad((y * weights).sum(), [x, *conv.parameters()])]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("size", "kernel", "stride", "padding"), [
    ((2, 2), 3, 1, 1), ((4, 4), 3, 2, 1), ((4, 4), 1, 2, 0), ((4, 3), 3, 2, 1), ((7, 5), (5, 3), (3, 2), (1, 0)), ((1, 1), 1, 1, 0), ((3, 3), 5, 2, 2), ((2, 2), 7, 2, 3),
])  # fmt: skip
def test_taps_equal_convolution(
    size: tuple[int, int], kernel: int | tuple[int, int], stride: int | tuple[int, int], padding: int | tuple[int, int], bias: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    torch.manual_seed(0)
    monkeypatch.setattr(convolution, "MOST_TAPS", 49)
    plain = nn.Conv2d(6, 10, kernel, stride, padding, bias=bias).double().to(memory_format=torch.channels_last)
    model = nn.Sequential(plain)
    x = torch.randn(3, 6, *size, dtype=torch.float64)
    wanted = values_and_gradients(plain, x)
    assert replace_convolutions(model) == ["0"]
    monkeypatch.setattr(nn.Conv2d, "forward", None)  # the ordinary way is closed
    assert model[0].weight is plain.weight
    torch.testing.assert_close(values_and_gradients(model[0], x), wanted)


@pytest.mark.parametrize("size", [(3, 3), (4, 4), (5, 7), (8, 8), (9, 4), (16, 16), (1, 13)])
@pytest.mark.parametrize("bias", [False, True])
def test_winograd_equals_convolution(size: tuple[int, int], bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(32, 33, 3, padding=1, bias=bias).double().to(memory_format=torch.channels_last)
    model = nn.Sequential(plain)
    for x in (torch.randn(32, 32, *size, dtype=torch.float64), torch.randn(32, *size, 32).double().permute(0, 3, 1, 2)):
        wanted = values_and_gradients(plain, x)
        replace_convolutions(model)
        with monkeypatch.context() as closed:
            closed.setattr(nn.Conv2d, "forward", None)
            closed.setattr(convolution, "_ByTaps", None)
            torch.testing.assert_close(values_and_gradients(model[0], x), wanted)


def test_winograd_rounds_like_a_convolution() -> None:
    torch.manual_seed(0)
    x, conv = torch.randn(8, 64, 16, 16), nn.Conv2d(64, 64, 3, padding=1, bias=False)
    wanted = values_and_gradients(conv, x)
    model = nn.Sequential(conv)
    replace_convolutions(model)
    found = values_and_gradients(model[0], x)
    for ours, theirs in zip(found, wanted, strict=True):
        assert not torch.equal(ours, theirs)  # another way was taken
        assert (ours - theirs).abs().max() < 2e-5 * theirs.abs().max()


def test_a_gradient_is_only_computed_where_it_is_needed() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(4, 32, 8, 8), torch.randn(32, 32, 3, 3)
    (alone,) = torch.autograd.grad(winograd.convolve(x, weight.requires_grad_()).square().sum(), [weight])
    both = torch.autograd.grad(winograd.convolve(x.requires_grad_(), weight).square().sum(), [weight, x])
    (other,) = torch.autograd.grad(winograd.convolve(x, weight.detach()).square().sum(), [x])
    assert torch.equal(alone, both[0])
    assert torch.equal(other, both[1])


def noting(taken: list[str], what: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function, which now notes each call."""

    def call(*arguments: Any) -> Any:
        taken.append(what)
        return function(*arguments)

    return call


def test_which_way_is_taken_follows_from_the_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []
    for owner, name, what in (
        (winograd, "convolve", "winograd"), (convolution._ByTaps, "apply", "taps"), (nn.Conv2d, "forward", "torch")
    ):  # fmt: skip
        monkeypatch.setattr(owner, name, noting(taken, what, getattr(owner, name)))
    few = convolution.FEWEST_TILES - 1
    for conv, x in (
        (Conv2d(32, 32, 3, padding=1), torch.randn(few + 1, 32, 4, 4)), (Conv2d(32, 32, 3, padding=1), torch.randn(64, 32, 2, 2)),
        (Conv2d(32, 32, 3, padding=1), torch.randn(few, 32, 4, 4)), (Conv2d(31, 32, 3, padding=1), torch.randn(64, 31, 4, 4)),
        (Conv2d(32, 32, 3, 2, 1), torch.randn(64, 32, 8, 8)), (Conv2d(32, 32, 3), torch.randn(64, 32, 8, 8)),
        (Conv2d(3, 32, 16, 16), torch.randn(4, 3, 32, 32)),  # patches
        (Conv2d(32, 32, 3, padding=1).bfloat16(), torch.randn(64, 32, 4, 4).bfloat16()),
    ):  # fmt: skip
        conv(x)
    with torch.autocast("cpu", torch.bfloat16):
        Conv2d(32, 32, 3, padding=1)(torch.randn(64, 32, 4, 4))
    assert taken == ["winograd", "taps", *["torch"] * 7]


def test_a_resnet_is_the_same_up_to_rounding() -> None:
    # As timm starts a ResNet, the last norm of each block is zero: what its convolutions give would not be seen.
    model: Any = timm.create_model("resnet18", num_classes=0, zero_init_last=False).eval()
    names, state = list(model.state_dict()), model.state_dict()
    images = torch.randn(32, 3, 64, 64)
    with torch.no_grad():
        wanted = model.forward_features(images)
        replaced = replace_convolutions(model)
        torch.testing.assert_close(model.forward_features(images), wanted, atol=1e-4, rtol=1e-4)
    assert len(replaced) == 20
    assert list(model.state_dict()) == names
    assert all(torch.equal(model.state_dict()[name], state[name]) for name in names)


def test_a_second_derivative_is_refused_where_it_would_be_wrong() -> None:
    for x, conv in ((torch.randn(4, 32, 8, 8), Conv2d(32, 32, 3, padding=1)), (torch.randn(4, 8, 2, 2), Conv2d(8, 8, 3, padding=1))):  # fmt: skip
        (gradient,) = torch.autograd.grad(conv(x).square().sum(), [conv.weight], create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            gradient.square().sum().backward()


def test_what_is_no_plain_convolution_stays() -> None:
    model = nn.Sequential(
        nn.Conv2d(4, 4, 3, stride=4, groups=2), nn.Conv2d(4, 4, 3, dilation=2), nn.Conv2d(4, 4, 3, padding="same")
    )
    assert replace_convolutions(model) == []
