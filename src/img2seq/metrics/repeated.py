"""BLEU-4, CIDEr-D and distinct captions of the same images again and again, as a run scores itself while it trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from img2seq.metrics.bleu import bleu_counts, bleu_from_counts
from img2seq.metrics.cider import cider_d
from img2seq.metrics.ngrams import count_corpus
from img2seq.metrics.ptb import ptb_tokenize
from img2seq.metrics.score import words_or_characters


class RepeatedScore:
    """Scores captions of some images, whose references are tokenised once.

    The figures are those of `score` and `measure_diversity`; nothing else is computed.

    Args:
        references: by image id, several each.
    """

    def __init__(self, references: Mapping[str, Sequence[str]]):
        self.image_ids = sorted(references)  # the order in which `score` adds
        self._truths = [[ptb_tokenize(text) for text in references[image_id]] for image_id in self.image_ids]

    def of(self, captions: Mapping[str, str]) -> dict[str, float]:
        """Return `bleu_4`, `cider_d` and `distinct`, the share of captions that differ, of a caption of each image."""
        tokens = [ptb_tokenize(captions[image_id]) for image_id in self.image_ids]
        corpus = count_corpus(*words_or_characters(tokens, self._truths)[:2])
        return {
            "bleu_4": float(bleu_from_counts(bleu_counts(corpus).sum(axis=0))[3]),
            "cider_d": float(cider_d(corpus).mean()),
            "distinct": len({" ".join(words) for words in tokens}) / len(tokens),
        }
