"""Generated captions with their references, and their scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import strategies as st

from img2seq.metrics import Scores, score

METRICS = ["bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider_d"]

# Few words, so that captions and references share n-grams; a number that is two words to BLEU and one to ROUGE-L.
caption_texts = st.lists(st.sampled_from(["a", "dog", "runs", "the", "22 3/4", "cat", "."]), max_size=9).map(" ".join)
corpora = st.lists(
    st.tuples(caption_texts, st.lists(caption_texts, min_size=1, max_size=3)), min_size=1, max_size=6
).map(lambda rows: {str(place): row for place, row in enumerate(rows)})


def scored(results: Mapping[str, str], references: Mapping[str, Sequence[str]], **options: Any) -> Scores:
    return score(results, references, java_metrics=(), **options)
