"""What each step of a run trains on: the plan of an epoch cut into steps, and this process's share of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from img2seq.config.globals import BasicExperiment
from img2seq.data.batch import Batch
from img2seq.data.caption_set import CaptionSet
from img2seq.data.order import Group, Plan, have_mixed_sizes, image_plan, share, training_plan
from img2seq.errors import ModelError
from img2seq.training.distributed import World


@dataclass(frozen=True)
class Work:
    """What one process does in a step, and what all of them do together.

    Attributes:
        batches: this process's share of each batch whose gradients are gathered.
        counts: whether a batch counts. A process without a share computes some image all the same and leaves it out of
            the loss, for all must take part when gradients are summed.
        n_tokens: target tokens, of all processes.
        n_captions: captions, of all processes; those sampled, where captions are sampled.
        n_groups: images with captions of theirs, of all processes.
        image_ids: images, of all processes.
    """

    batches: list[Batch]
    counts: list[bool]
    n_tokens: int
    n_captions: int
    n_groups: int
    image_ids: list[str]


class WorkPlan:
    """The steps of a run.

    Args:
        data: what is trained on.
        basic: batch size, epochs, seed and workers.
        accumulate: batches whose gradients make a step.
        world: the processes that share each batch.
        fewest_images: 2 for a model that cannot train on a single image.
        n_samples: captions that are sampled of each image, which then comes once an epoch; 0 trains on people's captions.

    Attributes:
        n_batches: of every epoch.
        n_steps: of the run.
        has_mixed_groups: whether some groups bring more captions into a step than others.
        n_joined: batches of an epoch that hold more than `batch_size` captions, for one of a single image has joined them.
    """

    def __init__(
        self,
        data: CaptionSet,
        basic: BasicExperiment,
        accumulate: int,
        world: World,
        *,
        fewest_images: int = 1,
        n_samples: int = 0,
    ):
        self.data, self.basic, self.accumulate, self.world = data, basic, accumulate, world
        self.fewest_images, self.n_samples = fewest_images, n_samples
        first = self._plan(0)
        if len(first[0]) < fewest_images:
            raise ModelError(
                "batch normalisation cannot train on one image whose feature map is 1 x 1, and there is but one; add images, raise size, or freeze the encoder"
            )
        self.n_batches, self.has_mixed_groups = len(first), have_mixed_sizes(chain.from_iterable(first))
        self.n_joined = sum(self._n_captions(groups) > max(basic.batch_size, n_samples) for groups in first)
        self.n_steps = self.steps_before(basic.n_epochs)

    def steps_before(self, epoch: int, batch: int = 0) -> int:
        """Return how many steps lead to a batch of an epoch."""
        return epoch * -(-self.n_batches // self.accumulate) + -(-batch // self.accumulate)

    def steps(self, epoch: int, *, done: int) -> Iterator[Work]:
        """Yield this process's share of each step of an epoch that begins after `done` batches."""
        data, world = self.data, self.world
        plan = self._plan(epoch)[done:]
        shares = [share(groups, world.rank, world.size, self.fewest_images) for groups in plan]
        mine = [own or groups[: self.fewest_images] for own, groups in zip(shares, plan, strict=True)]
        batches: list[Batch] = []
        for place, batch in enumerate(data.batches(mine, epoch=epoch, workers=self.basic.dataloader_workers), 1):
            batches.append(batch)
            if len(batches) == self.accumulate or place == len(plan):
                first = place - len(batches)
                groups = [group for of_batch in plan[first:place] for group in of_batch]
                yield Work(
                    batches=batches,
                    counts=[bool(own) for own in shares[first:place]],
                    n_tokens=data.n_tokens(groups),
                    n_captions=self._n_captions(groups),
                    n_groups=len(groups),
                    image_ids=[data.image_ids[group.image] for group in groups],
                )
                batches = []

    def smallest_batch(self) -> Batch:
        """Return one image with captions of its, to try a model on."""
        return self.data.batch(self._plan(0)[0][:1])

    def _n_captions(self, groups: list[Group]) -> int:
        return sum(self.n_samples or len(group.captions) for group in groups)

    def _plan(self, epoch: int) -> Plan:
        if self.n_samples:
            return image_plan(
                self.data.captions_of,
                images_per_batch=max(1, self.basic.batch_size // self.n_samples),
                seed=self.basic.seed,
                epoch=epoch,
                fewest_groups=self.fewest_images,
            )
        return training_plan(
            self.data.captions_of,
            batch_size=self.basic.batch_size,
            captions_per_image=self.basic.captions_per_image,
            seed=self.basic.seed,
            epoch=epoch,
            fewest_groups=self.fewest_images,
        )
