"""torch's operations for the one search: on the device that the model is on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from img2seq.model.cpu.few_rows import one_thread_for


class TorchArrays:
    """torch's: see `Arrays`.

    Args:
        device: where all arrays are.
    """

    def __init__(self, device: torch.device):
        self.device = device

    @contextmanager
    def computing(self, n_rows: int | None = None) -> Iterator[None]:
        with torch.inference_mode(), one_thread_for(n_rows, self.device) if n_rows else nullcontext():
            yield

    def array(self, values: Sequence[Any] | np.ndarray[Any, Any]) -> Tensor:
        return torch.as_tensor(values, device=self.device)

    def to_numpy(self, values: Tensor) -> np.ndarray[Any, Any]:
        return np.asarray(values.cpu())

    def float32(self, table: Tensor) -> Tensor:
        return table.float()

    def full(self, shape: tuple[int, ...], value: float) -> Tensor:
        return torch.full(shape, value, device=self.device)

    def arange(self, n: int) -> Tensor:
        return torch.arange(n, device=self.device)

    def cat(self, parts: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(parts), -1)

    def repeat(self, values: Tensor, n: int) -> Tensor:
        return values.repeat_interleave(n)

    def where(self, condition: Tensor, yes: Tensor | float, no: Tensor | float) -> Tensor:
        return torch.where(condition, yes, no)

    def nonzero(self, condition: Tensor) -> tuple[Tensor, ...]:
        return condition.nonzero(as_tuple=True)

    def gather(self, table: Tensor, places: Tensor) -> Tensor:
        return table.gather(1, places)

    def scatter(self, table: Tensor, places: Tensor, values: Tensor) -> None:
        table.scatter_(1, places, values)

    def add_at(self, table: Tensor, places: Tensor, values: Tensor | float) -> None:
        added = values if isinstance(values, Tensor) else table.new_full(places.shape, values)
        table.scatter_add_(1, places, added)

    def top_k(self, table: Tensor, k: int) -> tuple[Tensor, Tensor]:
        values, places = table.topk(min(k + 1, table.shape[-1]), dim=-1)
        # torch leaves the order of equal values open. They are rare, so looking is cheap; a GPU would have to be waited for.
        if table.device.type == "cpu" and bool((tied := values.diff(dim=-1) == 0).any()):
            rows = tied.any(-1)
            found = table[rows].sort(dim=-1, descending=True, stable=True)
            values[rows], places[rows] = found.values[:, : values.shape[-1]], found.indices[:, : values.shape[-1]]
        return values[..., :k], places[..., :k]

    def argsort(self, table: Tensor) -> Tensor:
        return table.sort(dim=-1, stable=True).indices

    def log_softmax(self, table: Tensor) -> Tensor:
        return table.log_softmax(1)

    def softmax(self, table: Tensor) -> Tensor:
        return table.softmax(1)
