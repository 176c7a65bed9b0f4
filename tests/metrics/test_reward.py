"""The reward of self-critical training: CIDEr-D as it is computed elsewhere, with the end token among the words."""

from __future__ import annotations

import numpy as np
import pytest

from img2seq.metrics.bleu import bleu_counts, bleu_from_counts
from img2seq.metrics.cider import DocumentFrequency, cider_d
from img2seq.metrics.ngrams import count_corpus
from img2seq.metrics.ptb import ptb_tokenize
from img2seq.metrics.reward import END, CaptionReward

WORDS = [
    "a",
    "the",
    "dog",
    "cat",
    "runs",
    "sits",
    "on",
    "with",
    "red",
    "ball's",
    "grass,",
    "22",
    "3/4",
    "beach",
    "jumping",
    "in",
    "front",
    "of",
]


def sentences(rng: np.random.Generator, n: int, *, new: str = "") -> list[str]:
    words = [*WORDS, *new.split()]
    return [" ".join(rng.choice(words, size=rng.integers(0 if new else 1, 14))) for _ in range(n)]


def plain(
    references: list[list[str]], images: list[int], texts: list[str], ended: list[bool]
) -> tuple[np.ndarray, np.ndarray]:
    """Return CIDEr-D and BLEU-4 of each sample by the functions that `img2seq evaluate` uses."""
    truths = [[[*ptb_tokenize(text), END] for text in of_image] for of_image in references]
    frequency = DocumentFrequency.from_references(truths)
    samples = [[*ptb_tokenize(text), *([END] if has_end else [])] for text, has_end in zip(texts, ended, strict=True)]
    corpus = count_corpus(samples, [truths[image] for image in images])
    return cider_d(corpus, frequency), bleu_from_counts(bleu_counts(corpus))[:, 3]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("bleu_weight", [0.0, 2.5])
def test_rewards_are_the_scores_of_the_plain_way(seed: int, bleu_weight: float) -> None:
    rng = np.random.default_rng(seed)
    references = [sentences(rng, int(rng.integers(1, 6))) for _ in range(30)]
    images = rng.integers(0, 30, 200).tolist()
    texts, ended = sentences(rng, 200, new="zebra unicorn's quark"), (rng.random(200) < 0.8).tolist()
    texts[:20] = [references[image][0] for image in images[:20]]
    cider, bleu = plain(references, images, texts, ended)
    found = CaptionReward(references, bleu_weight=bleu_weight).of(np.array(images), texts, ended)
    np.testing.assert_allclose(found, cider + bleu_weight * bleu, atol=1e-9)
    assert cider.max() > 5
    assert cider.min() == 0


def test_a_reward_does_not_depend_on_the_other_samples() -> None:
    rng = np.random.default_rng(5)
    references = [sentences(rng, 3) for _ in range(10)]
    reward, images = CaptionReward(references, bleu_weight=1.0), np.arange(10)
    texts, ended = sentences(rng, 10, new="zebra"), [True] * 10
    together = reward.of(images, texts, ended)
    alone = [float(reward.of(images[i : i + 1], texts[i : i + 1], [True])[0]) for i in range(10)]
    np.testing.assert_allclose(alone, together, rtol=1e-12)


def test_captions_of_a_script_without_spaces_are_scored_by_characters() -> None:
    reward = CaptionReward([["一只狗在草地上奔跑"], ["两个孩子在海边玩耍"]])
    half, whole, nothing = reward.of(np.zeros(3, np.int64), ["一只狗在草地", "一只狗在草地上奔跑", ""], [True] * 3)
    assert 0 == nothing < half < whole == pytest.approx(10)


def test_a_caption_that_breaks_off_earns_less_than_one_that_ends() -> None:
    """Words of "with a" stand in the references, so without the end token they would pay."""
    references = [
        [f"a {animal} plays with a {toy}", f"one {animal} runs with a {toy}", f"the {animal} is near a {toy}"]
        for animal in ("dog", "cat", "bird", "cow", "horse")
        for toy in ("ball", "stick", "rope", "toy", "box")
    ]
    reward = CaptionReward(references)
    texts = ["a dog plays", "a dog plays with a"]
    short, broken = reward.of(np.zeros(2, np.int64), texts, [True, True])
    without, broken_without = plain(references, [0, 0], texts, [False, False])[0]
    assert broken_without > 1.2 * without  # what the end token is for
    finished, cut_off = reward.of(np.zeros(2, np.int64), ["a dog plays with a ball"] * 2, [True, False])
    assert broken / short < broken_without / without
    assert broken < finished > cut_off


def test_the_signature_says_what_decides_a_reward() -> None:
    reward = CaptionReward([["a dog"], ["a cat"]])
    assert reward.signature(n_samples=5, baseline="mean") == "STANDARD_wInit+Cider-D[n4,s6.0]+average[nspi5]"
    mixed = CaptionReward([["a dog"], ["a cat"]], bleu_weight=0.5)
    assert mixed.signature(n_samples=3, baseline="greedy") == (
        "STANDARD_wInit+Cider-D[n4,s6.0]+0.5*Bleu[n4]+greedy[nspi3]"
    )
