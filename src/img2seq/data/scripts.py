"""Scripts that put no spaces between words: Thai, Lao, Burmese, Khmer, Kana, Han. Their captions are cut into characters."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

# Letters of these scripts; their vowel signs are left out.
_UNSPACED = re.compile(
    "[\u0e01-\u0e2e\u0e81-\u0eae\u1000-\u102a\u1780-\u17a2\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
_LONGEST_WORD = 5  # such letters, on average: separated words of these scripts have about two (Han) to four (Thai)


def words_are_not_separated(words: Iterable[str]) -> bool:
    """Tell whether most letters are of scripts without spaces, and stand together in more than a word's length."""
    n_letters = n_unspaced = n_words = 0
    for word in words:
        n_letters += sum(char.isalnum() for char in word)
        if found := len(_UNSPACED.findall(word)):
            n_unspaced, n_words = n_unspaced + found, n_words + 1
    return n_unspaced > n_letters / 2 and n_unspaced > _LONGEST_WORD * n_words


def cut_into_characters(word: str) -> list[str]:
    """Return a word of such a script letter by letter, vowel signs and marks with the letter before them; another word whole."""
    parts: list[str] = []
    for char in word:
        is_mark = unicodedata.category(char)[0] == "M" or unicodedata.combining(char) > 0
        joins = parts and (is_mark or not (_UNSPACED.match(char) or _UNSPACED.match(parts[-1])))
        if joins:
            parts[-1] += char
        else:
            parts.append(char)
    return parts
