"""What scores cannot tell, said beside them: tokens that are characters, and values that follow from the definition alone."""

from __future__ import annotations

from img2seq.metrics.cider import DocumentFrequency, knows_rare_words
from img2seq.metrics.ngrams import LONGEST, Corpus


def notes_on(corpus: Corpus, frequency: DocumentFrequency | None, *, by_characters: bool) -> list[str]:
    """Return a sentence for everything that keeps a score from telling how good the captions are.

    Args:
        corpus: that is scored.
        frequency: a saved one for CIDEr-D.
        by_characters: whether tokens are characters.
    """
    notes = []
    if by_characters:
        notes.append(
            "scores compare characters, for this script has no spaces between words: they are not those of words, nor those of other "
            "programs that cut words"
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
