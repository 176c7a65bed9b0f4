"""In which order captions are trained on: a pure function of the seed and the epoch.

An image brings up to `captions_per_image` of its captions into a step: a `Group`. An epoch is a permutation of all
groups, cut into batches of at most `batch_size` captions; every caption comes once an epoch. A position in
training is therefore two integers, epoch and batch, whatever the number of workers or processes.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from img2seq.data.seeds import generator


@dataclass(frozen=True)
class Group:
    """One image, by its place in the set, and those of its captions that go into a step, by their places."""

    image: int
    captions: tuple[int, ...]


Plan = list[list[Group]]


def training_plan(
    captions_of: NDArray[np.int64], *, batch_size: int, captions_per_image: int, seed: int, epoch: int
) -> Plan:
    """Return the batches of an epoch.

    Args:
        captions_of: (images + 1,) where each image's captions begin in the list of all captions.
        batch_size: the most captions in a batch.
        captions_per_image: the most captions in a group; no more than `batch_size` are taken.
        seed: of the run.
        epoch: from 0.
    """
    rng = generator("order", seed, epoch)
    size = min(captions_per_image, batch_size)
    groups: list[Group] = []
    for image, (first, last) in enumerate(zip(captions_of[:-1].tolist(), captions_of[1:].tolist(), strict=True)):
        places = list(range(first, last))
        if last - first > size:  # which captions go together changes from epoch to epoch
            places = [first + int(i) for i in rng.permutation(last - first)]
        groups += [Group(image, tuple(places[i : i + size])) for i in range(0, len(places), size)]
    return cut([groups[i] for i in rng.permutation(len(groups))], batch_size)


def validation_plan(captions_of: NDArray[np.int64], *, batch_size: int) -> Plan:
    """Return every image once, in order, with all its captions, cut into batches."""
    bounds = captions_of.tolist()
    groups = [Group(i, tuple(range(first, last))) for i, (first, last) in enumerate(itertools.pairwise(bounds))]
    return cut(groups, batch_size)


def cut(groups: list[Group], batch_size: int) -> Plan:
    """Fill batches in order with at most `batch_size` captions, but at least one group."""
    plan: Plan = []
    filled = batch_size
    for group in groups:
        if filled + len(group.captions) > batch_size:
            plan.append([])
            filled = 0
        plan[-1].append(group)
        filled += len(group.captions)
    return plan


def share(groups: list[Group], rank: int, size: int) -> list[Group]:
    """Return the part of a batch that one of several processes computes.

    A part is a run of neighbours, and all parts end to end are the batch. Each has about as many captions as the others; where
    there are fewer groups than processes, some have none.
    """
    sizes = np.array([len(group.captions) for group in groups])
    middles = np.cumsum(sizes) - sizes / 2
    owners = (middles * size / sizes.sum()).astype(np.int64)
    return [group for group, owner in zip(groups, owners.tolist(), strict=True) if owner == rank]
