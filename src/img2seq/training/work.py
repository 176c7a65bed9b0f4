"""What each step of a run trains on: the plan of an epoch cut into steps, and this process's share of each."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from img2seq.config.schema import BasicExperiment
from img2seq.data.batch import Batch
from img2seq.data.caption_set import CaptionSet
from img2seq.data.order import Plan, share, training_plan
from img2seq.model.cpu.switch import threads
from img2seq.training.distributed import World


@dataclass(frozen=True)
class Work:
    """What one process does in a step, and what all of them do together.

    Attributes:
        batches: this process's share of each batch whose gradients are gathered.
        counts: whether a batch counts. A process without a share computes some image all the same and leaves it out of
            the loss, for all must take part when gradients are summed.
        n_tokens: target tokens, of all processes.
        n_captions: captions, of all processes.
        image_ids: images, of all processes.
    """

    batches: list[Batch]
    counts: list[bool]
    n_tokens: int
    n_captions: int
    image_ids: list[str]


class WorkPlan:
    """The steps of a run.

    Args:
        data: what is trained on.
        basic: batch size, epochs, seed and workers.
        accumulate: batches whose gradients make a step.
        world: the processes that share each batch.
    """

    def __init__(self, data: CaptionSet, basic: BasicExperiment, accumulate: int, world: World):
        self.data, self.basic, self.accumulate, self.world = data, basic, accumulate, world
        # Where every image has as many captions, every epoch has as many batches.
        self._same_length = len({int(n) for n in data.captions_of[1:] - data.captions_of[:-1]}) == 1
        self._n_batches: dict[int, int] = {}
        self.n_steps = self.steps_before(basic.n_epochs)

    def n_batches(self, epoch: int) -> int:
        """Return how many batches an epoch has."""
        epoch = 0 if self._same_length else epoch
        if epoch not in self._n_batches:
            self._n_batches[epoch] = len(self._plan(epoch))
        return self._n_batches[epoch]

    def steps_before(self, epoch: int, batch: int = 0) -> int:
        """Return how many steps lead to a batch of an epoch."""
        n_batches = chain((self.n_batches(before) for before in range(epoch)), [batch])
        return sum(math.ceil(n / self.accumulate) for n in n_batches)

    def steps(self, epoch: int, *, done: int) -> Iterator[Work]:
        """Yield this process's share of each step of an epoch that begins after `done` batches."""
        data, world = self.data, self.world
        plan = self._plan(epoch)[done:]
        shares = [share(groups, world.rank, world.size) for groups in plan]
        mine = [own or groups[:1] for own, groups in zip(shares, plan, strict=True)]
        batches: list[Batch] = []
        for place, batch in enumerate(
            data.batches(mine, epoch=epoch, workers=threads(self.basic.dataloader_workers)), 1
        ):
            batches.append(batch)
            if len(batches) == self.accumulate or place == len(plan):
                first = place - len(batches)
                groups = [group for of_batch in plan[first:place] for group in of_batch]
                yield Work(
                    batches=batches,
                    counts=[bool(own) for own in shares[first:place]],
                    n_tokens=data.n_tokens(groups),
                    n_captions=sum(len(group.captions) for group in groups),
                    image_ids=[data.image_ids[group.image] for group in groups],
                )
                batches = []

    def smallest_batch(self) -> Batch:
        """Return one image with captions of its, to try a model on."""
        return self.data.batch(self._plan(0)[0][:1])

    def _plan(self, epoch: int) -> Plan:
        return training_plan(
            self.data.captions_of,
            batch_size=self.basic.batch_size,
            captions_per_image=self.basic.captions_per_image,
            seed=self.basic.seed,
            epoch=epoch,
        )
