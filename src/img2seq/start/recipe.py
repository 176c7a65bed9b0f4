"""The settings that fit a number of photographs and captions, each with why. docs/init.md says how they were measured."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from img2seq.data.scripts import words_are_not_separated
from img2seq.data.tokenizer import SPECIAL_TOKENS, Tokenizer
from img2seq.data.words import WORDS

LEAST_VALID, MOST_VALID = 16, 1000  # images: fewer say little, more take time at each evaluation
MOST_TOKENS = 1000  # of a caption that decides max_length


@dataclass(frozen=True)
class Recipe:
    """How to train on so many captions.

    Attributes:
        most_captions: to train on, up to which this recipe is taken.
        size: side of the images in pixels.
        n_epochs, batch_size, lr, lr_lb, wd, dropout, label_smoothing, ema_decay: of training.
        embedding_dim, num_layers, num_heads: of the decoder.
        min_freq: of words.
        no_repeat_ngram: for the commands that caption: little training leaves a decoder that repeats itself.
        n_evaluations: in a run. One, at the end, for very few captions: their loss is least long before they say anything.
    """

    most_captions: float
    size: int
    n_epochs: int
    batch_size: int
    lr: float
    dropout: float
    ema_decay: float | None
    embedding_dim: int
    num_layers: int
    num_heads: int
    min_freq: int
    lr_lb: float = 0.0
    wd: float = 0.05
    label_smoothing: float = 0.1
    no_repeat_ngram: int = 2
    n_evaluations: int = 10


RECIPES = [
    Recipe(200, size=128, n_epochs=60, batch_size=16, lr=0.001, dropout=0.5, ema_decay=None, embedding_dim=256, num_layers=2, num_heads=8, min_freq=2, n_evaluations=1),
    Recipe(1_000, size=128, n_epochs=25, batch_size=50, lr=0.001, dropout=0.5, ema_decay=None, embedding_dim=256, num_layers=2, num_heads=8, min_freq=2),
    Recipe(10_000, size=128, n_epochs=15, batch_size=50, lr=0.002, lr_lb=0.001, wd=1.0, dropout=0.5, ema_decay=0.99, embedding_dim=128, num_layers=2, num_heads=8, min_freq=2),
    Recipe(100_000, size=128, n_epochs=8, batch_size=160, lr=0.002, lr_lb=0.001, wd=0.25, dropout=0.4, ema_decay=0.998, embedding_dim=256, num_layers=2, num_heads=8, min_freq=5, no_repeat_ngram=0),
    Recipe(math.inf, size=128, n_epochs=5, batch_size=160, lr=0.001, dropout=0.2, ema_decay=0.99, embedding_dim=256, num_layers=2, num_heads=8, min_freq=5, no_repeat_ngram=0),
]  # fmt: skip


@dataclass(frozen=True)
class Text:
    """How captions are cut into tokens.

    Attributes:
        split_on: "words", or "" for characters.
        why: it is so.
        lowercase: whether letters have two cases.
        n_different: tokens there are.
        longest: tokens of the longest caption, the end token included.
        usual: tokens that 99 of 100 captions do not exceed, the end token included.
        most_seen: how often the most frequent token is seen.
    """

    split_on: str
    why: str
    lowercase: bool
    n_different: int
    longest: int
    usual: int
    most_seen: int


def text_of(captions: Sequence[str]) -> Text:
    """Return how captions are best cut into tokens."""
    joined = words_are_not_separated(word for caption in captions for word in caption.split(" "))
    lowercase = any(caption.lower() != caption for caption in captions)
    tokenizer = Tokenizer(SPECIAL_TOKENS, split_on="" if joined else WORDS, lowercase=lowercase)
    counts: Counter[str] = Counter()
    lengths = []
    for caption in captions:
        tokens = tokenizer.cut(tokenizer.normalise(caption))
        counts.update(tokens)
        lengths.append(len(tokens) + 1)
    lengths.sort()
    return Text(
        split_on="" if joined else WORDS,
        why="characters: this script has no spaces between words" if joined else "words and punctuation marks",
        lowercase=lowercase,
        n_different=len(counts),
        longest=lengths[-1],
        usual=lengths[int(0.99 * (len(lengths) - 1))],
        most_seen=max(counts.values()),
    )


def recipe_for(n_captions: int) -> Recipe:
    """Return the recipe for so many training captions."""
    return next(recipe for recipe in RECIPES if n_captions <= recipe.most_captions)


def fine_tuning_recipe(n_captions: int) -> Recipe:
    """Return the recipe for so many training captions where another captioner is begun with: shorter, at a lower rate."""
    batch_size = 25 if n_captions < 1_000 else 50
    return replace(recipe_for(n_captions), n_epochs=10, batch_size=batch_size, lr=0.0002, lr_lb=0.0, wd=0.05, dropout=0.3, ema_decay=None, min_freq=2, n_evaluations=10)  # fmt: skip


def valid_size(n_images: int) -> int:
    """Return how many images to hold out: a tenth, at least 16 and at most 1,000, but never more than a quarter."""
    return max(1, min(max(n_images // 10, LEAST_VALID), MOST_VALID, n_images // 4))


def evaluation_interval(recipe: Recipe, n_captions: int) -> int:
    """Return the steps between the evaluations of a run."""
    return max(1, math.ceil(n_captions / recipe.batch_size) * recipe.n_epochs // recipe.n_evaluations)
