"""The least that captions must beat: the caption that people wrote most often, said of every picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from img2seq.metrics.cider import DocumentFrequency, cider_d
from img2seq.metrics.ngrams import count_corpus
from img2seq.metrics.ptb import ptb_tokenize


def most_frequent(captions: Iterable[str]) -> str:
    """Return the caption that is written most often, case aside; of several the first, and "" of none."""
    captions = list(captions)
    counts = Counter(map(str.casefold, captions))
    most = max(counts.values(), default=0)
    return next((caption for caption in captions if counts[caption.casefold()] == most), "")


def cider_by_image(
    captions: Mapping[str, str], references: Mapping[str, Sequence[str]], frequency: DocumentFrequency | None = None
) -> dict[str, float]:
    """Return CIDEr-D of each image's caption; document frequency is that of the references unless it is given."""
    candidates = [ptb_tokenize(captions[image_id]) for image_id in captions]
    truths = [[ptb_tokenize(text) for text in references[image_id]] for image_id in captions]
    scores = cider_d(count_corpus(candidates, truths), frequency)
    return dict(zip(captions, scores.tolist(), strict=True))
