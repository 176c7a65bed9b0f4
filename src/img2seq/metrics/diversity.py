"""How varied captions are: a model can score well and say the same thing about every image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from img2seq.errors import ScoreError, shown
from img2seq.metrics.ptb import ptb_tokenize

_ALARM_SHARE = 0.5
# No English sentence ends so, and captions trained by their score learn to: "a man in a", "a dog with". Other languages have none of these.
_UNFINISHED = {"a", "an", "the", "and", "or", "with", "of", "in", "on", "at", "to", "for", "from", "as", "into", "his", "her", "its", "their", "which", "while", "is", "are"}  # fmt: skip


@dataclass(frozen=True)
class Diversity:
    """How varied the captions of a set of images are. Ratios lie between 0 and 1.

    Captions are compared as the tokens that are scored, so neither case nor punctuation makes two captions differ.
    `distinct_1` and `distinct_2` are Li et al.'s (2016, https://arxiv.org/abs/1510.03055) counts of different
    unigrams and bigrams; their ratios divide by all that were said. `copies` counts images whose caption is a training
    caption word for word; it is None where no training captions were given. `bad_endings` counts captions that break off after
    an English article, preposition, conjunction or the like, and empty ones.
    """

    captions: int
    distinct_captions: int
    distinct_captions_ratio: float
    distinct_1: int
    distinct_1_ratio: float
    distinct_2: int
    distinct_2_ratio: float
    mean_length: float
    copies: int | None
    copies_ratio: float | None
    most_common_caption: str
    most_common_share: float
    bad_endings: int
    bad_endings_ratio: float
    alarm: str | None

    @property
    def vocabulary_used(self) -> int:
        """How many different words the captions use."""
        return self.distinct_1

    @property
    def sentence(self) -> str:
        """What no score says of the captions."""
        return (
            f"{self.distinct_captions:,} of {self.captions:,} captions are distinct, {self.vocabulary_used:,} words are used, "
            f"{self.mean_length:.1f} a caption; {self.bad_endings_ratio:.1%} end badly"
        )


def measure_diversity(results: Mapping[str, str], *, training_captions: Iterable[str] | None = None) -> Diversity:
    """Return how varied `results`, one caption per image id, are; raise ScoreError where there are none.

    `alarm` is a sentence for the user when more than half of at least two images get the same caption.
    """
    if not results:
        raise ScoreError("there are no captions to measure")
    tokens = [ptb_tokenize(text) for text in results.values()]
    images = len(tokens)
    captions = Counter(" ".join(words) for words in tokens)
    # The first in alphabetical order among equals: the answer must not depend on the order of images.
    most_common, times = min(captions.items(), key=lambda item: (-item[1], item[0]))

    unigrams: Counter[str] = Counter()
    bigrams: Counter[tuple[str, str]] = Counter()
    for words in tokens:
        unigrams.update(words)
        bigrams.update(pairwise(words))
    bad_endings = sum(not words or words[-1].rstrip(".") in _UNFINISHED for words in tokens)
    copies = None
    if training_captions is not None:
        known = {" ".join(ptb_tokenize(text)) for text in training_captions}
        copies = sum(count for text, count in captions.items() if text in known)
    return Diversity(
        captions=images,
        distinct_captions=len(captions),
        distinct_captions_ratio=len(captions) / images,
        distinct_1=len(unigrams),
        distinct_1_ratio=len(unigrams) / max(1, unigrams.total()),
        distinct_2=len(bigrams),
        distinct_2_ratio=len(bigrams) / max(1, bigrams.total()),
        mean_length=sum(map(len, tokens)) / images,
        copies=copies,
        copies_ratio=None if copies is None else copies / images,
        most_common_caption=most_common,
        most_common_share=times / images,
        bad_endings=bad_endings,
        bad_endings_ratio=bad_endings / images,
        alarm=_alarm(most_common, times, images),
    )


def _alarm(caption: str, times: int, images: int) -> str | None:
    """Return a sentence when most images get the same caption, else None."""
    if images < 2 or times <= _ALARM_SHARE * images:
        return None
    return (
        f"{times:,} of {images:,} images get the same caption ({shown(caption)}): the model seems to ignore its images. "
        "Train longer, or look for a learning rate that is too high or pixels that are all alike."
    )
