"""Our dropout does what torch's does."""

from __future__ import annotations

import pytest
import torch

from img2seq.model.cpu.dropout import Dropout

pytestmark = pytest.mark.usefixtures("speed_ups_on")


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_share_and_mean_are_those_of_torch(p: float) -> None:
    torch.manual_seed(3)
    x = torch.ones(1000, 1001)
    found = Dropout(p)(x)
    kept = found != 0
    spread = (p * (1 - p) / x.numel()) ** 0.5
    assert abs(kept.float().mean().item() - (1 - p)) < 5 * spread + 1 / 65536
    torch.testing.assert_close(found[kept], torch.full_like(found[kept], 1 / (1 - p)), rtol=1e-3, atol=0)
    assert abs(found.mean().item() - 1) < 5 * spread / (1 - p)
    rows, columns = kept.float().mean(1).std().item(), kept.float().mean(0).std().item()
    for measured in (rows, columns):  # neighbours are independent: means spread as those of a fair draw do
        assert measured == pytest.approx((p * (1 - p) / 1000) ** 0.5, rel=0.15)


def test_gradient_goes_where_the_value_went() -> None:
    torch.manual_seed(0)
    x = torch.randn(7, 5, requires_grad=True)
    found = Dropout(0.4)(x)
    found.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad * x.detach(), found.detach())
    assert 0 < (found == 0).sum() < found.numel()


def test_mask_is_a_function_of_the_seed() -> None:
    def draw(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        layer = Dropout(0.5)
        return torch.cat([layer(torch.ones(50)), layer(torch.ones(50))])

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))
    assert not torch.equal(draw(1)[:50], draw(1)[50:])


def test_nothing_is_dropped_in_evaluation_or_at_zero() -> None:
    x = torch.randn(9)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x
