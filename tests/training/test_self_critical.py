"""Self-critical training: the gradient of the plain computation, samples that depend on nothing else, and where it leads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from img2seq.config.decoding import Decoding
from img2seq.config.phases import SelfCritical
from img2seq.data.batch import Batch, collate
from img2seq.data.caption_set import CaptionSet, ImageRows
from img2seq.data.image import ImageSpec
from img2seq.data.order import Group
from img2seq.data.tokenizer import EOS, Tokenizer
from img2seq.data.vocabulary import learn_words
from img2seq.generation.model_step import ModelStep
from img2seq.generation.search import search
from img2seq.metrics.reward import CaptionReward
from img2seq.model.caption_model import CaptionModel
from img2seq.model.decoder import Decoder
from img2seq.model.encoder import ImageEncoder
from img2seq.model.packing import pack
from img2seq.model.teacher_forcing import next_token_logits, token_losses
from img2seq.training.self_critical import SelfCriticalLoss, WeightedBatch
from img2seq.training.work import Work

CAPTIONS = {
    "one": ["a red ball lies here", "the ball is red"],
    "two": ["a blue box lies here", "one box is blue"],
    "three": ["a green ball and a box", "a box stands there"],
}
Images = np.ndarray


class PlainReward(CaptionReward):
    """A reward given by a function of the texts."""

    def __init__(self, function: Callable[[str, bool], float]):
        self.function = function

    def of(self, images: Images, texts: Sequence[str], ended: Sequence[bool]) -> np.ndarray:
        return np.array([self.function(text, has_end) for text, has_end in zip(texts, ended, strict=True)])


def build(
    captions: dict[str, list[str]] = CAPTIONS, *, dropout: float = 0.0, min_freq: int = 1
) -> tuple[CaptionModel, CaptionSet, Tokenizer]:
    """Return a small model of random weights with its data."""
    torch.manual_seed(3)
    tokenizer = learn_words([t for texts in captions.values() for t in texts], split_on=" ", min_freq=min_freq)
    encoder = ImageEncoder("test_resnet", height=32, width=32, mean=[0.5] * 3, std=[0.5] * 3, options={}, frozen=True)
    decoder = Decoder(
        vocabulary=len(tokenizer), width=16, n_layers=2, n_heads=2, feedforward=32, dropout=dropout,
        position_dropout=dropout, position="encode", n_positions=12, has_memory=True,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(len(captions), 1, encoder.n_places, encoder.n_features)).astype(np.float16)
    spec = ImageSpec(height=32, width=32, mode="RGB")
    images = {"photo": ImageRows(rows, np.arange(len(captions)), spec, False, False, are_features=True)}
    data = CaptionSet(captions, tokenizer, max_length=9, images=images)
    return CaptionModel({"photo": encoder}, decoder), data, tokenizer


def whole_batch(data: CaptionSet, images: Sequence[int] | None = None) -> Batch:
    bounds = data.captions_of.tolist()
    return data.batch([Group(i, tuple(range(bounds[i], bounds[i + 1]))) for i in images or range(len(data))])


def work_of(data: CaptionSet) -> Work:
    n_tokens = sum(len(whole_batch(data, [i]).target_ids) for i in range(len(data)))
    return Work(batches=[], counts=[], n_tokens=n_tokens, n_captions=data.n_captions, n_groups=len(data), image_ids=[])


def objective_of(
    data: CaptionSet, tokenizer: Tokenizer, reward: CaptionReward | None = None, **options: Any
) -> SelfCriticalLoss:
    chosen = SelfCritical.model_validate(options)
    reward = reward or CaptionReward(data.captions, bleu_weight=chosen.bleu_weight)
    return SelfCriticalLoss(chosen, data, tokenizer, reward, max_length=9, seed=1)


def samples_of(batch: WeightedBatch, n_captions: int) -> list[list[list[int]]]:
    """Return the target tokens of each image's captions."""
    begins = (batch.positions == 0).nonzero().flatten().tolist()
    ends = [*begins[1:], len(batch.positions)]
    flat = [batch.target_ids[i:j].tolist() for i, j in zip(begins, ends, strict=True)]
    return [flat[i : i + n_captions] for i in range(0, len(flat), n_captions)]


def gradients(model: CaptionModel, loss: Tensor) -> list[Tensor]:
    trained = [p for p in model.parameters() if p.requires_grad]
    return list(torch.autograd.grad(loss, trained))


def log_probability(
    model: CaptionModel, data: CaptionSet, tokenizer: Tokenizer, image: int, targets: list[int], *, sampled: bool
) -> Tensor:
    """Return the log-probability of one caption of one image, token by token."""
    _, features = data.read_images([image])
    caption = ([tokenizer.special.begin, *targets[:-1]], targets, 0)
    logits = next_token_logits(model, pack(collate((str(image),), [[caption]], features=features)))
    total = torch.zeros(())
    for row, token in zip(logits, targets, strict=True):
        others = [n for n in range(len(tokenizer)) if not (sampled and n in tokenizer.special.never_generated)]
        total = total + row[token] - torch.logsumexp(row[others], 0)
    return total


@pytest.mark.parametrize(
    "options",
    [
        {"n_samples": 4},
        {"n_samples": 3, "baseline": "greedy"},
        {"n_samples": 3, "cross_entropy_weight": 0.3, "bleu_weight": 0.5},
    ],
)
def test_the_gradient_is_that_of_the_plain_computation(options: dict[str, Any]) -> None:
    model, data, tokenizer = build()
    objective, work = objective_of(data, tokenizer, **options), work_of(data)
    n, weight = objective.options.n_samples, objective.options.cross_entropy_weight
    batch = objective.prepare(model, whole_batch(data), work=work, step=7)
    found = gradients(model, objective.loss_sum(model, batch) / objective.divisor(work))

    captions = samples_of(batch, n + (2 if weight else 0))
    expected = torch.zeros(())
    step = ModelStep(model.decoder, model.encode(pixels={}, features=data.read_images(range(3))[1]))
    greedy = search(step, Decoding(method="greedy", max_length=9), tokenizer.special)
    all_rewards = []
    for image, of_image in enumerate(captions):
        samples = of_image[:n]
        texts = [tokenizer.decode(targets) for targets in samples]
        rewards = objective.reward.of(np.full(n, image), texts, [targets[-1] == EOS for targets in samples])
        all_rewards += rewards.tolist()
        own = greedy[image][0]
        of_greedy = objective.reward.of(np.array([image]), [tokenizer.decode(own.tokens)], [own.ended])[0]
        for k, targets in enumerate(samples):
            others = [rewards[j] for j in range(n) if j != k]
            baseline = of_greedy if objective.options.baseline == "greedy" else sum(others) / len(others)
            log_p = log_probability(model, data, tokenizer, image, targets, sampled=True)
            expected = expected - (rewards[k] - baseline) * log_p / (3 * n)
        for targets in of_image[n:]:
            log_p = log_probability(model, data, tokenizer, image, targets, sampled=False)
            expected = expected - weight * log_p / work.n_tokens
    for one, other in zip(found, gradients(model, expected), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    assert max(float(gradient.abs().max()) for gradient in found) > 1e-3
    assert np.std(all_rewards) > 0
    measured, of_samples = objective.measured(work, 0.0)
    assert measured == pytest.approx(sum(all_rewards))
    assert of_samples == 3 * n
    assert objective.measured(work, 0.0)[0] == 0


def test_samples_follow_the_probabilities_of_the_model() -> None:
    """Without bias: the mean of many steps' first tokens is the distribution that the loss differentiates."""
    model, data, tokenizer = build()
    objective, work = objective_of(data, tokenizer, n_samples=512), work_of(data)
    firsts = [
        targets[0]
        for step in range(4)
        for targets in samples_of(objective.prepare(model, whole_batch(data, [1]), work=work, step=step), 512)[0]
    ]
    shares = np.bincount(firsts, minlength=len(tokenizer)) / len(firsts)
    for token in range(len(tokenizer)):
        if token in tokenizer.special.never_generated:
            assert shares[token] == 0
        else:
            p = float(log_probability(model, data, tokenizer, 1, [token], sampled=True).detach().exp())
            assert abs(shares[token] - p) < 5 * (p / len(firsts)) ** 0.5 + 1e-3


def test_samples_depend_on_step_and_image_alone() -> None:
    model, data, tokenizer = build()
    objective, work = objective_of(data, tokenizer), work_of(data)
    together = objective.prepare(model, whole_batch(data), work=work, step=4)
    alone = objective.prepare(model, whole_batch(data, [2, 1]), work=work, step=4)
    of_all, of_two = samples_of(together, 5), samples_of(alone, 5)
    assert of_two == [of_all[2], of_all[1]]
    again = samples_of(objective.prepare(model, whole_batch(data), work=work, step=5), 5)
    assert again != of_all
    of_third = together.weights[together.image_of_token == 2]
    torch.testing.assert_close(alone.weights[alone.image_of_token == 0], of_third)


def test_a_batch_that_does_not_count_is_not_measured() -> None:
    model, data, tokenizer = build()
    objective, work = objective_of(data, tokenizer), work_of(data)
    objective.prepare(model, whole_batch(data), work=work, step=4, counts=False)
    assert objective.measured(work, 0.0)[0] == 0


def test_gradients_have_dropout_where_it_is_asked_for_and_samples_have_none() -> None:
    model, data, tokenizer = build(dropout=0.5)
    work, drawn, modes = work_of(data), [], []
    for dropout in (False, True):
        objective = objective_of(data, tokenizer, dropout=dropout)
        batch = objective.prepare(model.train(), whole_batch(data), work=work, step=4)
        drawn.append(samples_of(batch, 5))
        modes.append(model.training)
    assert modes == [False, True]
    assert drawn[0] == drawn[1]


def train_until_settled(
    captions: dict[str, list[str]], reward: CaptionReward, *, steps: int = 150, min_freq: int = 1
) -> tuple[CaptionModel, CaptionSet, Tokenizer]:
    """Train by rewards alone; return the model with its data."""
    model, data, tokenizer = build(captions, min_freq=min_freq)
    objective, work = objective_of(data, tokenizer, reward), work_of(data)
    optimizer = torch.optim.Adam((p for p in model.parameters() if p.requires_grad), lr=0.01)
    written = pack(whole_batch(data))
    for _ in range(60):  # first from people's captions, as in earnest
        optimizer.zero_grad()
        (token_losses(model, written).mean()).backward()
        optimizer.step()
    for step in range(steps):
        optimizer.zero_grad()
        batch = objective.prepare(model, whole_batch(data), work=work, step=step)
        (objective.loss_sum(model, batch) / objective.divisor(work)).backward()
        optimizer.step()
    return model.eval(), data, tokenizer


def probability(model: CaptionModel, data: CaptionSet, tokenizer: Tokenizer, text: str, image: int = 0) -> float:
    targets = [*tokenizer.encode(text), EOS]
    with torch.no_grad():
        return float(log_probability(model, data, tokenizer, image, targets, sampled=True).exp())


@pytest.mark.parametrize("better", [0, 1])
def test_of_two_captions_the_better_one_is_learned(better: int) -> None:
    texts = ["a red ball lies here", "the ball is red"]
    reward = PlainReward(lambda text, ended: {texts[better]: 2.0, texts[1 - better]: 1.0}.get(text, 0.0) * ended)
    model, data, tokenizer = train_until_settled({"one": texts}, reward)
    assert probability(model, data, tokenizer, texts[better]) > 0.9


def test_captions_do_not_learn_to_end_before_their_end() -> None:
    """Two of three references end in a word that the vocabulary lacks, after "with a": breaking off there must not pay."""
    animals = ("dog", "cat", "bird", "cow", "horse", "pig")
    captions = {
        name: [f"a {name} plays with a toy{i}", f"a {name} plays with a thing{i}", f"a {name} plays outside"]
        for i, name in enumerate(animals)
    }

    def probabilities(reward: CaptionReward) -> tuple[float, float]:
        """Return those of the caption that ends, and of the one that breaks off, over all images."""
        found = train_until_settled(captions, reward, min_freq=2)
        ends = [probability(*found, f"a {name} plays outside", i) for i, name in enumerate(animals)]
        breaks = [probability(*found, f"a {name} plays with a", i) for i, name in enumerate(animals)]
        return float(np.mean(ends)), float(np.mean(breaks))

    class WithoutEnd(CaptionReward):
        def of(self, images: Images, texts: Sequence[str], ended: Sequence[bool]) -> np.ndarray:
            return super().of(images, texts, [False] * len(texts))

    references = list(captions.values())
    ends, breaks = probabilities(CaptionReward(references))
    assert ends > 0.8
    assert breaks < 0.1
    assert probabilities(WithoutEnd(references))[1] > 0.8, "if breaking off never paid this would show nothing"


def test_a_sample_that_was_cut_off_has_no_end() -> None:
    model, data, tokenizer = build()
    model.decoder.bias.data[EOS] = -50.0
    objective, work = objective_of(data, tokenizer), work_of(data)
    batch = objective.prepare(model, whole_batch(data), work=work, step=1)
    assert {len(targets) for of_image in samples_of(batch, 5) for targets in of_image} == {9}
    assert EOS not in batch.target_ids.tolist()
    assert torch.isfinite(objective.loss_sum(model, batch))
