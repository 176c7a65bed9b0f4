"""Self-critical training: raise the probability of sampled captions that score above the others of their image.

Rennie et al. 2017, https://arxiv.org/abs/1612.00563; with the mean of the other samples as baseline Luo 2020,
https://arxiv.org/abs/2003.09971. Of K samples of an image with rewards r the loss is

    - 1 / (all samples of the step) * sum over samples k, tokens t of (r_k - b_k) log p(w_kt | w_k,<t, image)

whose gradient is that of the expected reward, without bias: samples are drawn of just these probabilities (without dropout, of the
tokens that a caption may have), and no b_k depends on sample k. Differs from both in that the sum is not divided by lengths.

Samples depend on the seed, the step and the image alone: a resumed run draws the same, however many processes share the work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from img2seq.config.decoding import Decoding
from img2seq.config.phases import SelfCritical
from img2seq.data.batch import Batch, CaptionTokens, collate
from img2seq.data.caption_set import CaptionSet
from img2seq.data.seeds import seed_of
from img2seq.data.tokenizer import Tokenizer
from img2seq.generation.search import Hypothesis, search
from img2seq.inference.torch_model import TorchModel
from img2seq.metrics.reward import CaptionReward
from img2seq.model.caption_model import CaptionModel
from img2seq.model.packing import PackedBatch, pack
from img2seq.model.teacher_forcing import next_token_logits
from img2seq.training.work import Work


@dataclass(frozen=True)
class WeightedBatch(PackedBatch):
    """Captions whose tokens count differently.

    Attributes:
        weights: (N,) what the negative log-probability of each target token is multiplied by.
        sampled: (N,) whether a token was drawn among those that a caption may have, or is of a person's caption.
    """

    weights: Tensor
    sampled: Tensor


class SelfCriticalLoss:
    """Sampled captions, by how far their reward is above the baseline.

    Args:
        options: samples, baseline, and what else the loss holds.
        data: the training captions, which are the references.
        tokenizer: of the run.
        reward: of samples, by the place of their image in `data`.
        max_length: most tokens of a sample; None is as many as the model can.
        seed: of the run.
    """

    def __init__(
        self,
        options: SelfCritical,
        data: CaptionSet,
        tokenizer: Tokenizer,
        reward: CaptionReward,
        *,
        max_length: int | None,
        seed: int,
    ):
        self.options, self.tokenizer, self.reward, self.seed = options, tokenizer, reward, seed
        self._place_of = {image_id: place for place, image_id in enumerate(data.image_ids)}
        self._length = {} if max_length is None else {"max_length": max_length}
        special = tokenizer.special
        self._never = torch.zeros(len(tokenizer), dtype=torch.bool)
        self._never[list(special.never_generated)] = True
        self._rewards = 0.0

    def prepare(
        self, model: CaptionModel, batch: Batch, *, work: Work, step: int, counts: bool = True
    ) -> WeightedBatch:
        """Sample captions of the batch's images, score them, and return them with their weights.

        The model is left in training mode where gradients are computed with dropout, else in evaluation mode.
        """
        n_samples, special = self.options.n_samples, self.tokenizer.special
        sampled, greedy = self._search(model, batch, seed_of("self-critical", self.seed, step))
        model.train(self.options.dropout)
        images = np.array([self._place_of[image_id] for image_id in batch.image_ids])
        rewards = self._score(np.repeat(images, n_samples), [h for of_image in sampled for h in of_image])
        rewards = rewards.reshape(len(images), n_samples)
        self._rewards += float(rewards.sum()) * counts
        if greedy:
            baseline = self._score(images, [hypotheses[0] for hypotheses in greedy])[:, None]
        else:
            baseline = (rewards.sum(1, keepdims=True) - rewards) / (n_samples - 1)
        weights = ((rewards - baseline) / (work.n_groups * n_samples)).ravel()
        captions = [[_stream(h, special.begin, special.end) for h in of_image] for of_image in sampled]
        if not self.options.cross_entropy_weight:
            return self._pack(batch, captions, weights, np.ones(len(weights), bool), model.device)
        weight = self.options.cross_entropy_weight / work.n_tokens
        written = _streams_of(batch)
        both = [mine + theirs for mine, theirs in zip(captions, written, strict=True)]
        of_image = weights.reshape(len(images), n_samples)
        all_weights = np.concatenate(
            [np.append(own, [weight] * len(theirs)) for own, theirs in zip(of_image, written, strict=True)]
        )
        is_sample = np.concatenate([np.arange(len(captions)) < n_samples for captions in both])
        return self._pack(batch, both, all_weights, is_sample, model.device)

    def loss_sum(self, model: CaptionModel, batch: PackedBatch) -> Tensor:
        """Return the loss: negative log-probabilities of the target tokens by their weights, summed."""
        assert isinstance(batch, WeightedBatch)
        logits = next_token_logits(model, batch).float()
        never = batch.sampled.unsqueeze(1) & self._never.to(logits.device)
        nats = F.cross_entropy(logits.masked_fill(never, float("-inf")), batch.target_ids, reduction="none")
        return (nats * batch.weights).sum()

    def divisor(self, work: Work) -> float:
        """Return 1: weights are divided already."""
        return 1.0

    def measured(self, work: Work, loss_sum: float) -> tuple[float, int]:
        """Return the rewards of this process's samples since the last call, summed, and how many samples the step has."""
        rewards, self._rewards = self._rewards, 0.0
        return rewards, work.n_groups * self.options.n_samples

    def _search(
        self, model: CaptionModel, batch: Batch, seed: int
    ) -> tuple[list[list[Hypothesis]], list[list[Hypothesis]]]:
        """Return samples of each image, and its greedy caption where that is the baseline."""
        names = batch.image_ids
        steps = TorchModel(model).steps(pixels=batch.pixels, features=batch.features, n_images=len(names))

        def found(decoding: Decoding) -> list[list[Hypothesis]]:
            return search(steps(slice(None)), decoding, self.tokenizer.special, names=names)

        sampling = Decoding(method="sample", n_best=self.options.n_samples, seed=seed, **self._length)
        greedy = Decoding(method="greedy", **self._length)
        return found(sampling), found(greedy) if self.options.baseline == "greedy" else []

    def _score(self, images: NDArray[np.int64], found: Sequence[Hypothesis]) -> NDArray[np.float64]:
        return self.reward.of(images, [self.tokenizer.decode(h.tokens) for h in found], [h.ended for h in found])

    def _pack(
        self,
        batch: Batch,
        captions: Sequence[Sequence[CaptionTokens]],
        weights: NDArray[np.float64],
        is_sample: NDArray[np.bool_],
        device: torch.device,
    ) -> WeightedBatch:
        """Return the captions of the batch's images with the weight of each token."""
        replaced = collate(batch.image_ids, captions, pixels=batch.pixels, features=batch.features)
        packed, lengths = pack(replaced, device), replaced.caption_lengths
        return WeightedBatch(
            **vars(packed),
            weights=torch.from_numpy(np.repeat(weights, lengths)).to(device, torch.float32),
            sampled=torch.from_numpy(np.repeat(is_sample, lengths)).to(device),
        )


def _stream(found: Hypothesis, begin: int, end: int) -> CaptionTokens:
    """Return a sample's (input ids, target ids, first position); one that was cut off has no end."""
    targets = [*found.tokens, end] if found.ended else found.tokens
    return [begin, *targets[:-1]], targets, 0


def _streams_of(batch: Batch) -> list[list[CaptionTokens]]:
    """Return the captions of each image of a batch."""
    ends = np.cumsum(batch.caption_lengths)
    flat: list[CaptionTokens] = [
        (batch.input_ids[i:j].tolist(), batch.target_ids[i:j].tolist(), int(batch.positions[i]))
        for i, j in zip(ends - batch.caption_lengths, ends, strict=True)
    ]
    last = np.cumsum(batch.captions_of_image)
    return [flat[i:j] for i, j in zip(last - batch.captions_of_image, last, strict=True)]
