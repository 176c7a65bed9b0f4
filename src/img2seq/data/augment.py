"""Automatic augmentation: one random operation of random strength for each image (TrivialAugment).

Müller and Hutter (2021), "TrivialAugment: Tuning-free yet state-of-the-art data augmentation", the "wide"
space. It works on images of the working size, where the framework of the tutorial works on full-size
ones: the same operations on about a hundredth of the pixels. Translations are scaled to the image.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from img2seq.data.image import Pixels

Operation = Callable[[Image.Image, float], Image.Image]  # strength in -1..1, or 0..1 where it has no sign


def _affine(image: Image.Image, a: float, b: float, c: float, d: float, e: float, f: float) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.NEAREST)


def _shear_x(image: Image.Image, strength: float) -> Image.Image:
    shear = 0.99 * strength
    return _affine(image, 1, shear, -shear * image.height / 2, 0, 1, 0)


def _shear_y(image: Image.Image, strength: float) -> Image.Image:
    shear = 0.99 * strength
    return _affine(image, 1, 0, 0, shear, 1, -shear * image.width / 2)


_SIGNED: dict[str, Operation] = {
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": lambda image, s: _affine(image, 1, 0, s * image.width / 7, 0, 1, 0),
    "translate_y": lambda image, s: _affine(image, 1, 0, 0, 0, 1, s * image.height / 7),
    "rotate": lambda image, s: image.rotate(135 * s),
    "brightness": lambda image, s: ImageEnhance.Brightness(image).enhance(1 + 0.99 * s),
    "color": lambda image, s: ImageEnhance.Color(image).enhance(1 + 0.99 * s),
    "contrast": lambda image, s: ImageEnhance.Contrast(image).enhance(1 + 0.99 * s),
    "sharpness": lambda image, s: ImageEnhance.Sharpness(image).enhance(1 + 0.99 * s),
}
_UNSIGNED: dict[str, Operation] = {
    "identity": lambda image, s: image,
    "posterize": lambda image, s: ImageOps.posterize(image, 8 - round(6 * s)),
    "solarize": lambda image, s: ImageOps.solarize(image, round(255 * (1 - s))),
    "auto_contrast": lambda image, s: ImageOps.autocontrast(image),
    "equalize": lambda image, s: ImageOps.equalize(image),
}
OPERATIONS = (*_SIGNED, *_UNSIGNED)


def trivial_augment(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Return the (H, W, C) pixels changed by one operation that `rng` draws. Alpha stays as it is."""
    name = OPERATIONS[int(rng.integers(len(OPERATIONS)))]
    strength = float(rng.integers(31)) / 30
    if name in _SIGNED:
        strength *= float(rng.integers(2)) * 2 - 1
    operation = _SIGNED.get(name) or _UNSIGNED[name]
    colours = pixels[..., 0] if pixels.shape[2] == 1 else pixels[..., :3]
    changed = np.asarray(operation(Image.fromarray(np.ascontiguousarray(colours)), strength))
    changed = changed.reshape(*pixels.shape[:2], -1)
    return changed if pixels.shape[2] != 4 else np.concatenate([changed, pixels[..., 3:]], axis=2)
