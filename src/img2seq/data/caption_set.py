"""One side of the split (training or validation) as numbers, and its batches.

Tokens of all captions lie in one flat array, pixels and features stay in the mapped cache, so memory does
not grow with the size of the pictures.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from img2seq.data.augment import trivial_augment
from img2seq.data.batch import Batch, CaptionTokens, collate
from img2seq.data.image import ImageSpec, Pixels
from img2seq.data.order import Group, Plan
from img2seq.data.seeds import generator
from img2seq.data.tokenizer import Tokenizer
from img2seq.errors import DataError

BATCHES_AHEAD = 4


@dataclass(frozen=True)
class ImageRows:
    """Where an input's images are, and how they change from epoch to epoch.

    Attributes:
        rows: all rows of the store: (rows, H, W, C) pixels, or (rows, variants, P, C) features, whose
            second variant is that of the mirrored image.
        row_of: (images,) the row of each image of the set.
        spec: of the pixels.
        auto_augment: whether training images are augmented.
        horizontal_flip: whether training images are mirrored at random.
        are_features: what `rows` holds.
    """

    rows: NDArray[np.generic]
    row_of: NDArray[np.int64]
    spec: ImageSpec
    auto_augment: bool
    horizontal_flip: bool
    are_features: bool = False

    def read(self, images: Sequence[int], names: Sequence[str], *, seed: int, epoch: int | None) -> Tensor:
        """Return (B, C, H, W) uint8 pixels or (B, P, C) features; with an epoch, as that epoch changes them."""
        rows = self.rows[self.row_of[np.asarray(images)]]  # a copy: the mapped file is only read
        changes = [generator("augment", seed, epoch, name) if epoch is not None else None for name in names]
        flips = [rng is not None and self.horizontal_flip and bool(rng.integers(2)) for rng in changes]
        if self.are_features:
            return torch.from_numpy(rows[np.arange(len(rows)), np.array(flips, dtype=np.int64)])
        pixels = [self._change(row, rng, flip) for row, rng, flip in zip(rows, changes, flips, strict=True)]
        return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)  # (B, H, W, C) in memory: channels last

    def _change(self, pixels: Pixels, rng: np.random.Generator | None, flip: bool) -> Pixels:
        if self.spec.resize_approach == "randomcrop":
            spare_y, spare_x = pixels.shape[0] - self.spec.height, pixels.shape[1] - self.spec.width
            top = int(rng.integers(spare_y + 1)) if rng is not None else spare_y // 2
            left = int(rng.integers(spare_x + 1)) if rng is not None else spare_x // 2
            pixels = pixels[top : top + self.spec.height, left : left + self.spec.width]
        if flip:
            pixels = pixels[:, ::-1]
        return trivial_augment(pixels, rng) if rng is not None and self.auto_augment else pixels


class CaptionSet:
    """Images and their captions, ready to be batched.

    Args:
        captions: by image id, in the order of the set.
        tokenizer: cuts captions.
        max_length: most tokens of a caption, end token included.
        images: rows of each input, by input name.
        seed: of the run.
        uniform: whether training takes a random window of a longer caption, not its start.
    """

    def __init__(
        self,
        captions: Mapping[str, Sequence[str]],
        tokenizer: Tokenizer,
        *,
        max_length: int,
        images: Mapping[str, ImageRows],
        seed: int = 0,
        uniform: bool = False,
    ):
        self.image_ids = list(captions)
        self.captions = [list(texts) for texts in captions.values()]
        self.max_length, self.images, self.seed, self.uniform = max_length, dict(images), seed, uniform
        self._special = tokenizer.special
        encoded = [tokenizer.encode(text) for texts in self.captions for text in texts]
        self._tokens = np.fromiter((t for tokens in encoded for t in tokens), dtype=np.int32)
        self._starts = np.cumsum([0, *(len(tokens) for tokens in encoded)])
        self.captions_of = np.cumsum([0, *(len(texts) for texts in self.captions)])

    def __len__(self) -> int:
        return len(self.image_ids)

    def with_shuffled_images(self) -> CaptionSet:
        """Return the set with every caption under another image: what a model that ignores images does not notice."""
        order = generator("shuffle", self.seed).permutation(len(self))
        other = np.empty_like(order)
        other[order] = np.roll(order, 1)  # a single cycle: no image keeps its own captions
        return self.with_images({name: replace(rows, row_of=rows.row_of[other]) for name, rows in self.images.items()})

    def with_images(self, images: Mapping[str, ImageRows]) -> CaptionSet:
        """Return the set with other rows of its images."""
        changed = copy.copy(self)
        changed.images = dict(images)
        return changed

    @property
    def n_captions(self) -> int:
        return int(self.captions_of[-1])

    @property
    def longest(self) -> int:
        """Return the tokens of the longest caption, end token included."""
        return int(np.diff(self._starts).max()) + 1

    def read_images(
        self, images: Sequence[int], *, epoch: int | None = None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return (pixels, features) by input name of these images of the set; with an epoch, as that epoch changes them."""
        pixels: dict[str, Tensor] = {}
        features: dict[str, Tensor] = {}
        names = [self.image_ids[i] for i in images]
        for name, rows in self.images.items():
            of_kind = features if rows.are_features else pixels
            of_kind[name] = rows.read(images, names, seed=self.seed, epoch=epoch)
        return pixels, features

    def stream(self, caption: int, epoch: int | None) -> CaptionTokens:
        """Return a caption's (input ids, target ids, first position).

        A caption within `max_length` reads <bos> w1 .. wn <eos>. Of a longer one that line is cut to
        max_length + 1 tokens, at the start or, training with `uniform`, anywhere: the cut neither begins
        with a false <bos> nor ends with a false <eos>.
        """
        tokens = self._tokens[self._starts[caption] : self._starts[caption + 1]].tolist()
        line = [self._special.begin, *tokens, self._special.end]
        spare = len(line) - (self.max_length + 1)
        first = 0
        if spare > 0:
            if self.uniform and epoch is not None:
                first = int(generator("window", self.seed, epoch, caption).integers(spare + 1))
            line = line[first : first + self.max_length + 1]
        return line[:-1], line[1:], first

    def n_tokens(self, groups: Iterable[Group]) -> int:
        """Return how many target tokens the captions of these groups have."""
        captions = np.array([caption for group in groups for caption in group.captions])
        lengths = self._starts[captions + 1] - self._starts[captions] + 1
        return int(np.minimum(lengths, self.max_length).sum())

    def batch(self, groups: Sequence[Group], *, epoch: int | None = None) -> Batch:
        """Return the batch of these groups; with an epoch, as training sees it in that epoch.

        Raises:
            DataError: naming the images, whatever fails, in a worker or in line.
        """
        images = [group.image for group in groups]
        names = [self.image_ids[i] for i in images]
        try:
            pixels, features = self.read_images(images, epoch=epoch)
            captions = [[self.stream(caption, epoch) for caption in group.captions] for group in groups]
            return collate(tuple(names), captions, pixels=pixels, features=features)
        except Exception as error:
            reason = f"{type(error).__name__} {error}".strip()
            raise DataError(
                f"the batch of {len(names)} images {', '.join(names[:5])} ... cannot be prepared: {reason}"
            ) from error

    def batches(self, plan: Plan, *, epoch: int | None = None, workers: int = 0) -> Iterator[Batch]:
        """Yield the plan's batches in order, prepared beside the caller by `workers` threads."""
        if workers < 1:
            for groups in plan:
                yield self.batch(groups, epoch=epoch)
            return
        with ThreadPoolExecutor(workers) as pool:
            waiting: list[Future[Batch]] = []
            try:
                for groups in plan:
                    waiting.append(pool.submit(self.batch, groups, epoch=epoch))
                    if len(waiting) > max(BATCHES_AHEAD, workers):
                        yield waiting.pop(0).result()
                while waiting:
                    yield waiting.pop(0).result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
