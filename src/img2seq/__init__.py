"""img2seq trains, measures and ships models that turn an image into a sequence of words.

    Captioner       caption images with a trained run
    load_config     read and check an experiment file

Importing has no side effects and loads neither torch nor timm; the names above are looked up when they are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from img2seq.config.load import load_config
    from img2seq.inference.captioner import Captioner
    from img2seq.inference.predictor import Caption

__version__ = "0.1.0"
__all__ = ["Caption", "Captioner", "__version__", "load_config"]

_HOMES = {
    "Caption": "img2seq.inference.predictor",
    "Captioner": "img2seq.inference.captioner",
    "load_config": "img2seq.config.load",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'img2seq' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
