"""What the one search needs of arrays and numpy and torch spell differently. It runs on either; only `torch_arrays` imports torch.

Indexing, arithmetic, comparisons, `sum`, `any`, `all`, `argmax`, `clip` and `tolist` both understand: the search writes them plainly.
Tables are float32, whole numbers int64.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np

Array = Any  # of numpy or of torch
OFF = float("-inf")
FLOAT32_SIGN = np.int32(0x7FFFFFFF)


class Arrays(Protocol):
    """Operations along the last axis. What writes, writes into its first argument; a place that comes twice brings one value."""

    def computing(self, n_rows: int | None = None) -> AbstractContextManager[object]:
        """Return what a search of so many rows runs in: infinities are no faults, and no gradients are kept."""

    def array(self, values: Sequence[Any] | np.ndarray[Any, Any]) -> Array:
        """Return an array of Python's or numpy's numbers."""

    def to_numpy(self, values: Array) -> np.ndarray[Any, Any]:
        """Return numpy's array of these values, which may share their memory."""

    def float32(self, table: Array) -> Array:
        """Return the table in single precision, itself where it is."""

    def full(self, shape: tuple[int, ...], value: float) -> Array:
        """Return an array of one number."""

    def arange(self, n: int) -> Array:
        """Return 0 to n - 1."""

    def cat(self, parts: Sequence[Array]) -> Array:
        """Return (..., sum of N) for arrays (..., N)."""

    def repeat(self, values: Array, n: int) -> Array:
        """Return (N n,) for (N,): each value n times."""

    def where(self, condition: Array, yes: Array | float, no: Array | float) -> Array:
        """Return `yes` where the condition holds, `no` elsewhere."""

    def nonzero(self, condition: Array) -> tuple[Array, ...]:
        """Return the places where the condition holds, an array for each axis."""

    def gather(self, table: Array, places: Array) -> Array:
        """Return (R, N) values at these places of the rows of a table (R, V)."""

    def scatter(self, table: Array, places: Array, values: Array) -> None:
        """Write (R, N) values to these places of the rows."""

    def add_at(self, table: Array, places: Array, values: Array | float) -> None:
        """Add to these places of the rows, as often as they come."""

    def top_k(self, table: Array, k: int) -> tuple[Array, Array]:
        """Return the k greatest values, greatest first, and their places; of equal ones the first come first."""

    def argsort(self, table: Array) -> Array:
        """Return places in ascending order of their values; equal ones keep their order."""

    def log_softmax(self, table: Array) -> Array:
        """Return (R, V) logits normalised; the table may be overwritten."""

    def softmax(self, table: Array) -> Array:
        """Return (R, V) probabilities; the table stays."""


class NumpyArrays:
    """numpy's: see `Arrays`. On a CPU its calls cost about a third of torch's, which decides where rows are few."""

    def computing(self, n_rows: int | None = None) -> AbstractContextManager[object]:
        return np.errstate(all="ignore")

    def array(self, values: Sequence[Any] | np.ndarray[Any, Any]) -> Array:
        return np.asarray(values)

    def to_numpy(self, values: Array) -> np.ndarray[Any, Any]:
        return np.asarray(values)

    def float32(self, table: Array) -> Array:
        return table.astype(np.float32, copy=False)

    def full(self, shape: tuple[int, ...], value: float) -> Array:
        return np.full(shape, value, np.int64 if isinstance(value, int) else np.float32)

    def arange(self, n: int) -> Array:
        return np.arange(n)

    def cat(self, parts: Sequence[Array]) -> Array:
        return np.concatenate(parts, -1)

    def repeat(self, values: Array, n: int) -> Array:
        return values.repeat(n)

    def where(self, condition: Array, yes: Array | float, no: Array | float) -> Array:
        return np.where(condition, yes, no)

    def nonzero(self, condition: Array) -> tuple[Array, ...]:
        return np.nonzero(condition)

    def gather(self, table: Array, places: Array) -> Array:
        return table[np.arange(len(table))[:, None], places]

    def scatter(self, table: Array, places: Array, values: Array) -> None:
        table[np.arange(len(table))[:, None], places] = values

    def add_at(self, table: Array, places: Array, values: Array | float) -> None:
        np.add.at(table, (np.arange(len(table))[:, None], places), values)

    def top_k(self, table: Array, k: int) -> tuple[Array, Array]:
        V = table.shape[-1]
        rows = table.reshape(-1, V)
        # k parts of a row hold a value as great as the k-th greatest of the parts' maxima: what is less is none of the k.
        parts = V // 16
        bounds = rows[:, : parts * 16].reshape(-1, 16, parts).max(1) if parts >= 4 * k else rows.copy()
        bounds.partition(bounds.shape[1] - k, 1)
        least = bounds[:, -k]
        candidates = rows >= least[:, None]
        if not (bounded := least > OFF).all():  # fewer than k are finite: the first of the others come after them
            candidates[~bounded] = rows[~bounded] > OFF
            candidates[~bounded, :k] = True
        places = np.flatnonzero(candidates)
        of_row, values = places // V, rows.ravel()[places]
        order = np.lexsort((-values, of_row))
        counts = np.bincount(of_row, minlength=len(rows))
        best = order[(counts.cumsum() - counts)[:, None] + np.arange(k)]
        shape = (*table.shape[:-1], k)
        return values[best].reshape(shape), (places[best] % V).reshape(shape)

    def argsort(self, table: Array) -> Array:
        if table.dtype != np.float32:
            return table.argsort(-1, kind="stable")
        # Whole numbers that hold a value and, below it, its place sort several times faster than places do by values.
        bits = (table + np.float32(0)).view(np.int32)  # no minus zero
        keys = np.where(bits < 0, bits ^ FLOAT32_SIGN, bits).astype(np.int64) << 32 | np.arange(table.shape[-1])
        keys.sort(-1)
        return keys & 0xFFFFFFFF

    def log_softmax(self, table: Array) -> Array:
        table -= table.max(1, keepdims=True)
        table -= np.log(np.exp(table).sum(1, keepdims=True))
        return table

    def softmax(self, table: Array) -> Array:
        table = table - table.max(1, keepdims=True)
        np.exp(table, out=table)
        table /= table.sum(1, keepdims=True)
        return table
