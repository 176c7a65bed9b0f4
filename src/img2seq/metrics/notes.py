"""What scores cannot tell, said beside them: words that are not separated, and values that follow from the definition alone."""

from __future__ import annotations

import re
from collections.abc import Sequence

from img2seq.metrics.cider import DocumentFrequency, knows_rare_words
from img2seq.metrics.ngrams import LONGEST, Corpus

# Letters of scripts that put no spaces between words: Thai, Lao, Burmese, Khmer, Kana, Han. Their vowel signs are left out.
_UNSPACED = re.compile(
    "[\u0e01-\u0e2e\u0e81-\u0eae\u1000-\u102a\u1780-\u17a2\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
_LONGEST_WORD = 5  # such letters, on average: separated words of these scripts have about two (Han) to four (Thai)


def notes_on(corpus: Corpus, texts: Sequence[Sequence[str]], frequency: DocumentFrequency | None) -> list[str]:
    """Return a sentence for everything that keeps a score from telling how good the captions are.

    Args:
        corpus: that is scored.
        texts: captions and references as tokens.
        frequency: a saved one for CIDEr-D.
    """
    notes = []
    if _words_are_not_separated(texts):
        notes.append(
            "words cannot be told apart, for this script has no spaces between them: every score compares whole phrases. "
            "Put spaces between words, or between characters, in captions and references alike"
        )
    longest = int(corpus.lengths.max())
    if 0 < longest < LONGEST:
        names = " and ".join(f"BLEU-{order}" for order in range(longest + 1, LONGEST + 1))
        notes.append(f"{names} cannot tell captions apart: none has more than {longest} word{'s' * (longest > 1)}")
    images = corpus.images if frequency is None else frequency.images
    if corpus.reference_lengths.any() and not knows_rare_words(corpus, frequency):
        why = (
            "its document frequency is of one image" if images == 1 else "all images share the words of the references"
        )
        notes.append(
            f"CIDEr-D is 0 by definition: {why}, so no word is rarer than another; --document-frequency takes another"
        )
    if corpus.images == 1:
        notes.append("the intervals say nothing: they tell how scores vary between images, and there is one")
    return notes


def _words_are_not_separated(texts: Sequence[Sequence[str]]) -> bool:
    """Tell whether most letters are of scripts without spaces, and stand together in more than a word's length."""
    n_letters = n_unspaced = n_words = 0
    for tokens in texts:
        for token in tokens:
            n_letters += sum(char.isalnum() for char in token)
            if found := len(_UNSPACED.findall(token)):
                n_unspaced, n_words = n_unspaced + found, n_words + 1
    return n_unspaced > n_letters / 2 and n_unspaced > _LONGEST_WORD * n_words
