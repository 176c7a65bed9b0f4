"""Weights that others wrote: .pth, .pt and .bin files of tensors alone, read without running anything in them."""

from __future__ import annotations

import zipfile
from collections.abc import Collection
from pathlib import Path
from pickletools import genops
from typing import IO

import torch
from torch import Tensor

from img2seq.errors import ModelError
from img2seq.model.weights import Shapes, expect_file, first_line, read_shapes, read_tensors

# All that a pickle of tensors needs to name, beside storages and types. torch lets in more: a `bytearray` takes whatever
# memory the file asks for.
OF_TENSORS = {"collections OrderedDict", "torch Size", "torch device"}
OF_TENSORS |= {f"torch._utils {name}" for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter")}


def read_any_shapes(path: str | Path) -> Shapes:
    """Return the name and shape of every tensor of a file of weights of any kind that `read_any_tensors` reads."""
    if Path(path).suffix == ".safetensors":
        return read_shapes(path)
    return {name: tuple(tensor.shape) for name, tensor in read_any_tensors(path).items()}


def read_any_tensors(path: str | Path, names: Collection[str] | None = None) -> dict[str, Tensor]:
    """Read a .safetensors file, or a .pth, .pt or .bin file of tensors alone (never running code from it).

    Args:
        path: of the file.
        names: of the tensors to read; all, if not given.

    Raises:
        ModelError: naming the file, if it is missing, broken or holds anything but tensors.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        return read_tensors(path, names)
    expect_file(path)
    try:
        # Mapped, a file cannot make us allocate more than it is long, whatever it declares.
        data = torch.load(path, map_location="cpu", weights_only=True, mmap=_screened(path))
    except ModelError:
        raise
    except (OSError, RuntimeError, ValueError, EOFError) as error:
        raise ModelError(f"{path}: cannot be read as weights: {first_line(error)}") from error
    except Exception as error:  # weights_only refuses foreign classes with errors of its own
        raise ModelError(f"{path}: holds more than tensors, or is broken; convert it to .safetensors") from error
    for key in ("state_dict", "model"):  # how training scripts commonly wrap them
        if isinstance(data, dict) and isinstance(data.get(key), dict):
            data = data[key]
    if not isinstance(data, dict) or not all(isinstance(v, Tensor) for v in data.values()):
        raise ModelError(f"{path}: expected tensors by name, found {type(data).__name__}")
    return {str(name): tensor for name, tensor in data.items() if names is None or str(name) in names}


def _screened(path: Path) -> bool:
    """Tell whether a file is an archive, or of the old kind: pickles one after the other.

    Raises:
        ModelError: if a pickle in it names more than tensors need.
    """
    with path.open("rb") as file:
        is_archive = file.read(4) == b"PK\3\4"  # which decides it for torch, too
        file.seek(0)
        if not is_archive:
            for _ in range(5):  # a magic number, the version, the system, the tensors, their keys
                _screen(file, path)
    if is_archive:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if entry.compress_type != zipfile.ZIP_STORED:
                    raise ModelError(f"{path}: {entry.filename} is compressed, which torch.save never does")
                if entry.filename.endswith(".pkl"):
                    with archive.open(entry) as pickled:
                        _screen(pickled, path)
    return is_archive


def _screen(pickled: IO[bytes], path: Path) -> None:
    for opcode, named, _ in genops(pickled):
        if opcode.name == "GLOBAL" and named not in OF_TENSORS:
            module, _, name = str(named).partition(" ")
            if module != "torch" or not (name.endswith("Storage") or isinstance(vars(torch).get(name), torch.dtype)):
                raise ModelError(f"{path}: holds more than tensors ({module}.{name}); convert it to .safetensors")
