"""What scores cannot tell, said beside them: words that are not separated, and values that follow from the definition alone."""

from __future__ import annotations

from collections.abc import Sequence

from img2seq.data.scripts import words_are_joined
from img2seq.metrics.cider import DocumentFrequency, knows_rare_words
from img2seq.metrics.ngrams import LONGEST, Corpus


def notes_on(corpus: Corpus, texts: Sequence[Sequence[str]], frequency: DocumentFrequency | None) -> list[str]:
    """Return a sentence for everything that keeps a score from telling how good the captions are.

    Args:
        corpus: that is scored.
        texts: captions and references as tokens.
        frequency: a saved one for CIDEr-D.
    """
    notes = []
    if words_are_joined(texts):
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
