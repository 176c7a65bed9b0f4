"""Captions whose words are known, for the gallery (Python) and the page of the server (JavaScript), which must show them alike."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Written:
    """A caption as a model gives it, of any tokens."""

    text: str
    tokens: tuple[str, ...]
    token_log_probabilities: tuple[float, ...]
    alternatives: tuple[Written, ...] = field(default=())


def written(text: str, tokens: list[str]) -> Written:
    """Return a caption whose tokens have the log-probabilities -1, -2, -3 and so on."""
    return Written(text, tuple(tokens), tuple(-float(n) for n in range(1, len(tokens) + 1)))


# A caption, and its pieces with their log-probabilities; None for what stands between words.
WORD_CASES: dict[str, tuple[Written, list[tuple[str, float | None]]]] = {
    "words": (written("a red ball .", ["a", "red", "ball", ".", "<eos>"]), [("a", -1), (" ", None), ("red", -2), (" ", None), ("ball", -3), (" ", None), (".", -4)]),
    "a sentence": (written("A cat isn't a dog. É!", ["a", "cat", "is", "n't", "a", "dog", ".", "é", "!", "<eos>"]),
        [("A", -1), (" ", None), ("cat", -2), (" ", None), ("isn't", -7), (" ", None), ("a", -5), (" ", None), ("dog.", -13), (" ", None), ("É!", -17)]),
    "a word twice, and in another": (written("a cat a", ["a", "cat", "a"]), [("a", -1), (" ", None), ("cat", -2), (" ", None), ("a", -3)]),
    "characters": (written("a cat", ["a", " ", "c", "a", "t", "<eos>"]), [("a", -1), (" ", None), ("cat", -14)]),
    "byte pairs": (written("a dog naps.", ["a", "Ġdo", "g", "Ġnaps", ".", "<eos>"]), [("a", -1), (" ", None), ("dog", -5), (" ", None), ("naps.", -9)]),
    "byte pairs that part a letter": (written("é日", ["Ã", "©", "æĹ", "¥"]), [("é", -3), ("日", -7)]),
    "no spaces": (written("犬が走る", ["犬", "が", "走る", "<eos>"]), [("犬", -1), ("が", -2), ("走る", -3)]),
    "right to left": (written("كلب أسود", ["كلب", "أسود"]), [("كلب", -1), (" ", None), ("أسود", -2)]),
    "outside the basic plane": (written("a 🐶 !", ["a", "🐶", "!"]), [("a", -1), (" ", None), ("🐶", -2), (" ", None), ("!", -3)]),
    "tokens that are not in the text": (written("a cat", ["one", "dog"]), [("a cat", None)]),
    "nothing": (written("", ["<eos>"]), []),
}  # fmt: skip
