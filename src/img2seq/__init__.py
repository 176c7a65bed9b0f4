"""img2seq trains, measures and ships models that turn an image into a sequence of words."""

from __future__ import annotations

__version__ = "0.1.0"
