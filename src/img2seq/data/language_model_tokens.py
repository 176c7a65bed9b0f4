"""The tokenizer of a language model as a `Tokenizer`: its tokens numbered anew behind our five, and only those that captions use, where that is wanted.

What is not kept is taken out of the vocabulary, and text is then cut as the tokenizer's own rules cut it without: a word of the captions into the
same tokens as before, any other word into smaller ones, down to single bytes. For byte-pair models that needs the steps between bytes and token, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import tokenizers

from img2seq.data.tokenizer import SPECIAL_TOKENS, Tokenizer
from img2seq.errors import DataError, shown

_BYTE = re.compile("<0x[0-9A-F]{2}>")
_LEAST = -1e4  # log-probability of a piece that no text is to be cut into


@dataclass(frozen=True)
class OwnTokens:
    """A language model's tokenizer.

    Attributes:
        text: as `tokenizers` writes it.
        numbers: of its tokens, control tokens left out.
    """

    text: str
    numbers: dict[str, int]

    @classmethod
    def read(cls, text: str, name: str) -> OwnTokens:
        """Read what `tokenizers` wrote. Raises DataError, naming it, for anything else."""
        try:
            data = json.loads(text)
            control = {token["content"] for token in data["added_tokens"] if token["special"]} | set(SPECIAL_TOKENS)
            # found in a caption they are plain text
            data |= {"added_tokens": [], "post_processor": None, "truncation": None, "padding": None}
            if "dropout" in data["model"]:
                data["model"]["dropout"] = None
            numbers = {token: number for token, number in _numbers(data["model"]).items() if token not in control}
            tokenizers.Tokenizer.from_str(text := json.dumps(data))
        except Exception as error:  # the library has no errors of its own
            raise DataError(f"{name}: expected a tokenizer as `tokenizers` writes it: {shown(str(error))}") from error
        return cls(text, numbers)

    def tokenizer(self, captions: Sequence[str] | None, *, lowercase: bool) -> Tokenizer:
        """Return the tokenizer of all tokens, or of those that captions use.

        Raises:
            DataError: if without the other tokens the captions would be cut otherwise.
        """
        every = self._of(set(self.numbers), lowercase=lowercase)
        if captions is None:
            return every
        cut = {text: [every.tokens[number] for number in every.encode(text)] for text in dict.fromkeys(captions)}
        used = {token for tokens in cut.values() for token in tokens}
        alphabet = set(tokenizers.pre_tokenizers.ByteLevel.alphabet())
        used |= {token for token in self.numbers if token in alphabet or _BYTE.fullmatch(token)}
        kept = self._of((used | self._steps_to(used)) & set(self.numbers), lowercase=lowercase)
        for text, tokens in cut.items():
            if [kept.tokens[number] for number in kept.encode(text)] != tokens:
                raise DataError(
                    f"restrict_vocabulary: with fewer tokens this tokenizer cuts {shown(text)} otherwise; set it to false"
                )
        return kept

    def _steps_to(self, tokens: Iterable[str]) -> set[str]:
        """Return what a byte-pair model makes on its way from characters to these tokens."""
        model = json.loads(self.text)["model"]
        pairs = [tuple(pair.split(" ", 1) if isinstance(pair, str) else pair) for pair in model.get("merges", ())]
        rank_of = {pair: rank for rank, pair in enumerate(pairs)}
        steps: set[str] = set()
        for token in tokens if rank_of else ():
            pieces = list(token)
            steps |= set(pieces)
            while ranks := [rank_of.get(pair, len(pairs)) for pair in pairwise(pieces)]:
                if (best := min(ranks)) == len(pairs):
                    break
                at = ranks.index(best)
                pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]
                steps.add(pieces[at])
        return steps

    def _of(self, kept: set[str], *, lowercase: bool) -> Tokenizer:
        """Return the tokenizer of these tokens, behind ours in their own order."""
        data = json.loads(self.text)
        tokens = [*SPECIAL_TOKENS, *sorted(kept, key=self.numbers.__getitem__)]
        model = data["model"]
        if isinstance(model["vocab"], list):  # pieces with their log-probabilities
            score_of = dict(model["vocab"])
            model["vocab"] = [[token, score_of[token] if token in kept else _LEAST] for token in tokens]
            model["unk_id"] = SPECIAL_TOKENS.index("<unk>")
        else:
            model["vocab"] = {token: number for number, token in enumerate(tokens)}
            if model.get("unk_token") is not None:
                model["unk_token"] = "<unk>"
        if "merges" in model:
            pairs = [(pair.split(" ", 1) if isinstance(pair, str) else pair) for pair in model["merges"]]
            model["merges"] = [pair for pair in pairs if {*pair, "".join(pair)} <= kept]
        return Tokenizer(tokens, split_on=None, lowercase=lowercase, bpe=json.dumps(data))


def _numbers(model: dict[str, Any]) -> dict[str, int]:
    """Return the number of each token of a model of `tokenizers`."""
    vocabulary = model["vocab"]
    if isinstance(vocabulary, list):
        return {token: number for number, (token, _) in enumerate(vocabulary)}
    return dict(vocabulary)
