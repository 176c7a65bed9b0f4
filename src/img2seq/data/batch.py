"""What one step sees: images once each, and the tokens of their captions end to end, without padding.

Shapes: B images, N tokens (of all captions of the batch), C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Counts = NDArray[np.int64]
CaptionTokens = tuple[list[int], list[int], int]  # input ids, target ids, first position


@dataclass(frozen=True)
class Batch:
    """Images and captions, on the CPU. The captions of an image are neighbours, images come in order.

    Attributes:
        image_ids: B.
        pixels: by name of an input that is to be encoded, (B, C, H, W) uint8.
        features: by name of an input whose frozen encoder has run already, (B, P, C).
        input_ids: (N,) each caption as <bos> w1 .. wn.
        target_ids: (N,) each caption as w1 .. wn <eos>.
        positions: (N,) place in the caption, from 0.
        caption_lengths: tokens of each caption.
        captions_of_image: (B,) how many captions each image has here.
    """

    image_ids: tuple[str, ...]
    pixels: dict[str, Tensor]
    features: dict[str, Tensor]
    input_ids: Tensor
    target_ids: Tensor
    positions: Tensor
    caption_lengths: Counts
    captions_of_image: Counts


def collate(
    image_ids: tuple[str, ...],
    captions: Sequence[Sequence[CaptionTokens]],
    *,
    pixels: dict[str, Tensor] | None = None,
    features: dict[str, Tensor] | None = None,
) -> Batch:
    """Lay the captions of each image end to end.

    In NumPy, for this runs in the threads that prepare batches: a parallel operation of torch would give each of them an
    OpenMP team, and with more teams than cores the training thread's own team falls asleep after every operation.
    """
    flat = [caption for of_image in captions for caption in of_image]
    positions = np.concatenate([first + np.arange(len(inputs)) for inputs, _, first in flat])
    return Batch(
        image_ids=image_ids,
        pixels=pixels or {},
        features=features or {},
        input_ids=torch.tensor([token for inputs, _, _ in flat for token in inputs]),
        target_ids=torch.tensor([token for _, targets, _ in flat for token in targets]),
        positions=torch.from_numpy(positions),
        caption_lengths=np.array([len(inputs) for inputs, _, _ in flat]),
        captions_of_image=np.array([len(of_image) for of_image in captions]),
    )
