"""Tokenizers of all kinds and texts that are cut in odd ways, for tests that another program cuts alike."""

from __future__ import annotations

from collections.abc import Callable

from img2seq.data.tokenizer import SPECIAL_TOKENS, Tokenizer
from img2seq.data.vocabulary import learn_bpe, learn_words

SENTENCE = "He said: \"I don't,\" 3.5 dogs' and girl's (won!) 'em 'a' ßa ǆa ?"
CAPTIONS = ["a dog runs .", "A Dog sleeps in the snow .", "ΟΔΟΣ Σ ein Hund rennt über die Wiese", "a , b", SENTENCE]
ODD = [
    *("a", "dog", "Dog", ".", " ", "  ", "   ", "\n", "\t", "\x00", "\x85", "\u2028", "\u3000", "\xa0"),
    *("<bos>", "<unk>", "<mask>", "<pad>", "<eos>", "<BOS>", "<bos", "a<bos>", "[UNK]", "##a", "▁", "Ġ"),
    *("\u200b", "\xad", "\ufeff", "\u202e", "\u200c", "\u200d", "\ufe0f", "\U000e0041", "\u034f"),
    *("é", "e\u0301", "\u0301", "Å", "가", "\u1100\u1161", "👩\u200d👩\u200d👧", "❤\ufe0f", "🇩🇪", "क्\u200dष"),
    *("İ", "ẞ", "Σ", "ΟΔΟΣ", "ΟΔΟΣ'", "ς", "ʰ", "Ⅷ", "$ ", "aa", ", ", "$&", "\\", "^", "[a]"),
    *(
        "'",
        "'s",
        "n't",
        "don't",
        "’",
        '"',
        "“",
        "„",
        "«",
        "(",
        "]",
        "¿",
        "!",
        "...",
        ". a",
        "dogs. a",
        "3.5",
        "1,000",
        "a:a",
        "-",
        "。",
    ),
]


def words(split_on: str | None, lowercase: bool) -> Tokenizer:
    if split_on is None:
        return Tokenizer([*SPECIAL_TOKENS, "a", "dog", "runs"], split_on=None, lowercase=lowercase)
    return learn_words(CAPTIONS, split_on=split_on, min_freq=1, lowercase=lowercase)


KINDS: dict[str, Callable[[bool], Tokenizer]] = {
    "words": lambda lowercase: words(" ", lowercase),
    "characters": lambda lowercase: words("", lowercase),
    "white space": lambda lowercase: words(None, lowercase),
    "words and punctuation": lambda lowercase: words("words", lowercase),
    "comma and space": lambda lowercase: words(", ", lowercase),
    "two letters": lambda lowercase: Tokenizer(
        [*SPECIAL_TOKENS, "b", "a<bos>", "a"], split_on="aa", lowercase=lowercase
    ),
    "characters with a meaning in patterns": lambda lowercase: words("^", lowercase),
    "byte pairs": lambda lowercase: learn_bpe(CAPTIONS, max_units=300, lowercase=lowercase),
}
TOKENIZERS = {f"{kind}{', lower case' * lower}": make(lower) for kind, make in KINDS.items() for lower in (False, True)}
