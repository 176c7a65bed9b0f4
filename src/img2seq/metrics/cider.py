"""CIDEr-D, which is what pycocoevalcap 1.2 calls "CIDEr".

Vedantam, Zitnick, Parikh (2015), https://arxiv.org/abs/1411.5726: the similarity of a caption and its references as
tf-idf vectors over n-grams, n = 1..4, averaged over n and references, times 10. The "D" variant clips a weight to
the reference's and multiplies by a Gaussian of the difference in length:

    w(g)  = count(g) * (log N - log max(1, df(g)))        df: images whose references contain g;  N: images
    sim_n = sum over g of min(w_c(g), w_r(g)) * w_r(g) / (|w_c| |w_r|) * exp(-(l_c - l_r)^2 / (2 * 6^2))

As in pycocoevalcap, tf is the raw count. (It counts bigrams for the length l, which gives the same differences.) An
empty caption scores 0, and so does everything when N is 1, because all logarithms vanish.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from img2seq.errors import ScoreError, shown
from img2seq.metrics.ngrams import LONGEST, Corpus, Ngram, Order, words_of
from img2seq.progress import counted

SIGMA = 6.0
_FORMAT = "img2seq document frequency 1"


@dataclass(frozen=True)
class DocumentFrequency:
    """In how many of `images` images the references contain each n-gram, and where that was counted."""

    images: int
    counts: dict[Ngram, int]
    source: str

    @classmethod
    def from_references(cls, references: Iterable[Sequence[Sequence[str]]]) -> DocumentFrequency:
        """Count over references as tokens, several per image, to save them for captions of other images."""
        counts: Counter[Ngram] = Counter()
        images = 0
        for of_image in references:
            images += 1
            texts = [words_of(tokens) for tokens in of_image]
            counts.update(
                {
                    tuple(words[begin : begin + order])
                    for words in texts
                    for order in range(1, LONGEST + 1)
                    for begin in range(len(words) - order + 1)
                }
            )
        return cls(images, dict(counts), f"the references of {counted(images, 'image')}")

    def save(self, path: Path) -> None:
        """Write to a JSON file, n-grams in alphabetical order so that equal counts give equal bytes."""
        ngrams = {" ".join(ngram): count for ngram, count in sorted(self.counts.items())}
        path.write_text(
            json.dumps({"format": _FORMAT, "images": self.images, "ngrams": ngrams}, ensure_ascii=False),
            encoding="utf-8",
        )

    @classmethod
    def load(cls, path: Path) -> DocumentFrequency:
        """Read what `save` wrote. Raises ScoreError for a file that is anything else."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise ScoreError(f"{path}: cannot be read as a document frequency: {error}") from error
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            raise ScoreError(f'{path}: expected a JSON object with "format": "{_FORMAT}"')
        images: Any = content.get("images")
        ngrams: Any = content.get("ngrams")
        if not _is_count(images) or not isinstance(ngrams, dict):
            raise ScoreError(f'{path}: expected "images" (a positive integer) and "ngrams" (an object)')
        for ngram, count in ngrams.items():
            if not _is_count(count) or count > images:
                raise ScoreError(
                    f"{path}: n-gram {shown(ngram)}: expected a count from 1 to {images}, found {shown(count)}"
                )
        counts = {tuple(ngram.split(" ")): count for ngram, count in ngrams.items()}
        return cls(images, counts, f"{path} ({counted(images, 'image')})")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def cider_d(corpus: Corpus, frequency: DocumentFrequency | None = None) -> NDArray[np.float64]:
    """Return CIDEr-D of each image, between 0 and 10; the corpus score is their mean.

    Document frequency is counted over the corpus's own references unless `frequency` is given.
    """
    image = corpus.image_of_reference
    similarity = np.zeros(len(image))
    for order in corpus.orders:
        rarity = rarity_of(corpus, order, frequency)
        weights = order.references.times * rarity[order.references.ngram]
        norms = _norms(order.references.who, weights, len(image))
        said_by, said, times = order.candidates
        said_norms = _norms(said_by, times * rarity[said], corpus.images)

        reference, ngram, _ = order.references
        also_said = order.count_in(order.candidates, image[reference], ngram) * rarity[ngram]
        products = np.bincount(reference, weights=np.minimum(also_said, weights) * weights, minlength=len(image))
        both = norms * said_norms[image]
        similarity += np.divide(products, both, out=np.zeros(len(image)), where=both > 0)
    difference = corpus.lengths[image] - corpus.reference_lengths
    similarity *= np.exp(-(difference**2) / (2 * SIGMA**2))
    sums = np.bincount(image, weights=similarity, minlength=corpus.images)
    return np.asarray(10.0 * sums / (LONGEST * np.bincount(image, minlength=corpus.images)), dtype=np.float64)


def rarity_of(corpus: Corpus, order: Order, frequency: DocumentFrequency | None = None) -> NDArray[np.float64]:
    """Return log N - log max(1, df) of every n-gram of one order."""
    if frequency is None:
        images, found = corpus.images, np.bincount(order.merged.ngram, minlength=order.size)
    else:
        images = frequency.images
        found = np.array([frequency.counts.get(corpus.ngram(order, n), 0) for n in range(order.size)], dtype=np.int64)
    return np.asarray(np.log(images) - np.log(np.maximum(1, found)), dtype=np.float64)


def knows_rare_words(corpus: Corpus, frequency: DocumentFrequency | None) -> bool:
    """Tell whether any n-gram of the references has a weight: none has where all images have all of them."""
    weights = (rarity_of(corpus, order, frequency)[order.references.ngram] for order in corpus.orders)
    return any(bool(of_order.any()) for of_order in weights)


def _norms(who: NDArray[np.int64], weights: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Return the Euclidean length of each caption's weights."""
    return np.sqrt(np.bincount(who, weights=weights**2, minlength=size))
