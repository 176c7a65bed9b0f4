"""Tensors as they were at one moment, laid out as the .safetensors file that is to hold them.

Taking one costs training a copy into memory that it has already: fresh memory would cost many times as much. All that is
left to do with its bytes, to check, hash and write them, can be done beside training.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

PART = 1 << 20  # bytes worked on at once: they stay in a core's cache
NAMES = {  # in the library's order: large elements first, so that each tensor is aligned
    torch.int64: "I64", torch.float64: "F64", torch.float32: "F32", torch.int32: "I32", torch.bfloat16: "BF16",
    torch.float16: "F16", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


class Snapshot:
    """The content of a .safetensors file, byte for byte what the library would write.

    Format: https://github.com/huggingface/safetensors#format
    """

    def __init__(self, tensors: Mapping[str, Tensor] | None = None):
        self._header = b""
        self._memory = np.empty(0, np.uint8)
        self._copies: dict[str, Tensor] = {}
        self.take(tensors or {})

    def make_room(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the memory that tensors of these names and shapes need, so that copying them takes no more."""
        header, places = _layout(tensors)
        if header == self._header:
            return
        end = max((end for _, end in places.values()), default=len(header))
        self._header, self._copies, self._memory = header, {}, np.empty(end, np.uint8)
        self._memory.fill(0)  # the system gives memory only when it is written to
        self._memory[: len(header)] = np.frombuffer(header, np.uint8)
        memory = torch.from_numpy(self._memory)
        for name, (begin, end) in places.items():
            self._copies[name] = memory[begin:end].view(tensors[name].dtype).view(tensors[name].shape)

    def take(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy the tensors as they are now, over those taken before."""
        self.make_room(tensors)
        for name, copy in self._copies.items():
            copy.copy_(tensors[name].detach())

    @property
    def n_bytes(self) -> int:
        return len(self._memory)

    def parts(self) -> list[memoryview]:
        """Return the bytes of the file, in order."""
        content = self._memory.data
        return [content[begin : begin + PART] for begin in range(0, len(content), PART)]

    def not_finite(self) -> list[str]:
        """Return the names of the tensors that have a value which is not finite.

        A single infinity is a bound that is switched off, as Gemma's encoder has them.
        """
        return [
            name
            for name, copy in self._copies.items()
            if copy.is_floating_point() and not (_is_finite(copy) or (copy.ndim == 0 and bool(copy.isinf())))
        ]


def _layout(tensors: Mapping[str, Tensor]) -> tuple[bytes, dict[str, tuple[int, int]]]:
    """Return the file's beginning, and where in the file each tensor begins and ends."""
    order, places, end = list(NAMES), {}, 0
    for name in sorted(tensors, key=lambda name: (order.index(tensors[name].dtype), name)):
        begin, end = end, end + tensors[name].numel() * tensors[name].element_size()
        places[name] = (begin, end)
    described = {
        name: {"dtype": NAMES[tensors[name].dtype], "shape": list(tensors[name].shape), "data_offsets": list(place)}
        for name, place in places.items()
    }
    text = json.dumps(described, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    header = len(text).to_bytes(8, "little") + text
    return header, {name: (len(header) + begin, len(header) + end) for name, (begin, end) in places.items()}


def _is_finite(tensor: Tensor) -> bool:
    """Tell whether all values are finite, by NumPy: torch would keep an OpenMP team for the thread that asks."""
    if tensor.dtype == torch.bfloat16:  # NumPy has none: its exponent is all ones
        bits = tensor.view(torch.int16).numpy().reshape(-1)
        return all(bool((part & 0x7F80 != 0x7F80).all()) for part in _cut(bits))
    return all(bool(np.isfinite(part).all()) for part in _cut(tensor.numpy().reshape(-1)))


def _cut(values: np.ndarray) -> list[np.ndarray]:
    length = PART // values.itemsize
    return [values[begin : begin + length] for begin in range(0, len(values), length)]
