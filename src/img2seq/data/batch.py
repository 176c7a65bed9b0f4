"""What one step sees: images once each, and the tokens of their captions laid end to end, without padding.

Shapes: B images, N tokens (of all captions of the batch), S rows of T tokens that captions share, Q tokens of the image with
the most (all its captions together), C channels.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ROW_TOKENS = 32  # fewest places of a row: short captions share one, so that few places stay empty


@dataclass(frozen=True)
class Batch:
    """Images and packed captions. The captions of an image are neighbours, images come in order.

    Attributes:
        image_ids: B.
        images: by input name, (B, C, H, W) uint8 pixels or (B, P, C) features of a frozen encoder.
        input_ids: (N,) each caption as <bos> w1 .. wn.
        target_ids: (N,) each caption as w1 .. wn <eos>.
        positions: (N,) place in the caption, from 0.
        caption_slots: (N,) place of each token in a (S, T) table whose rows hold one or more whole captions, as a flat index.
        may_see: (S, T, T) whether a place of the table (the second axis) sees another one of its row (the third): those of
            the same caption up to itself. Empty places see each other, so that none sees nothing.
        image_slots: (N,) place of each token in a padded (B, Q) table, as a flat index.
        image_of_token: (N,) which image each token belongs to.
        caption_shape: (S, T).
        image_shape: (B, Q).
    """

    image_ids: tuple[str, ...]
    images: dict[str, Tensor]
    input_ids: Tensor
    target_ids: Tensor
    positions: Tensor
    caption_slots: Tensor
    may_see: Tensor
    image_slots: Tensor
    image_of_token: Tensor
    caption_shape: tuple[int, int]
    image_shape: tuple[int, int]

    def to(self, device: torch.device) -> Self:
        """Return the batch on a device."""
        moved = {
            f.name: getattr(self, f.name).to(device, non_blocking=True)
            for f in fields(self)
            if isinstance(getattr(self, f.name), Tensor)
        }
        return replace(
            self, images={name: image.to(device, non_blocking=True) for name, image in self.images.items()}, **moved
        )


def pack(
    image_ids: tuple[str, ...], images: dict[str, Tensor], captions: list[list[tuple[list[int], list[int], int]]]
) -> Batch:
    """Lay captions end to end.

    In NumPy, for this runs in the threads that prepare batches: a parallel operation of torch would give each of them an
    OpenMP team, and with more teams than cores the training thread's own team falls asleep after every operation.

    Args:
        image_ids: B.
        images: see `Batch`.
        captions: for each image its captions, each as (input ids, target ids, first position).
    """
    flat = [caption for of_image in captions for caption in of_image]
    lengths = np.array([len(inputs) for inputs, _, _ in flat])
    image_lengths = np.array([sum(len(inputs) for inputs, _, _ in of_image) for of_image in captions])
    places = _places(lengths)
    T, Q = max(int(lengths.max()), ROW_TOKENS), int(image_lengths.max())
    first_slots, S = _share_rows(lengths.tolist(), T)
    caption_slots = np.repeat(first_slots, lengths) + places
    captions_at = np.full((S, T), -1)
    captions_at.flat[caption_slots] = np.repeat(np.arange(len(lengths)), lengths)
    image_of_token = np.repeat(np.arange(len(captions)), image_lengths)
    numbers = {
        "input_ids": np.array([token for inputs, _, _ in flat for token in inputs]),
        "target_ids": np.array([token for _, targets, _ in flat for token in targets]),
        "positions": places + np.repeat(np.array([first for _, _, first in flat]), lengths),
        "caption_slots": caption_slots,
        "may_see": np.tril(captions_at[:, :, None] == captions_at[:, None, :]),
        "image_slots": image_of_token * Q + _places(image_lengths),
        "image_of_token": image_of_token,
    }
    return Batch(
        image_ids=image_ids,
        images=images,
        caption_shape=(S, T),
        image_shape=(len(captions), Q),
        **{name: torch.from_numpy(values) for name, values in numbers.items()},
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
