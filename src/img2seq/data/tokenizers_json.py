r"""A tokenizer in the format of Hugging Face's `tokenizers`, for whoever reads an export without this package: Python, Rust, transformers.js.

`tokenizer.json` holds the vocabulary and every rule: it encodes and decodes as `Tokenizer` does. `tokenizer_config.json` names the special
tokens and keeps, in a section of its own, what the rules came from, so that the two give back the very same Tokenizer.

No special token is listed in `added_tokens`: readers would find it in a caption that spells it. The decoder takes them out instead.
Patterns are written so that Oniguruma (`tokenizers`) and JavaScript read them alike: `(?<![\s\S])` is the beginning of the text, `(?![\s\S])` its end.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import tokenizers

from img2seq.data.text import INVISIBLE, STRAY
from img2seq.data.tokenizer import SPECIAL_TOKENS, Tokenizer
from img2seq.data.words import END, PIECE, SENTENCE, START, UNWRITTEN_SPACE, WORDS, capital
from img2seq.errors import DataError

SECTION = "img2seq"
MOST_CHARACTERS = 1 << 27  # of a file that is read
_ROLES = ("bos", "unk", "mask", "pad", "eos")  # the special tokens, in their order
# Spaces around a text go only where two stand together somewhere in it, as in `clean_caption`.
_OUTER_SPACES = rf"{START}(?:  +| (?=[\s\S]*  ))|(?:  +| {END}(?<=  [\s\S]* )){END}"
_LETTER, _MARKS = r"[^\P{Cased}\p{Case_Ignorable}]", r"\p{Case_Ignorable}*"
_FINAL_SIGMA = rf"(?<={_LETTER}{_MARKS})Σ(?!{_MARKS}{_LETTER})"  # what `str.lower` makes ς of
_BYTES = {"add_prefix_space": False, "trim_offsets": True, "use_regex": True}

Json = dict[str, Any]


def to_tokenizers(tokenizer: Tokenizer) -> str:
    """Return the tokenizer as `tokenizer.json`. Raises DataError for a byte-pair model that `learn_bpe` does not make."""
    data = json.loads(tokenizer.to_json())
    split_on: str | None = data["split_on"]
    special = {"type": "Replace", "pattern": {"Regex": f"{START}<(?:{'|'.join(_ROLES)})>{END}"}, "content": ""}
    rules = _cleaning(lowercase=data["lowercase"])
    if data["bpe"] is not None:
        vocabulary, merges = data["bpe"]["model"]["vocab"], data["bpe"]["model"].get("merges")
        if data["bpe"] != json.loads(
            tokenizers.Tokenizer.from_str(json.dumps(_byte_pairs(vocabulary, merges))).to_str()
        ):
            raise DataError("tokenizer: expected a byte-pair model as `tokenizer: bpe` learns it, found other rules")
        written = data["bpe"] | {"normalizer": _sequence("normalizers", rules)}
        written["decoder"] = _sequence("decoders", [special, data["bpe"]["decoder"]])
    else:
        if "" in tokenizer.tokens:
            raise DataError(f"tokenizer: token {tokenizer.tokens.index('')} is an empty text")
        written = _file(
            normalizer=_sequence("normalizers", [*rules, *_separating(split_on)]),
            pre_tokenizer=_cutting(split_on),
            decoder=_sequence(
                "decoders", [special, *(_writing(tokenizer) if split_on == WORDS else _joining(split_on or ""))]
            ),
            model={
                "type": "WordLevel",
                "vocab": {token: number for number, token in enumerate(tokenizer.tokens)},
                "unk_token": "<unk>",
            },
        )
    return json.dumps(written, ensure_ascii=False, indent=1) + "\n"


def tokenizer_config(tokenizer: Tokenizer, *, max_length: int | None = None) -> Json:
    """Return `tokenizer_config.json`: the special tokens for `transformers`, and what `from_tokenizers` needs.

    Args:
        tokenizer: as in `to_tokenizers`.
        max_length: the most tokens of a caption, begin and end included.
    """
    data = json.loads(tokenizer.to_json())
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{f"{role}_token": token for role, token in zip(_ROLES, SPECIAL_TOKENS, strict=True)},
        **({} if max_length is None else {"model_max_length": max_length}),
        "clean_up_tokenization_spaces": False,  # readers would write "dog." for "dog ."
        "split_special_tokens": True,  # a caption that spells one is plain text
        SECTION: {"kind": data["kind"], "split_on": data["split_on"], "lowercase": data["lowercase"]},
    }


def from_tokenizers(text: str, config_text: str, folder: str | Path = "") -> Tokenizer:
    """Return the tokenizer that `to_tokenizers` and `tokenizer_config` wrote.

    Raises:
        DataError: naming the file of `folder`, for anything else.
    """
    file, config_file = Path(folder) / "tokenizer.json", Path(folder) / "tokenizer_config.json"
    data, config = _object(text, file), _object(config_text, config_file)
    section = config.get(SECTION)
    if not isinstance(section, dict):
        raise DataError(f"{config_file}: expected the section {SECTION!r} of an export")
    split_on, lowercase = section.get("split_on"), section.get("lowercase")
    if not isinstance(split_on, str | None) or not isinstance(lowercase, bool):
        raise DataError(f"{config_file}: {SECTION}: expected split_on, a text or null, and lowercase, true or false")
    try:
        model = data["model"]
        bpe = json.dumps(_byte_pairs(model["vocab"], model["merges"])) if section.get("kind") == "bpe" else None
        tokenizer = Tokenizer(_in_order(model["vocab"]), split_on=split_on, lowercase=lowercase, bpe=bpe)
        same = data == json.loads(to_tokenizers(tokenizer))
    except Exception as error:  # the library of the byte-pair model has no errors of its own
        raise DataError(
            f"{file}: expected the tokenizer of an img2seq export: {error or type(error).__name__}"
        ) from error
    if not same:
        raise DataError(f"{file}: expected the rules of an img2seq export as {config_file} says them, found others")
    for key, value in tokenizer_config(tokenizer).items():
        if config.get(key) != value:
            raise DataError(
                f"{config_file}: {key}: expected {json.dumps(value)}, found {json.dumps(config.get(key))[:60]}"
            )
    return tokenizer


def _object(text: str, file: Path) -> Json:
    if len(text) > MOST_CHARACTERS:
        raise DataError(f"{file}: expected at most {MOST_CHARACTERS:,} characters, found {len(text):,}")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: not valid JSON: {error}") from error
    if not isinstance(data, dict):
        raise DataError(f"{file}: expected a JSON object")
    return data


def _in_order(vocabulary: Any) -> list[str]:
    """Return the tokens by their numbers. Raises DataError unless the numbers are 0, 1, 2, ..."""
    if not isinstance(vocabulary, dict) or not all(type(number) is int for number in vocabulary.values()):
        raise DataError("expected a vocabulary {token: number}")
    tokens = sorted(vocabulary, key=lambda token: vocabulary[token])
    for number, token in enumerate(tokens):
        if vocabulary[token] != number:
            raise DataError(f"expected token number {number} once, found {token[:40]!r} with {vocabulary[token]}"[:200])
    return tokens


def _cleaning(*, lowercase: bool) -> list[Json]:
    """Return the steps of `Tokenizer.normalise`."""
    steps = [
        _replace(INVISIBLE.pattern, ""),
        {"type": "NFC"},
        _replace(r"[\p{Cc}\p{Z}]", " "),
        _replace(STRAY.pattern, ""),
        _replace(_OUTER_SPACES, ""),
        _replace("  +", " "),
    ]
    # `Lowercase` goes letter by letter, and so does not know where a word ends.
    return [*steps, _replace(_FINAL_SIGMA, "ς"), {"type": "Lowercase"}] if lowercase else steps


def _separating(split_on: str | None) -> list[Json]:
    """Put a line break for each separator (no other is left), then <unk> for each word that spells a special token."""
    if split_on in ("", WORDS):
        return []  # neither a character nor a word without < and > is one
    others = "|".join(role for role in _ROLES if role != "unk")
    return [
        {"type": "Replace", "pattern": {"String": split_on or " "}, "content": "\n"},
        _replace(rf"(?<![^\n])<(?:{others})>(?![^\n])", "<unk>"),
    ]


def _cutting(split_on: str | None) -> Json:
    if split_on == WORDS:
        return _split(PIECE.pattern, "Removed") | {"invert": True}  # all but the pieces
    return _split(r"[\s\S]", "Isolated") if split_on == "" else _split(r"\n", "Removed")


def _writing(tokenizer: Tokenizer) -> list[Json]:
    """Return the steps of `join`: no step makes capitals, so there is one for each letter."""
    steps = [*_joining(" "), _replace(UNWRITTEN_SPACE.pattern, "")]
    letters = sorted({letter for token in tokenizer.tokens for letter in token if capital(letter) != letter})
    return [*steps, *(_replace(SENTENCE + letter, capital(letter)) for letter in letters if tokenizer.lowercase)]


def _joining(separator: str) -> list[Json]:
    """Put the separator between what is left of the tokens."""
    if not separator:
        return [{"type": "Fuse"}]
    escaped = re.sub(r"([\^$\\.*+?()\[\]{}|/])", r"\\\1", separator)  # JavaScript refuses `\` before other characters
    return [_replace(rf"{START}(?=[\s\S])", separator), {"type": "Fuse"}, _replace(f"{START}{escaped}", "")]


def _replace(pattern: str, content: str) -> Json:
    return {"type": "Replace", "pattern": {"Regex": pattern}, "content": content}


def _split(pattern: str, behavior: str) -> Json:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": False}


def _sequence(name: str, steps: list[Json]) -> Json:
    return {"type": "Sequence", name: steps}


def _file(**parts: Any) -> Json:
    whole = (
        "truncation",
        "padding",
        "added_tokens",
        "normalizer",
        "pre_tokenizer",
        "post_processor",
        "decoder",
        "model",
    )
    return {"version": "1.0", **{part: parts.get(part, [] if part == "added_tokens" else None) for part in whole}}


def _byte_pairs(vocabulary: Any, merges: Any) -> Json:
    """Return the file of what `learn_bpe` makes, around a vocabulary and its merges."""
    none = dict.fromkeys(("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"))
    off = dict.fromkeys(("fuse_unk", "byte_fallback", "ignore_merges"), False)
    return _file(
        pre_tokenizer={"type": "ByteLevel", **_BYTES},
        decoder={"type": "ByteLevel", **_BYTES, "add_prefix_space": True},
        model={"type": "BPE", **none, **off, "vocab": vocabulary, "merges": merges},
    )
