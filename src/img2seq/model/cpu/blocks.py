"""Tensors cut into blocks that stay in the cache while several operations pass over them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from torch import Tensor

from img2seq.model.cpu.switch import is_on

BLOCK_NUMBERS = 1 << 19  # of float32, four tensors: 8 MB; smaller blocks cost more in calls than they save


def blocks(parameters: Iterable[Sequence[Tensor]]) -> Iterator[list[list[Tensor]]]:
    """Yield the tensors of an optimiser's update in blocks, a list for each kind of tensor.

    On other devices than a CPU everything is one block: there, few launches count.

    Args:
        parameters: of each parameter itself, its gradient, and its state, all of one shape.
    """
    block: list[list[Tensor]] = []
    filled, is_cut = 0, is_on("adabelief_blocks")
    for whole in parameters:
        most = BLOCK_NUMBERS if is_cut and whole[0].device.type == "cpu" else math.inf
        cut = zip(*(t.split(BLOCK_NUMBERS) for t in _flat(whole)), strict=True) if whole[0].numel() > most else [whole]
        for pieces in cut:
            if block and filled + pieces[0].numel() > most:
                yield block
                block, filled = [], 0
            block = block or [[] for _ in pieces]
            for column, piece in zip(block, pieces, strict=True):
                column.append(piece)
            filled += pieces[0].numel()
    if block:
        yield block


def _flat(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return parameter, gradient and state as vectors, number by number in the parameter's order in memory."""
    parameter, gradient, *state = tensors
    order = sorted(range(parameter.ndim), key=parameter.stride, reverse=True)
    # A copy where autograd chose another layout: nobody reads the gradient again.
    of_gradient = gradient.permute(order).reshape(-1)
    return [parameter.permute(order).view(-1), of_gradient, *(t.permute(order).view(-1) for t in state)]
