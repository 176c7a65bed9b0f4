"""In which order captions are trained on: a pure function of the seed and the epoch.

An image brings up to `captions_per_image` of its captions into a step: a `Group`. An epoch is a permutation of all
groups, cut into batches of at most `batch_size` captions; every caption comes once an epoch. All epochs have equally many
batches. A position in training is therefore two integers, epoch and batch, whatever the number of workers or processes,
and the number of steps is known before the first.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
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
    captions_of: NDArray[np.int64],
    *,
    batch_size: int,
    captions_per_image: int,
    seed: int,
    epoch: int,
    fewest_groups: int = 1,
) -> Plan:
    """Return the batches of an epoch, as many as epoch 0 has.

    Where groups differ in size, how many batches they fill depends on their order. An epoch that would have more or fewer
    than epoch 0 takes groups of the same sizes in the same places as epoch 0: which group of a size stands there still differs.

    Args:
        captions_of: (images + 1,) where each image's captions begin in the list of all captions.
        batch_size: the most captions in a batch.
        captions_per_image: the most captions in a group; no more than `batch_size` are taken.
        seed: of the run.
        epoch: from 0.
        fewest_groups: 2 joins a batch of a single group to its neighbour; it may then hold more than `batch_size` captions.
    """
    size = min(captions_per_image, batch_size)
    groups = _shuffled_groups(captions_of, size, seed, epoch)
    plan = cut(groups, batch_size, fewest_groups)
    if epoch and have_mixed_sizes(groups):
        first = _shuffled_groups(captions_of, size, seed, 0)
        if len(plan) != len(cut(first, batch_size, fewest_groups)):
            plan = cut(_placed_by_size(groups, like=first), batch_size, fewest_groups)
    return plan


def _shuffled_groups(captions_of: NDArray[np.int64], size: int, seed: int, epoch: int) -> list[Group]:
    rng = generator("order", seed, epoch)
    groups: list[Group] = []
    for image, (first, last) in enumerate(zip(captions_of[:-1].tolist(), captions_of[1:].tolist(), strict=True)):
        places = list(range(first, last))
        if last - first > size:  # which captions go together changes from epoch to epoch
            places = [first + int(i) for i in rng.permutation(last - first)]
        groups += [Group(image, tuple(places[i : i + size])) for i in range(0, len(places), size)]
    return [groups[i] for i in rng.permutation(len(groups))]


def have_mixed_sizes(groups: Iterable[Group]) -> bool:
    """Return whether some groups bring more captions than others."""
    return len({len(group.captions) for group in groups}) > 1


def _placed_by_size(groups: list[Group], *, like: list[Group]) -> list[Group]:
    """Return the groups in the order of sizes of other groups, those of a size in the order they come in."""
    waiting = {size: iter([g for g in groups if len(g.captions) == size]) for size in {len(g.captions) for g in like}}
    return [next(waiting[len(group.captions)]) for group in like]


def image_plan(
    captions_of: NDArray[np.int64], *, images_per_batch: int, seed: int, epoch: int, fewest_groups: int = 1
) -> Plan:
    """Return the batches of an epoch in which each image comes once, with all of its captions."""
    (groups,) = validation_plan(captions_of, batch_size=int(captions_of[-1]))
    shuffled = [groups[i] for i in generator("order", seed, epoch).permutation(len(groups))]
    plan = [shuffled[i : i + images_per_batch] for i in range(0, len(groups), images_per_batch)]
    if len(plan) > 1 and len(plan[-1]) < fewest_groups:
        plan[-2:] = [plan[-2] + plan[-1]]
    return plan


def validation_plan(captions_of: NDArray[np.int64], *, batch_size: int) -> Plan:
    """Return every image once, in order, with all its captions, cut into batches."""
    bounds = captions_of.tolist()
    groups = [Group(i, tuple(range(first, last))) for i, (first, last) in enumerate(itertools.pairwise(bounds))]
    return cut(groups, batch_size)


def cut(groups: list[Group], batch_size: int, fewest_groups: int = 1) -> Plan:
    """Fill batches in order with at most `batch_size` captions, but at least one group.

    With `fewest_groups` 2 a batch of one group joins the next one, and the last one that before it.
    """
    plan: Plan = []
    filled = batch_size
    for group in groups:
        if filled + len(group.captions) > batch_size and not (plan and len(plan[-1]) < fewest_groups):
            plan.append([])
            filled = 0
        plan[-1].append(group)
        filled += len(group.captions)
    if len(plan) > 1 and len(plan[-1]) < fewest_groups:
        plan[-2:] = [plan[-2] + plan[-1]]
    return plan


def share(groups: list[Group], rank: int, size: int, fewest_groups: int = 1) -> list[Group]:
    """Return the part of a batch that one of several processes computes.

    A part is a run of neighbours, and all parts end to end are the batch. Each has about as many captions as the others; where
    there are fewer groups than processes, some have none. With `fewest_groups` 2 a part of one group is avoided: then each has
    about as many groups as the others, or none.
    """
    sizes = np.array([len(group.captions) for group in groups])
    middles = np.cumsum(sizes) - sizes / 2
    owners = (middles * size / sizes.sum()).astype(np.int64)
    if fewest_groups > 1 and np.bincount(owners, minlength=size).min() < fewest_groups:
        n_parts = max(1, min(size, len(groups) // fewest_groups))
        owners = np.arange(len(groups)) * n_parts // len(groups)
    return [group for group, owner in zip(groups, owners.tolist(), strict=True) if owner == rank]
