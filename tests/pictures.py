"""A picture, and picture files made of it."""

from __future__ import annotations

import io

from PIL import Image


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture() -> Image.Image:
    return Image.effect_mandelbrot((40, 20), (-2, -1, 1, 1), 50).convert("RGB")
