"""Captions to numbers and back: words with or without punctuation, characters or byte-pair units, saved as one JSON file.

The first five numbers are always <bos> <unk> <mask> <pad> <eos>. A caption that happens to spell one of
them is an unknown word, never a control token.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import tokenizers

from img2seq.data.text import clean_caption, is_utf8
from img2seq.data.words import PIECE, WORDS, join
from img2seq.errors import DataError

BOS, UNK, MASK, PAD, EOS = range(5)
SPECIAL_TOKENS = ("<bos>", "<unk>", "<mask>", "<pad>", "<eos>")


@dataclass(frozen=True)
class SpecialTokens:
    """The tokens that are no part of a caption's text: what a search needs to know of a vocabulary.

    Attributes:
        begin: stands before every caption.
        end: follows every caption.
        unknown: stands for what the vocabulary lacks.
        never_generated: that a search must not choose, `begin` and `unknown` among them.
    """

    begin: int
    end: int
    unknown: int
    never_generated: tuple[int, ...]


class Tokenizer:
    """A vocabulary and the rule that cuts a caption into its tokens.

    Args:
        tokens: every token; a token's place is its number. The first five are SPECIAL_TOKENS.
        split_on: what separates tokens: " " for words, "" for characters; "words" for words and punctuation marks.
        lowercase: whether captions are lower-cased first. With "words", sentences are written with a capital again.
        bpe: the byte-pair model as the `tokenizers` library writes it, which then does the cutting.
    """

    def __init__(self, tokens: Sequence[str], *, split_on: str | None, lowercase: bool = False, bpe: str | None = None):
        if not all(isinstance(token, str) and is_utf8(token) for token in tokens):
            raise DataError("a vocabulary holds texts that are valid Unicode")
        if tuple(tokens[:5]) != SPECIAL_TOKENS or len(set(tokens)) != len(tokens):
            raise DataError(f"a vocabulary begins with {' '.join(SPECIAL_TOKENS)} and holds each token once")
        self.tokens = list(tokens)
        self.split_on, self.lowercase = split_on, lowercase
        self._bpe = tokenizers.Tokenizer.from_str(bpe) if bpe is not None else None
        self._numbers = {token: number for number, token in enumerate(tokens)}
        for number, special in enumerate(SPECIAL_TOKENS):
            if number != UNK:
                self._numbers[special] = UNK

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def special(self) -> SpecialTokens:
        return SpecialTokens(begin=BOS, end=EOS, unknown=UNK, never_generated=(BOS, UNK, MASK, PAD))

    def normalise(self, text: str) -> str:
        """Return the text as it is cut: cleaned, and lower-cased where the vocabulary is."""
        text = clean_caption(text)
        return text.lower() if self.lowercase else text

    def encode(self, text: str) -> list[int]:
        """Return the numbers of a caption's tokens, without begin and end."""
        text = self.normalise(text)
        if self._bpe is not None:
            numbers: list[int] = self._bpe.encode(text, add_special_tokens=False).ids
            return [number if number >= len(SPECIAL_TOKENS) else UNK for number in numbers]
        return [self._numbers.get(piece, UNK) for piece in self.cut(text)]

    def cut(self, text: str) -> list[str]:
        """Return the words or characters of a text that `normalise` returned."""
        if self.split_on == WORDS:
            return PIECE.findall(text)
        return list(text) if self.split_on == "" else [word for word in text.split(self.split_on) if word]

    def decode(self, numbers: Iterable[int]) -> str:
        """Return the caption of these tokens; control tokens leave no trace."""
        kept = [number for number in numbers if number >= len(SPECIAL_TOKENS)]
        if self._bpe is not None:
            return str(self._bpe.decode(kept))
        pieces = [self.tokens[number] for number in kept]
        return join(pieces, capitals=self.lowercase) if self.split_on == WORDS else (self.split_on or "").join(pieces)

    def to_json(self) -> str:
        """Return the whole tokenizer as JSON text."""
        data = {
            "format": "img2seq-tokenizer",
            "version": 1,
            "kind": "split" if self._bpe is None else "bpe",
            "split_on": self.split_on,
            "lowercase": self.lowercase,
            "tokens": self.tokens,
            "bpe": None if self._bpe is None else json.loads(self._bpe.to_str()),
        }
        return json.dumps(data, ensure_ascii=False, indent=1) + "\n"

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the tokenizer: equal if and only if it cuts and numbers captions alike."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @classmethod
    def from_json(cls, text: str, name: str = "tokenizer") -> Tokenizer:
        """Read what `to_json` wrote. Raises DataError for anything else."""
        try:
            data = json.loads(text)
            if data["format"] != "img2seq-tokenizer" or data["version"] != 1:
                raise DataError("its format or version is another")
            bpe = None if data["bpe"] is None else json.dumps(data["bpe"])
            return cls(data["tokens"], split_on=data["split_on"], lowercase=data["lowercase"], bpe=bpe)
        except Exception as error:  # the library of the byte-pair model has no errors of its own
            raise DataError(f"{name}: expected an img2seq tokenizer: {error}") from error
