"""Snapshots: the bytes of a file that the safetensors library would write, and what is not finite in them."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from img2seq.run.snapshot import NAMES, PART, Snapshot

FLOATS = [dtype for dtype in NAMES if dtype.is_floating_point]


def content(snapshot: Snapshot) -> bytes:
    return b"".join(snapshot.parts())


def tensors() -> dict[str, Tensor]:
    torch.manual_seed(0)
    made = {f"{number} {dtype}": torch.randn(3, number + 1).to(dtype) for number, dtype in enumerate(NAMES)}
    made |= {"a scalar": torch.tensor(3.0), "b nothing": torch.zeros(0, 5), 'c "é\u2028\\': torch.ones(1)}
    return made | {
        "large": torch.randn(3, PART),
        "integer": torch.tensor(7),
        "also": torch.ones(2, dtype=torch.float64),
    }


def test_a_snapshot_is_what_the_library_would_write() -> None:
    for given in (tensors(), {"w": torch.ones(5)}, {}):
        assert content(Snapshot(given)) == save(given)


def test_strides_are_those_of_a_file() -> None:
    given = torch.arange(48.0).view(2, 3, 2, 4)
    for laid_out in (
        given.to(memory_format=torch.channels_last),
        given.transpose(0, 3),
        given[:, ::2],
        given.expand(3, 2, 3, 2, 4),
    ):
        found = load(content(Snapshot({"w": laid_out})))["w"]
        assert torch.equal(found, laid_out)
        assert found.is_contiguous()


def test_memory_is_used_again_for_the_same_tensors_and_never_for_others() -> None:
    snapshot = Snapshot(given := tensors())
    first = snapshot.parts()
    changed = {name: tensor + 1 if tensor.is_floating_point() else tensor for name, tensor in given.items()}
    snapshot.take(changed)
    assert b"".join(first) == content(snapshot) == save(changed)
    for others in (
        {"w": torch.ones(5)},
        {"w": torch.ones(5, 1)},
        {"w": torch.ones(5, 1, dtype=torch.int32)},
        {"v": torch.ones(5, 1)},
    ):
        snapshot.take(others)
        assert content(snapshot) == save(others)


def test_room_that_was_made_before_is_the_room_that_is_used() -> None:
    snapshot, given = Snapshot(), tensors()
    snapshot.make_room(given)
    room = snapshot.parts()
    snapshot.take(given)
    assert b"".join(room) == content(snapshot) == save(given)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_one_value_that_is_not_finite_is_found_wherever_it_is(value: float, dtype: torch.dtype) -> None:
    n = 2 * PART // dtype.itemsize + 10
    for place in (0, PART // dtype.itemsize - 1, PART // dtype.itemsize, n - 1):
        bad = torch.zeros(n, dtype=dtype)
        bad[place] = value
        assert Snapshot({"good": torch.ones(3), "bad": bad}).not_finite() == ["bad"]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_the_largest_numbers_are_finite(dtype: torch.dtype) -> None:
    limits = torch.finfo(dtype)
    values = torch.tensor([limits.max, limits.min, limits.tiny, limits.smallest_normal / 2, 0.0, -0.0], dtype=dtype)
    assert Snapshot({"w": values, "n": torch.tensor([2**62])}).not_finite() == []


def test_a_single_infinity_is_a_bound_and_not_a_fault() -> None:
    tensors = {
        "bound": torch.tensor(float("inf")),
        "nan": torch.tensor(float("nan")),
        "w": torch.tensor([float("inf")]),
    }
    assert Snapshot(tensors).not_finite() == ["nan", "w"]
