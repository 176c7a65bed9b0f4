"""The reward of sampled captions: CIDEr-D with the end token, for thousands of samples at once.

Self-critical training (Rennie et al. 2017, https://arxiv.org/abs/1612.00563) scores each sample against the references of its
image; document frequency is that of the training captions. The end of a caption is a word of references and samples alike: where
it is not, captions learn to end in "with a", for words that are cut off cost nothing
(Hu et al. 2023, https://arxiv.org/abs/2305.12254, whose signature is given here).

References are counted once. A sample's n-grams are looked up in theirs by sorted integers; what no reference holds gets numbers of
its own, for it counts in the sample's length as a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from img2seq.metrics.bleu import bleu_from_counts
from img2seq.metrics.cider import SIGMA, rarity_of
from img2seq.metrics.ngrams import LONGEST, Corpus, Integers, Order, count_corpus
from img2seq.metrics.ptb import ptb_tokenize
from img2seq.metrics.score import characters_of, words_or_characters

END = "\0"  # no caption holds it, and it is no space


@dataclass(frozen=True)
class _Known:
    """N-grams of one order in the references, by image: `keys` (image * size + n-gram) ascending.

    `largest` is the most times a reference of the image has it. The references that hold it are `reference[first:last]`, with
    their `weights`; `norms` are of all references.
    """

    order: Order
    rarity: NDArray[np.float64]
    keys: Integers
    largest: Integers
    first: Integers
    last: Integers
    reference: Integers
    weights: NDArray[np.float64]
    norms: NDArray[np.float64]


class CaptionReward:
    """Scores samples against the references of their images.

    Args:
        references: the captions of each image.
        bleu_weight: BLEU-4 of a sample, times this, is added to its CIDEr-D.
    """

    def __init__(self, references: Sequence[Sequence[str]], *, bleu_weight: float = 0.0):
        self.bleu_weight = bleu_weight
        truths = [[ptb_tokenize(text) for text in of_image] for of_image in references]
        _, truths, self._by_characters = words_or_characters([], truths)
        self._corpus = count_corpus(
            [()] * len(truths), [[[*tokens, END] for tokens in of_image] for of_image in truths]
        )
        self._known = [_known(self._corpus, order) for order in self._corpus.orders]
        self._n_references = np.bincount(self._corpus.image_of_reference, minlength=len(truths))
        self._first_reference = np.cumsum(self._n_references) - self._n_references

    def signature(self, *, n_samples: int, baseline: str) -> str:
        """Return what decides a self-critical reward, in the form of arXiv 2305.12254."""
        bleu = f"+{self.bleu_weight:g}*Bleu[n{LONGEST}]" if self.bleu_weight else ""
        base = f"average[nspi{n_samples}]" if baseline == "mean" else f"greedy[nspi{n_samples}]"
        return f"STANDARD_wInit+Cider-D[n{LONGEST},s{SIGMA:.1f}]{bleu}+{base}"

    def of(self, images: Integers, texts: Sequence[str], ended: Sequence[bool]) -> NDArray[np.float64]:
        """Return the reward of each sample.

        Args:
            images: the place of each sample's image among the references.
            texts: the samples.
            ended: whether the end token came, or the sample was cut off.
        """
        captions = [self._words(text, has_end) for text, has_end in zip(texts, ended, strict=True)]
        lengths = np.array([len(words) for words in captions], dtype=np.int64)
        similarity, clipped = np.zeros(len(texts)), np.zeros((len(texts), LONGEST))
        for known, (caption, ngram) in zip(self._known, self._numbered(captions, lengths), strict=True):
            found, correct = self._compare(known, images, lengths, caption, ngram)
            similarity += found
            clipped[:, known.order.n - 1] = correct
        cider = 10.0 * similarity / (LONGEST * self._n_references[images])
        if not self.bleu_weight:
            return np.asarray(cider, dtype=np.float64)
        guessed = np.maximum(0, lengths[:, None] - np.arange(LONGEST))
        closest = self._closest_lengths(images, lengths)
        bleu = bleu_from_counts(np.column_stack([lengths, closest, clipped, guessed]))[:, -1]
        return np.asarray(cider + self.bleu_weight * bleu, dtype=np.float64)

    def _words(self, text: str, ended: bool) -> list[str]:
        tokens = ptb_tokenize(text)
        words = " ".join(characters_of(tokens) if self._by_characters else tokens).split()
        return [*words, END] if ended else words

    def _numbered(self, captions: Sequence[Sequence[str]], lengths: Integers) -> list[tuple[Integers, Integers]]:
        """Return, for each order, (caption, n-gram) of every occurrence; n-grams of no reference from the order's size on."""
        number_of, n_known = dict(self._corpus.number_of), len(self._corpus.number_of)
        flat = [number_of.setdefault(word, len(number_of)) for words in captions for word in words]
        word, caption_of = np.array(flat, dtype=np.int64), np.repeat(np.arange(len(captions)), lengths)
        ends = np.cumsum(lengths)[caption_of] if len(flat) else caption_of
        begin, ngram, size = np.arange(len(flat)), np.zeros(len(flat), dtype=np.int64), 1
        found = []
        for order in self._corpus.orders:
            inside = np.flatnonzero(begin + order.n <= ends[begin])
            begin, ngram = begin[inside], ngram[inside]
            last = word[begin + order.n - 1]
            place = np.searchsorted(order.codes, ngram * n_known + last)
            place = np.minimum(place, order.size - 1)
            is_known = (ngram < size) & (last < n_known) & (order.codes[place] == ngram * n_known + last)
            _, new = np.unique((ngram * len(number_of) + last)[~is_known], return_inverse=True)
            ngram, size = place, order.size
            ngram[~is_known] = size + new
            found.append((caption_of[begin], ngram))
        return found

    def _compare(
        self, known: _Known, images: Integers, lengths: Integers, caption: Integers, ngram: Integers
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return each sample's similarity, summed over its references, and how many of its n-grams are in them."""
        size, n = known.order.size, len(lengths)
        most = int(ngram.max(initial=size)) + 1
        said, times = np.unique(caption * most + ngram, return_counts=True)
        caption, ngram = said // most, said % most
        weights = times * known.rarity[np.minimum(ngram, size)]  # the last is that of what no reference holds
        norms = np.sqrt(np.bincount(caption, weights=weights**2, minlength=n))
        key = images[caption] * size + ngram
        place = np.minimum(np.searchsorted(known.keys, key), len(known.keys) - 1)
        hits = np.flatnonzero((ngram < size) & (known.keys[place] == key))
        caption, weights, times, place = caption[hits], weights[hits], times[hits], place[hits]
        clipped = np.bincount(caption, weights=np.minimum(times, known.largest[place]), minlength=n)
        # one row for each reference that holds an n-gram of a sample of its image
        counts = known.last[place] - known.first[place]
        row = np.repeat(np.arange(len(hits)), counts)
        at = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts) + known.first[place][row]
        sample, reference = caption[row], known.reference[at]
        products = np.minimum(weights[row], known.weights[at]) * known.weights[at]
        both = norms[sample] * known.norms[reference]
        far = lengths[sample] - self._corpus.reference_lengths[reference]
        products *= np.exp(-(far**2) / (2 * SIGMA**2))
        parts = np.divide(products, both, out=np.zeros(len(row)), where=both > 0)
        return np.asarray(np.bincount(sample, weights=parts, minlength=n), np.float64), np.asarray(clipped, np.float64)

    def _closest_lengths(self, images: Integers, lengths: Integers) -> Integers:
        """Return the reference length nearest to each sample's; the shorter of two equally near."""
        counts = self._n_references[images]
        sample = np.repeat(np.arange(len(images)), counts)
        within = np.arange(len(sample)) - np.repeat(np.cumsum(counts) - counts, counts)
        length = self._corpus.reference_lengths[self._first_reference[images][sample] + within]
        most = int(length.max(initial=0)) + 1
        nearest = np.minimum.reduceat(np.abs(length - lengths[sample]) * most + length, np.cumsum(counts) - counts)
        return np.asarray(nearest % most, dtype=np.int64)


def _known(corpus: Corpus, order: Order) -> _Known:
    """Lay the references' n-grams of an order out by image."""
    rarity = rarity_of(corpus, order)
    reference, ngram, times = order.references
    weights = times * rarity[ngram]
    norms = np.sqrt(np.bincount(reference, weights=weights**2, minlength=len(corpus.image_of_reference)))
    key = corpus.image_of_reference[reference] * order.size + ngram
    ascending = np.argsort(key, kind="stable")
    keys = order.merged.who * order.size + order.merged.ngram
    first, last = (np.searchsorted(key[ascending], keys, side=side) for side in ("left", "right"))
    return _Known(
        order=order,
        rarity=np.append(rarity, np.log(corpus.images)),
        keys=keys,
        largest=order.merged.times,
        first=first,
        last=last,
        reference=reference[ascending],
        weights=weights[ascending],
        norms=norms,
    )
