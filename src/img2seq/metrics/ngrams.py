"""Count the n-grams of a corpus once, as arrays, for BLEU and CIDEr-D.

Every different n-gram of one order gets an integer, so that counting, clipping and comparing captions are sorts and
look-ups over whole arrays. Counting in dictionaries, one caption after the other, was clearer and missed the promise
of 5,000 images with 5 references in 3 seconds; `python -m benchmarks.metrics` measures it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LONGEST = 4

Ngram = tuple[str, ...]
Integers = NDArray[np.int64]


def words_of(tokens: Sequence[str]) -> list[str]:
    """Return the words that pycocoevalcap's BLEU and CIDEr see in a caption of `tokens`.

    They join tokens with spaces and call `str.split`, which also splits at a no-break space: "22 3/4" is one token in
    ROUGE-L and two words here.
    """
    return " ".join(tokens).split()


class Counts(NamedTuple):
    """Who says which n-gram how many times: three arrays of one length, sorted by `who`, then by `ngram`."""

    who: Integers
    ngram: Integers
    times: Integers


@dataclass(frozen=True)
class Order:
    """The n-grams of `n` words: `candidates` and `merged` are by image, `references` by reference.

    `merged` holds the largest count that any reference of the image has. `example` says at which word of the corpus
    each of the `size` n-grams is found first. `codes` are the n-grams, ascending: the number of the n-gram a word shorter, times
    the words of the corpus, plus the last word's number.
    """

    n: int
    size: int
    example: Integers
    codes: Integers
    candidates: Counts
    references: Counts
    merged: Counts

    def count_in(self, counts: Counts, who: Integers, ngram: Integers) -> Integers:
        """Return how often each `who` says each `ngram` according to `counts`; 0 where it does not."""
        known = counts.who * self.size + counts.ngram
        if not len(known):
            return np.zeros(len(who), dtype=np.int64)
        wanted = who * self.size + ngram
        place = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
        return np.where(known[place] == wanted, counts.times[place], 0)


@dataclass(frozen=True)
class Corpus:
    """Counted captions and references of `images` images, in one order of images.

    `lengths` and `reference_lengths` are in words; `image_of_reference` says which image a reference belongs to, in
    ascending order. `number_of` numbers the different words.
    """

    images: int
    number_of: dict[str, int]
    words: list[str]
    lengths: Integers
    reference_lengths: Integers
    image_of_reference: Integers
    orders: list[Order]

    def ngram(self, order: Order, number: int) -> Ngram:
        """Return the words of an n-gram."""
        begin = int(order.example[number])
        return tuple(self.words[begin : begin + order.n])


def count_corpus(candidates: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]) -> Corpus:
    """Return the n-gram counts of one caption per image and its references, as tokens."""
    captions = [words_of(tokens) for tokens in chain(candidates, *references)]
    words = list(chain.from_iterable(captions))
    lengths = np.array([len(caption) for caption in captions], dtype=np.int64)
    images = len(candidates)
    image_of_reference = np.repeat(np.arange(images), [len(of_image) for of_image in references])

    caption_of = np.repeat(np.arange(len(captions)), lengths)
    number_of: dict[str, int] = {}
    word = np.array([number_of.setdefault(text, len(number_of)) for text in words], dtype=np.int64)
    orders: list[Order] = []
    begin = np.arange(len(words))  # where an n-gram of the current order begins
    ngram = np.zeros(len(words), dtype=np.int64)
    for n in range(1, LONGEST + 1):
        # An n-gram is the one a word shorter and its last word; those that would run past their caption drop out.
        inside = np.flatnonzero(begin + n <= np.cumsum(lengths)[caption_of[begin]])
        begin, ngram = begin[inside], ngram[inside]
        longer = ngram * len(number_of) + word[begin + n - 1]
        different, first, ngram = np.unique(longer, return_index=True, return_inverse=True)
        orders.append(_order(n, caption_of[begin], ngram, begin[first], different, images, image_of_reference))
    return Corpus(images, number_of, words, lengths[:images], lengths[images:], image_of_reference, orders)


def _order(
    n: int,
    caption: Integers,
    ngram: Integers,
    example: Integers,
    codes: Integers,
    images: int,
    image_of_reference: Integers,
) -> Order:
    """Return the counts of one order from every occurrence of an n-gram; the first `images` captions are candidates."""
    size = len(codes)
    said, times = np.unique(caption * size + ngram, return_counts=True)
    counts = Counts(said // size, said % size, times)
    border = int(np.searchsorted(counts.who, images))
    candidates = Counts(*(column[:border] for column in counts))
    references = Counts(counts.who[border:] - images, counts.ngram[border:], counts.times[border:])

    by_image = image_of_reference[references.who] * size + references.ngram
    ascending = np.argsort(by_image, kind="stable")
    in_image, group = np.unique(by_image[ascending], return_index=True)
    largest = np.maximum.reduceat(references.times[ascending], group) if len(group) else references.times
    merged = Counts(in_image // size, in_image % size, largest)
    return Order(n, size, example, codes, candidates, references, merged)
