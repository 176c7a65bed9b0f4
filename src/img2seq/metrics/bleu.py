"""BLEU-1 to BLEU-4, as pycocoevalcap 1.2 computes them.

Papineni et al. (2002), https://aclanthology.org/P02-1040/: the geometric mean of clipped n-gram precisions times a
brevity penalty against the closest reference length, over the corpus. pycocoevalcap adds constants so that nothing
divides by zero, and applies the same formula to single images; both are kept, so that digits agree:

    p_n    = (correct_n + 1e-15) / (guessed_n + 1e-9)
    ratio  = (candidate length + 1e-15) / (reference length + 1e-9)
    BLEU_k = (p_1 ... p_k) ** (1 / k) * min(1, exp(1 - 1 / ratio))

An empty caption has ratio 0 and scores 0; an image without a matching 4-gram has a BLEU-4 that is small, not 0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from img2seq.metrics.ngrams import LONGEST, Corpus

_TINY = 1e-15
_SMALL = 1e-9


def bleu_counts(corpus: Corpus) -> NDArray[np.float64]:
    """Return one row per image: candidate length, closest reference length, correct x 4, guessed x 4.

    Counts add up over images, so a set of images is scored by summing its rows.
    """
    columns = [corpus.lengths, _closest_lengths(corpus)]
    for order in corpus.orders:
        image, ngram, said = order.candidates
        clipped = np.minimum(said, order.count_in(order.merged, image, ngram))
        columns.append(np.bincount(image, weights=clipped, minlength=corpus.images))
    columns += [np.maximum(0, corpus.lengths - order) for order in range(LONGEST)]
    return np.stack(columns, axis=-1).astype(np.float64)


def bleu_from_counts(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return BLEU-1..4 of counts, summed or per image: (..., 10) -> (..., 4)."""
    candidate_length, reference_length = counts[..., 0], counts[..., 1]
    correct, guessed = counts[..., 2 : 2 + LONGEST], counts[..., 2 + LONGEST :]
    precisions = (correct + _TINY) / (guessed + _SMALL)
    means = np.cumprod(precisions, axis=-1) ** (1 / np.arange(1, LONGEST + 1))
    ratio = (candidate_length + _TINY) / (reference_length + _SMALL)
    penalty = np.exp(np.minimum(0.0, 1 - 1 / ratio))
    return np.asarray(means * penalty[..., None], dtype=np.float64)


def _closest_lengths(corpus: Corpus) -> NDArray[np.int64]:
    """Return, for each image, the reference length nearest to its caption's; the shorter of two equally near."""
    image, length = corpus.image_of_reference, corpus.reference_lengths
    nearest_first = np.lexsort((length, np.abs(length - corpus.lengths[image]), image))
    _, first = np.unique(image[nearest_first], return_index=True)
    return np.asarray(length[nearest_first[first]], dtype=np.int64)
