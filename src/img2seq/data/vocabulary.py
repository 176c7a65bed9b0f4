"""Vocabularies: learned from the training captions, or read from a file."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from img2seq.config.outputs import SequenceTypeInfo
from img2seq.data.scripts import words_are_not_separated
from img2seq.data.tokenizer import SPECIAL_TOKENS, Tokenizer
from img2seq.data.words import WORDS
from img2seq.errors import DataError, shown

DEFAULT_BPE_UNITS = 10_000


def learn_words(captions: Iterable[str], *, split_on: str, min_freq: int, lowercase: bool = False) -> Tokenizer:
    """Number every word (or character) seen at least `min_freq` times, the most frequent first."""
    empty = Tokenizer(SPECIAL_TOKENS, split_on=split_on, lowercase=lowercase)
    counts = _count(empty, captions)
    if not (frequent := _frequent(counts, min_freq)):
        best = max(counts.values(), default=0)
        raise DataError(
            f"min_freq: {min_freq} leaves an empty vocabulary; the most frequent token is seen {best} time(s) in the training captions"
        )
    return Tokenizer([*SPECIAL_TOKENS, *frequent], split_on=split_on, lowercase=lowercase)


def add_words(known: Tokenizer, captions: Iterable[str], *, min_freq: int) -> Tokenizer:
    """Append every word (or character) seen at least `min_freq` times; those that are known keep their numbers, needed or not."""
    before = set(known.tokens)
    new = [word for word in _frequent(_count(known, captions), min_freq) if word not in before]
    return Tokenizer([*known.tokens, *new], split_on=known.split_on, lowercase=known.lowercase)


def _count(tokenizer: Tokenizer, captions: Iterable[str]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for caption in captions:
        counts.update(tokenizer.cut(tokenizer.normalise(caption)))
    for special in SPECIAL_TOKENS:
        counts.pop(special, None)
    return counts


def _frequent(counts: Counter[str], min_freq: int) -> list[str]:
    """Return the words seen at least `min_freq` times, the most frequent first."""
    return sorted((word for word, n in counts.items() if n >= min_freq), key=lambda word: (-counts[word], word))


def learn_bpe(
    captions: Iterable[str], *, max_units: int = DEFAULT_BPE_UNITS, min_freq: int = 2, lowercase: bool = False
) -> Tokenizer:
    """Learn byte-pair units (Sennrich 2016) over bytes, so that any text can be written."""
    empty = Tokenizer(SPECIAL_TOKENS, split_on=None, lowercase=lowercase)
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
    return Tokenizer(tokens, split_on=None, lowercase=lowercase, bpe=json.dumps(data))


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
        raise DataError(f"{path}: a list of tokens needs split_on: words, ' ' (at spaces) or '' (characters)")
    words = [token for token in sorted(data, key=lambda token: data[token]) if token not in SPECIAL_TOKENS]
    try:
        return Tokenizer([*SPECIAL_TOKENS, *words], split_on=split_on, lowercase=lowercase)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def build_tokenizer(info: SequenceTypeInfo, captions: list[str], known: Tokenizer | None = None) -> Tokenizer:
    """Return the tokenizer a configuration asks for: made from the training captions, read from its file, or one that is known with their words added."""
    if known is None and info.vocab_file is not None:
        return from_vocab_file(info.vocab_file, split_on=info.split_on, lowercase=info.lowercase)
    if info.tokenizer == "bpe":
        if known is not None:
            return known  # its units write any text already
        units = info.adaptive_tokenizer_max_vocab_size or DEFAULT_BPE_UNITS
        return learn_bpe(captions, max_units=units, min_freq=info.min_freq, lowercase=info.lowercase)
    if info.split_on in (" ", WORDS):
        _check_spaces(captions)
    if known is not None:
        return add_words(known, captions, min_freq=info.min_freq)
    return learn_words(captions, split_on=info.split_on or "", min_freq=info.min_freq, lowercase=info.lowercase)


def longest_trained(info: SequenceTypeInfo, lengths: Sequence[int]) -> int:
    """Return `max_length` as a number, of the training captions' lengths in tokens, end tokens included."""
    if info.max_length == "max":
        return max(lengths)
    if info.max_length == "average":
        return max(2, math.ceil(sum(lengths) / len(lengths)))
    return info.max_length


def _check_spaces(captions: Sequence[str]) -> None:
    """Raise DataError for captions in a script without spaces: by words, a caption would be one token that is seen once."""
    if captions and words_are_not_separated(word for caption in captions for word in caption.split(" ")):
        example = max(captions[:100], key=len)
        raise DataError(
            f"split_on: captions are split into words at spaces, and these have no spaces between words: {shown(example)}. Use split_on: '' "
            "(characters) or tokenizer: bpe, put spaces between the words, or give the words with vocab_file"
        )
