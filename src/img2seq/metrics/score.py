"""Score captions against references, for the corpus, per image and with intervals.

The story: ids are made strings and checked, captions are tokenised, n-grams are counted once, every metric reads the
counts, and the corpus scores are computed again on resampled images to say how sure they are.

Scores are fractions, as pycocoevalcap computes them: BLEU, ROUGE-L, METEOR and SPICE lie between 0 and 1, CIDEr-D
between 0 and 10 (a CIDEr-D of 0.886 is what papers print as 88.6). An empty caption, or one of punctuation only,
scores 0 in each. Captions of scripts without spaces between words are cut into characters, and a note says so.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from img2seq.data.scripts import cut_into_characters, words_are_not_separated
from img2seq.errors import ScoreError, listed, shown
from img2seq.metrics import java
from img2seq.metrics.bleu import bleu_counts, bleu_from_counts
from img2seq.metrics.cider import DocumentFrequency, cider_d
from img2seq.metrics.ngrams import LONGEST, count_corpus
from img2seq.metrics.notes import notes_on
from img2seq.metrics.ptb import ptb_tokenize
from img2seq.metrics.rouge import rouge_l
from img2seq.progress import counted

JAVA_METRICS = ("meteor", "spice")

Captions = list[list[str]]  # as tokens

_T = TypeVar("_T")
_BLEU = tuple(f"bleu_{order}" for order in range(1, LONGEST + 1))
_JavaMetric = Callable[[Sequence[str], Sequence[Sequence[str]]], tuple[float, list[float]]]


@dataclass(frozen=True)
class Scores:
    """What captions are worth, by metric: `bleu_1` .. `bleu_4`, `rouge_l`, `cider_d`, `meteor`, `spice`.

    `intervals` holds bootstrap 95 % intervals of the corpus scores. `not_computed` says why a metric is missing,
    `document_frequency` where CIDEr-D's was counted, and `notes` which values do not tell how good the captions are.
    """

    corpus: dict[str, float]
    per_image: dict[str, dict[str, float]]
    intervals: dict[str, tuple[float, float]]
    not_computed: dict[str, str]
    document_frequency: str
    notes: list[str]


def score(
    results: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    *,
    document_frequency: DocumentFrequency | None = None,
    java_metrics: Collection[str] = JAVA_METRICS,
    resamples: int = 1000,
    seed: int = 0,
) -> Scores:
    """Return the scores of `results`, one caption per image id, against `references`, several per id.

    Ids may be integers too: they are compared as strings. `document_frequency` is CIDEr-D's, by default counted over
    the references. `java_metrics` are tried and reported in `not_computed` where they cannot be had. Equal inputs in
    any order give equal scores, to the last digit.

    Raises ScoreError, naming the ids, where results and references are not about the same images.
    """
    captions, of_images = _by_string_id(results, "results"), _by_string_id(references, "references")
    check_same_images(captions, of_images)
    image_ids = sorted(captions)

    candidates = [ptb_tokenize(captions[image_id]) for image_id in image_ids]
    truths = [[ptb_tokenize(text) for text in of_images[image_id]] for image_id in image_ids]
    candidates, truths, by_characters = words_or_characters(candidates, truths)
    ngrams = count_corpus(candidates, truths)

    counts = bleu_counts(ngrams)
    columns: dict[str, NDArray[np.float64]] = dict(zip(_BLEU, bleu_from_counts(counts).T, strict=True))
    columns["rouge_l"] = np.array([rouge_l(said, meant) for said, meant in zip(candidates, truths, strict=True)])
    columns["cider_d"] = cider_d(ngrams, document_frequency)
    corpus = dict(zip(_BLEU, bleu_from_counts(counts.sum(axis=0)).tolist(), strict=True))
    corpus |= {name: float(columns[name].mean()) for name in ("rouge_l", "cider_d")}

    not_computed = {}
    metrics: dict[str, _JavaMetric] = {"meteor": java.meteor, "spice": java.spice}
    for name in JAVA_METRICS:
        if name not in java_metrics:
            not_computed[name] = "not asked for"
            continue
        if by_characters:
            not_computed[name] = "not computed: it compares words, and this script has no spaces between them"
            continue
        try:
            corpus[name], per_image = metrics[name](
                [" ".join(tokens) for tokens in candidates],
                [[" ".join(tokens) for tokens in of_image] for of_image in truths],
            )
            columns[name] = np.array(per_image)
        except java.NotComputed as reason:
            not_computed[name] = f"not computed: {reason}"

    return Scores(
        corpus=corpus,
        per_image={
            image_id: {name: float(column[place]) for name, column in columns.items()}
            for place, image_id in enumerate(image_ids)
        },
        intervals=_intervals(corpus, columns, counts, resamples=resamples, seed=seed),
        not_computed=not_computed,
        document_frequency=(
            document_frequency.source if document_frequency else f"the references of {counted(len(image_ids), 'image')}"
        ),
        notes=notes_on(ngrams, document_frequency, by_characters=by_characters),
    )


def words_or_characters(candidates: Captions, truths: list[Captions]) -> tuple[Captions, list[Captions], bool]:
    """Return captions and references, cut into characters where their script does not separate words, and whether it was so."""
    if not words_are_not_separated(token for tokens in (*candidates, *chain(*truths)) for token in tokens):
        return candidates, truths, False
    cut = [[characters_of(tokens) for tokens in of_image] for of_image in truths]
    return [characters_of(tokens) for tokens in candidates], cut, True


def characters_of(tokens: Sequence[str]) -> list[str]:
    return [part for token in tokens for part in cut_into_characters(token)]


def _intervals(
    corpus: Mapping[str, float],
    columns: Mapping[str, NDArray[np.float64]],
    counts: NDArray[np.float64],
    *,
    resamples: int,
    seed: int,
) -> dict[str, tuple[float, float]]:
    """Return the 2.5 and 97.5 percentiles of each corpus score over images drawn with replacement.

    Efron and Tibshirani (1993), the percentile interval. BLEU is recomputed from the summed counts of each resample;
    the other scores are means over images. METEOR's corpus score is not: it gets the interval of its mean, moved by
    the difference, as far as a score can go.
    """
    images = len(counts)
    random = np.random.default_rng(seed)
    drawn = np.empty((resamples, images))  # how often each resample holds each image
    for resample in drawn:
        resample[:] = np.bincount(random.integers(0, images, size=images), minlength=images)
    bleu = dict(zip(_BLEU, bleu_from_counts(drawn @ counts).T, strict=True))
    intervals = {}
    for name, value in corpus.items():
        values = bleu[name] if name in bleu else drawn @ columns[name] / images
        moved = value - float(columns[name].mean()) if name == "meteor" else 0.0
        most = 10.0 if name == "cider_d" else 1.0
        low, high = np.clip(np.percentile(values + moved, [2.5, 97.5]), 0.0, most).tolist()
        intervals[name] = (low, high)
    return intervals


def _by_string_id(given: Mapping[str, _T], what: str) -> dict[str, _T]:
    """Return `given` with every id a string, or raise where two ids are then the same."""
    by_id: dict[str, _T] = {}
    clashes = []
    for image_id, value in given.items():
        if isinstance(image_id, bool) or not isinstance(image_id, str | int):
            raise ScoreError(f"{what}: an image id must be a string or an integer, found {shown(image_id)}")
        name = str(image_id)
        if name in by_id:
            clashes.append(f"{name}: once as a number, once as a string")
        by_id[name] = value
    if clashes:
        raise ScoreError(f"{what}: the same image id twice:\n{listed(sorted(clashes))}")
    return by_id


def check_same_images(results: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> None:
    """Raise one error that lists every id without a caption, without references, or with neither text nor list."""
    complaints = []
    for image_ids, complaint in (
        (references.keys() - results.keys(), "references and no caption"),
        (results.keys() - references.keys(), "a caption and no references"),
        ({name for name, texts in references.items() if not texts}, "an empty list of references"),
    ):
        if image_ids:
            have = "has" if len(image_ids) == 1 else "have"
            complaints.append(f"{counted(len(image_ids), 'image')} {have} {complaint}:\n{listed(sorted(image_ids))}")
    if complaints:
        raise ScoreError("results and references do not fit:\n" + "\n".join(complaints))
    if not results:
        raise ScoreError("there are no captions to score")
    for name, text in results.items():
        if not isinstance(text, str):
            raise ScoreError(f"results: image {name}: expected a caption (text), found {shown(text)}")
    for name, texts in references.items():
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise ScoreError(f"references: image {name}: expected a list of captions, found {shown(texts)}")
