"""A picture, and picture files made of it."""

from __future__ import annotations

import io

from PIL import Image, ImageCms


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture() -> Image.Image:
    return Image.effect_mandelbrot((40, 20), (-2, -1, 1, 1), 50).convert("RGB")


def other_colours() -> bytes:
    """Return a colour profile with which red is blue: who follows it sees other pixels."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, blue = profile.find(b"rXYZ"), profile.find(b"bXYZ")
    profile[red : red + 4], profile[blue : blue + 4] = b"bXYZ", b"rXYZ"
    return bytes(profile)
