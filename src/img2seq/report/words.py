"""The words of a caption with the probability of each, whatever its tokens are: words, characters or byte-pair units."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

CONTROL_TOKENS = ("<bos>", "<unk>", "<mask>", "<pad>", "<eos>")


class Caption(Protocol):
    """What is read of a generated caption."""

    @property
    def text(self) -> str: ...
    @property
    def tokens(self) -> Sequence[str]: ...
    @property
    def token_log_probabilities(self) -> Sequence[float]: ...
    @property
    def alternatives(self) -> Sequence[Caption]: ...


def certainty(caption: Caption, n_given: int = 0) -> float:
    """Return the geometric mean of the probabilities of a caption's tokens, its end included, the given beginning not."""
    values = caption.token_log_probabilities[n_given:]
    return math.exp(sum(values) / len(values)) if values else 1.0


def words_of(caption: Caption) -> list[tuple[str, float | None]]:
    """Return the pieces of a caption's text in order, each word with its probability, what stands between words with None.

    A word is what stands between spaces; in a text without spaces it is a token. Its probability is the product of those of the tokens
    that begin in it. Where tokens cannot be found in the text, the whole text is one piece with None.
    """
    text = caption.text
    tokens = [
        (token, value)
        for token, value in zip(caption.tokens, caption.token_log_probabilities, strict=True)
        if token not in CONTROL_TOKENS
    ]
    starts = _starts(text, [token for token, _ in tokens])
    if starts is None:
        return [(text, None)] if text else []
    if re.search(r"\s", text):
        spans = [match.span() for match in re.finditer(r"\S+", text)]
    else:
        spans = list(pairwise([*sorted(set(starts)), len(text)]))
    pieces: list[tuple[str, float | None]] = []
    end = 0
    for first, last in spans:
        if first > end:
            pieces.append((text[end:first], None))
        values = [value for start, (_, value) in zip(starts, tokens, strict=True) if first <= start < last]
        pieces.append((text[first:last], math.exp(sum(values)) if values else None))
        end = last
    return [*pieces, (text[end:], None)] if end < len(text) else pieces


def _starts(text: str, tokens: Sequence[str]) -> list[int] | None:
    """Return where each token begins in the text, spaces left out; None where they do not make up the text."""
    starts, place = [], 0
    for token in tokens:
        found = _find(text, token, place)
        if found < 0:
            return _starts_of_bytes(text, tokens)
        starts.append(_after_spaces(text, found))
        place = found + len(token)
    return starts if not text[place:].strip() else _starts_of_bytes(text, tokens)


def _find(text: str, token: str, place: int) -> int:
    """Return where the token comes next, perhaps with the capital of a sentence; -1 if more than spaces stands before it."""
    for written in (token, token[:1].title() + token[1:]):
        found = text.find(written, place)
        if found >= 0 and not text[place:found].strip():
            return found
    return -1


def _starts_of_bytes(text: str, tokens: Sequence[str]) -> list[int] | None:
    """Likewise for tokens that write each byte as a letter, as byte-pair units do; a part of a letter begins where the letter does."""
    letters = _letters_of_bytes()
    if "".join(tokens) != "".join(letters[byte] for byte in text.encode()):
        return None
    of_byte = [i for i, char in enumerate(text) for _ in char.encode()]
    starts, place = [], 0
    for token in tokens:
        starts.append(_after_spaces(text, of_byte[place]))
        place += len(token)
    return starts


def _after_spaces(text: str, place: int) -> int:
    return place + len(text[place:]) - len(text[place:].lstrip())


def _letters_of_bytes() -> list[str]:
    """Return the letter that byte-level units write for each byte (GPT-2, `bytes_to_unicode`): its own where it can be seen."""
    seen = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    unseen = iter(range(0x100, 0x200))
    return [chr(byte if byte in seen else next(unseen)) for byte in range(256)]
