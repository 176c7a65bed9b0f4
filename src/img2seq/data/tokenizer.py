"""Captions to numbers and back: words, characters or byte-pair units, saved as one JSON file.

The first five numbers are always <bos> <unk> <mask> <pad> <eos>. A caption that happens to spell one of
them is an unknown word, never a control token.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import tokenizers

from img2seq.config.outputs import SequenceTypeInfo
from img2seq.data.text import clean_caption, is_utf8
from img2seq.errors import DataError

BOS, UNK, MASK, PAD, EOS = range(5)
SPECIAL_TOKENS = ("<bos>", "<unk>", "<mask>", "<pad>", "<eos>")
DEFAULT_BPE_UNITS = 10_000

Kind = Literal["split", "bpe"]


class Tokenizer:
    """A vocabulary and the rule that cuts a caption into its tokens.

    Args:
        tokens: every token; a token's place is its number. The first five are SPECIAL_TOKENS.
        split_on: what separates tokens: " " for words, "" for characters.
        lowercase: whether captions are lower-cased first.
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
        parts = list(text) if self.split_on == "" else text.split(self.split_on)
        return [self._numbers.get(part, UNK) for part in parts if part]

    def decode(self, numbers: Iterable[int]) -> str:
        """Return the caption of these tokens; control tokens leave no trace."""
        kept = [number for number in numbers if number >= len(SPECIAL_TOKENS)]
        if self._bpe is not None:
            return str(self._bpe.decode(kept))
        return (self.split_on or "").join(self.tokens[number] for number in kept)

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

    @classmethod
    def of_words(cls, captions: Iterable[str], *, split_on: str, min_freq: int, lowercase: bool = False) -> Tokenizer:
        """Number every word (or character) seen at least `min_freq` times, the most frequent first."""
        empty = cls(SPECIAL_TOKENS, split_on=split_on, lowercase=lowercase)
        counts: Counter[str] = Counter()
        for caption in captions:
            text = empty.normalise(caption)
            counts.update(part for part in (text if split_on == "" else text.split(split_on)) if part)
        for special in SPECIAL_TOKENS:
            counts.pop(special, None)
        frequent = sorted((word for word, n in counts.items() if n >= min_freq), key=lambda word: (-counts[word], word))
        if not frequent:
            best = max(counts.values(), default=0)
            raise DataError(
                f"min_freq: {min_freq} leaves an empty vocabulary; the most frequent token is seen {best} time(s) in the training captions"
            )
        return cls([*SPECIAL_TOKENS, *frequent], split_on=split_on, lowercase=lowercase)

    @classmethod
    def of_bpe(
        cls, captions: Iterable[str], *, max_units: int = DEFAULT_BPE_UNITS, min_freq: int = 2, lowercase: bool = False
    ) -> Tokenizer:
        """Learn byte-pair units (Sennrich 2016) over bytes, so that any text can be written."""
        empty = cls(SPECIAL_TOKENS, split_on=None, lowercase=lowercase)
        model = tokenizers.Tokenizer(tokenizers.models.BPE())
        model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        model.decoder = tokenizers.decoders.ByteLevel()
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=max(max_units, 256 + len(SPECIAL_TOKENS)),
            min_frequency=min_freq,
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        model.train_from_iterator((empty.normalise(caption) for caption in captions), trainer)
        # Special tokens were only needed to take the first numbers; found in a caption they are plain text.
        data = json.loads(model.to_str())
        data["added_tokens"] = []
        vocabulary: dict[str, int] = data["model"]["vocab"]
        tokens = sorted(vocabulary, key=lambda token: vocabulary[token])
        return cls(tokens, split_on=None, lowercase=lowercase, bpe=json.dumps(data))


def from_vocab_file(path: str | Path, *, split_on: str | None, lowercase: bool) -> Tokenizer:
    """Read a vocabulary: {token: number}, with or without special tokens, or a run's tokenizer.json.

    Raises:
        DataError: naming the file, for anything else.
    """
    path = Path(path)
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON: {error}") from error
    if isinstance(data, dict) and data.get("format") == "img2seq-tokenizer":
        return Tokenizer.from_json(json.dumps(data), str(path))
    if (
        not isinstance(data, dict)
        or not data
        or not all(isinstance(n, int) and not isinstance(n, bool) for n in data.values())
    ):
        raise DataError(f"{path}: expected a JSON object {{token: number}}")
    if len(set(data.values())) < len(data):
        raise DataError(f"{path}: expected each number once")
    if split_on is None:
        raise DataError(f"{path}: a list of tokens needs split_on: ' ' (words) or '' (characters)")
    words = [token for token in sorted(data, key=lambda token: data[token]) if token not in SPECIAL_TOKENS]
    try:
        return Tokenizer([*SPECIAL_TOKENS, *words], split_on=split_on, lowercase=lowercase)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def build_tokenizer(info: SequenceTypeInfo, captions: list[str]) -> Tokenizer:
    """Return the tokenizer a configuration asks for, made from the training captions or read from its file."""
    if info.vocab_file is not None:
        return from_vocab_file(info.vocab_file, split_on=info.split_on, lowercase=info.lowercase)
    if info.tokenizer == "bpe":
        units = info.adaptive_tokenizer_max_vocab_size or DEFAULT_BPE_UNITS
        return Tokenizer.of_bpe(captions, max_units=units, min_freq=info.min_freq, lowercase=info.lowercase)
    return Tokenizer.of_words(captions, split_on=info.split_on or "", min_freq=info.min_freq, lowercase=info.lowercase)


def longest_trained(info: SequenceTypeInfo, lengths: Sequence[int]) -> int:
    """Return `max_length` as a number, of the training captions' lengths in tokens, end tokens included."""
    if info.max_length == "max":
        return max(lengths)
    if info.max_length == "average":
        return max(2, math.ceil(sum(lengths) / len(lengths)))
    return info.max_length
