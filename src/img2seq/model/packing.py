"""The captions of a batch as attention takes them: tokens end to end, and their places in its tables.

Shapes: B images, N tokens (of all captions of the batch), S rows of T tokens that captions share, Q tokens of the image with
the most (all its captions together), C channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ROW_TOKENS = 32  # fewest places of a row: short captions share one, so that few places stay empty


class Captioned(Protocol):
    """Images with tokenised captions, as `data.batch.Batch` has them."""

    @property
    def pixels(self) -> dict[str, Tensor]: ...
    @property
    def features(self) -> dict[str, Tensor]: ...
    @property
    def input_ids(self) -> Tensor: ...
    @property
    def target_ids(self) -> Tensor: ...
    @property
    def positions(self) -> Tensor: ...
    @property
    def caption_lengths(self) -> NDArray[np.int64]: ...
    @property
    def captions_of_image(self) -> NDArray[np.int64]: ...


@dataclass(frozen=True)
class PackedBatch:
    """A batch on the model's device.

    Attributes:
        pixels: by input name, (B, C, H, W) uint8.
        features: by input name, (B, P, C) of a frozen encoder.
        input_ids: (N,) each caption as <bos> w1 .. wn.
        target_ids: (N,) each caption as w1 .. wn <eos>.
        positions: (N,) place in the caption, from 0.
        caption_slots: (N,) place of each token in a (S, T) table whose rows hold one or more whole captions, as a flat index.
        may_see: (S, T, T) whether a place of the table (the second axis) sees another one of its row (the third): those of
            the same caption up to itself. Empty places see each other, so that no softmax row is fully masked.
        image_slots: (N,) place of each token in a padded (B, Q) table, as a flat index.
        image_of_token: (N,) which image each token belongs to.
        caption_of_token: (N,) which caption of the batch.
        caption_shape: (S, T).
        image_shape: (B, Q).
    """

    pixels: dict[str, Tensor]
    features: dict[str, Tensor]
    input_ids: Tensor
    target_ids: Tensor
    positions: Tensor
    caption_slots: Tensor
    may_see: Tensor
    image_slots: Tensor
    image_of_token: Tensor
    caption_of_token: Tensor
    caption_shape: tuple[int, int]
    image_shape: tuple[int, int]


def pack(batch: Captioned, device: torch.device | None = None) -> PackedBatch:
    """Return the batch on a device, with the places of its tokens in the tables of attention."""
    lengths, captions_of_image = batch.caption_lengths, batch.captions_of_image
    image_of_caption = np.repeat(np.arange(len(captions_of_image)), captions_of_image)
    image_lengths = np.bincount(image_of_caption, weights=lengths, minlength=len(captions_of_image)).astype(np.int64)
    T, Q = max(int(lengths.max()), ROW_TOKENS), int(image_lengths.max())
    first_slots, S = _share_rows(lengths.tolist(), T)
    caption_slots = np.repeat(first_slots, lengths) + _places(lengths)
    caption_of_token = np.repeat(np.arange(len(lengths)), lengths)
    captions_at = np.full((S, T), -1)
    captions_at.flat[caption_slots] = caption_of_token
    image_of_token = np.repeat(image_of_caption, lengths)
    layout: dict[str, NDArray[Any]] = {
        "caption_slots": caption_slots,
        "may_see": np.tril(captions_at[:, :, None] == captions_at[:, None, :]),
        "image_slots": image_of_token * Q + _places(image_lengths),
        "image_of_token": image_of_token,
        "caption_of_token": caption_of_token,
    }

    def moved(tensor: Tensor) -> Tensor:
        if device is not None and device.type == "cuda":  # from pinned memory a copy runs beside the step before
            tensor = tensor.pin_memory()
        return tensor.to(device, non_blocking=True)

    return PackedBatch(
        pixels={name: moved(values) for name, values in batch.pixels.items()},
        features={name: moved(values) for name, values in batch.features.items()},
        input_ids=moved(batch.input_ids),
        target_ids=moved(batch.target_ids),
        positions=moved(batch.positions),
        caption_shape=(S, T),
        image_shape=(len(captions_of_image), Q),
        **{name: moved(torch.from_numpy(values)) for name, values in layout.items()},
    )


def _share_rows(lengths: list[int], row_tokens: int) -> tuple[NDArray[np.int64], int]:
    """Return where each caption begins in rows filled in order, and how many rows those are."""
    begins, end = [], 0
    for length in lengths:
        if end % row_tokens + length > row_tokens:
            end = -(-end // row_tokens) * row_tokens
        begins.append(end)
        end += length
    return np.array(begins), -(-end // row_tokens)


def _places(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return 0 .. n-1 for each length n, end to end."""
    starts = np.cumsum(lengths) - lengths
    return np.arange(lengths.sum()) - np.repeat(starts, lengths)
