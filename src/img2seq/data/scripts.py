"""Scripts that put no spaces between words: what to know of a text before it is cut into words."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Letters of Thai, Lao, Burmese, Khmer, Kana, Han. Their vowel signs are left out.
_UNSPACED = re.compile(
    "[\u0e01-\u0e2e\u0e81-\u0eae\u1000-\u102a\u1780-\u17a2\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
_LONGEST_WORD = 5  # such letters, on average: separated words of these scripts have about two (Han) to four (Thai)


def words_are_joined(texts: Iterable[Iterable[str]]) -> bool:
    """Tell whether most letters are of scripts without spaces, and stand together in more than a word's length.

    Args:
        texts: each as the words it was cut into.
    """
    n_letters = n_unspaced = n_words = 0
    for words in texts:
        for word in words:
            n_letters += sum(map(str.isalnum, word))
            if not word.isascii() and (found := len(_UNSPACED.findall(word))):
                n_unspaced, n_words = n_unspaced + found, n_words + 1
    return n_unspaced > n_letters / 2 and n_unspaced > _LONGEST_WORD * n_words
