"""Weights on disk: .safetensors files, whose headers are checked before memory is taken."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor, nn

from img2seq.errors import ModelError, listed

MAX_HEADER_BYTES = 10_000_000  # 100,000 tensors

Shapes = dict[str, tuple[int, ...]]


def read_shapes(path: str | Path) -> Shapes:
    """Return the name and shape of every tensor of a .safetensors file, before anything is allocated for them.

    Raises:
        ModelError: naming the file, if it is missing or broken.
    """
    with _open_safetensors(Path(path)) as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def read_tensors(path: str | Path, names: Collection[str] | None = None) -> dict[str, Tensor]:
    """Return the tensors of a .safetensors file by name; only those in `names`, if given.

    Raises:
        ModelError: naming the file, if it is missing or broken.
    """
    with _open_safetensors(Path(path)) as file:
        return {name: file.get_tensor(name) for name in (file.keys() if names is None else names)}


def shapes_of(model: nn.Module) -> Shapes:
    """Return the name and shape of every tensor a model is saved with."""
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def check_shapes(expected: Shapes, found: Shapes, source: str | Path) -> None:
    """Raise ModelError unless both have the same names and shapes."""
    missing, extra = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    wrong = [
        f"{k}: expected {expected[k]}, found {found[k]}" for k in expected if k in found and expected[k] != found[k]
    ]
    if missing or extra or wrong:
        lines = [*(f"missing: {k}" for k in missing), *(f"not in the model: {k}" for k in extra), *wrong]
        raise ModelError(f"{source}: the weights do not fit the model:\n{listed(lines)}")


def expect_file(path: Path) -> None:
    if not path.is_file():
        raise ModelError(f"{path}: expected a file of weights, found {'a folder' if path.is_dir() else 'nothing'}")


@contextmanager
def _open_safetensors(path: Path) -> Iterator[Any]:
    """Open a file whose header has been checked: its length here; offsets, types and total bytes by the library."""
    expect_file(path)
    try:
        with path.open("rb") as file:
            declared = int.from_bytes(file.read(8), "little")
        if declared > min(MAX_HEADER_BYTES, path.stat().st_size - 8):
            raise ModelError(
                f"{path}: not safetensors: declares a header of {declared:,} bytes, the file has {path.stat().st_size:,}"
                f" and a header at most {MAX_HEADER_BYTES:,}"
            )
        with safe_open(path, framework="pt") as tensors:
            yield tensors
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"{path}: cannot be read as safetensors: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
