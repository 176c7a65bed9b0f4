r"""Cut captions into the tokens that COCO's metrics score, without Java.

The reference is `PTBTokenizer` of pycocoevalcap 1.2: Stanford's PTBTokenizer 3.4.1 with `-preserveLines -lowerCase`,
then a list of punctuation tokens dropped. `ptb_rules` holds its behaviour; this file runs it.

A caption is cut as if another, unrelated one followed it on the next line, as in the reference's input file. The
reference itself can look into the next caption in one case: a caption that ends in a single letter and a period
("the letter P.") loses the period when the next caption begins "A " or "The ". Line breaks other than "\n", which
make the reference lose track of its captions, are spaces here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache

from img2seq.metrics.ptb_characters import SYMBOLS
from img2seq.metrics.ptb_rules import ABBREVIATIONS, RULES, SOFT_HYPHEN, SPACES

# The list is pycocoevalcap's. Brackets arrive in lower case and so are not dropped: "-lrb-" is scored.
PUNCTUATION = frozenset(
    ["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";"]
)
_BRACKETS = str.maketrans({"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"})
_PARENTHESES = str.maketrans({"(": "-lrb-", ")": "-rrb-"})
# A token never holds a space: the reference joins tokens with spaces, so inside one it writes no-break spaces.
_NO_BREAK = str.maketrans({" ": "\u00a0", "(": "-lrb-", ")": "-rrb-"})
_QUOTES = str.maketrans(
    dict.fromkeys("\u2018\u201b\u0091\u2039", "`")
    | dict.fromkeys("\u2019\u0092\u203a", "'")
    | dict.fromkeys("\u201c\u0093\xab", "``")
    | dict.fromkeys("\u201d\u0094\xbb", "''")
)
_ENTITIES = {"&amp;": "&", "&lt;": "<", "&gt;": ">", "&nbsp;": "", "&md;": "--", "&quot;": "''", "&apos;": "'",
             "&mdash;": "--", "&ndash;": "--"}  # fmt: skip
_SIGNS = dict.fromkeys("\x80\xa4\u20a0\u20ac", "$") | {
    "\xa3": "#", "\xa2": "cents", '"': "''", SOFT_HYPHEN: "-",
    "\xbc": "1/4", "\xbd": "1/2", "\xbe": "3/4", "\u2153": "1/3", "\u2154": "2/3",
}  # fmt: skip
_SYMBOL = re.compile(f"[{SYMBOLS}]")


def _straight(token: str) -> str:
    """Return `token` with typographic apostrophes and "&apos;" made plain."""
    return token.replace("&apos;", "'").translate(_QUOTES)


def _entity(token: str) -> str:
    """Return the character that an HTML entity stands for, where the reference knows it."""
    return token if token in ("&QUOT;", "&APOS;") else _ENTITIES.get(token.lower(), token)


def _sign(token: str) -> str:
    """Return what the reference writes for a character that no other rule claims; "" where it drops it."""
    token = _SIGNS.get(token, token).translate(_BRACKETS)
    return token if len(token) > 1 or token in "$#-" or _SYMBOL.match(token) else ""


def _without_soft_hyphens(token: str) -> str:
    return token.replace(SOFT_HYPHEN, "")


_REWRITES: dict[str, Callable[[str], str]] = {
    "negation": _straight,
    "clitic": _straight,
    "clitic_curly": _straight,
    "quotes": _straight,
    "fraction": lambda token: token.translate(_NO_BREAK),
    "phone": lambda token: token.translate(_NO_BREAK),
    "markup": lambda token: token.replace(" ", "\u00a0"),
    "companies": lambda token: re.sub("(?i)&amp;", "&", token),
    "entity": _entity,
    "face": lambda token: token.translate(_PARENTHESES),
    "eastern_face": lambda token: token.translate(_PARENTHESES),
    "ellipsis": lambda token: "...",
    "dashes": lambda token: token if len(token) > 4 else "--",
    "sign": _sign,
} | dict.fromkeys(("hashtag", "email", "file", "site", "page", "url"), str)  # as they are, soft hyphens included

_NOT_SPACE = re.compile(f"[^{SPACES}]")
_LINE_BREAK = re.compile(r"[\n\r\x0b\x0c\u2028\u2029]")
# Most captions are words, commas and a period at the end, which no rule can join or cut. This shape is read
# directly, for speed; a test holds the two ways to the same tokens.
_WORDS = "[A-Za-z]+(?:-[A-Za-z]+)*"
_EASY_CAPTION = re.compile(rf"{_WORDS}(?:(?:,| ,)? {_WORDS})*( ?\.)? ?")
_EASY_WORD = re.compile(rf"{_WORDS}(?=,?[ \n])|,(?=[ \n])|\.(?= ?\n)")
_CUT_IN_TWO = frozenset(["cannot", "gonna", "gotta", "gimme", "lemme", "wanna"])


def ptb_tokenize(text: str) -> list[str]:
    r"""Return the tokens of `text` that COCO's metrics score: lower case, punctuation dropped.

    >>> ptb_tokenize("A dog's 22 3/4-inch stick (it isn't big).")
    ['a', 'dog', "'s", '22\xa03/4', 'inch', 'stick', '-lrb-', 'it', 'is', "n't", 'big', '-rrb-']
    """
    easy = _EASY_CAPTION.fullmatch(text)
    if easy:
        words = text.replace(",", " ").replace(".", " ").lower().split()
        # "A letter P." and "in St." keep their period.
        whole = easy[1] != "." or (len(words[-1]) > 1 and words[-1] not in ABBREVIATIONS)
        if whole and _CUT_IN_TWO.isdisjoint(words):
            return words
    return [token for token in _all_tokens(text) if token not in PUNCTUATION]


def _all_tokens(text: str) -> Iterator[str]:
    """Yield every token of `text`, punctuation included, in lower case."""
    text = _LINE_BREAK.sub(" ", text) + "\n"
    position = 0
    while found := _NOT_SPACE.search(text, position):
        position = found.start()
        easy = _EASY_WORD.match(text, position)
        if easy and easy.group().lower() not in _CUT_IN_TWO:
            position = easy.end()
            yield easy.group().lower()
            continue
        name, token = _longest(text, position)
        position += len(token)
        token = _REWRITES.get(name, _without_soft_hyphens)(token).lower()
        if token:
            yield token


@cache
def _all_rules() -> re.Pattern[str]:
    """Return one pattern that tries every rule; compiling it takes as long as importing numpy, so only when needed.

    Every rule is an optional look-ahead, so `regs` of one match tells how far each of them reaches.
    """
    return re.compile(
        "".join(f"(?=(?P<{rule.name}>(?P<_{rule.name}>{rule.token}){rule.then})|)" for rule in RULES), re.ASCII
    )


def _longest(text: str, position: int) -> tuple[str, str]:
    """Return the name and the token of the rule that reaches farthest from `position`, the first of equals."""
    match = _all_rules().match(text, position)
    assert match is not None  # every look-ahead is optional
    reached = match.regs  # of the whole match, then of each rule: its reach, its token
    best = max(range(1, len(reached), 2), key=lambda group: reached[group][1])
    start, end = reached[best + 1]
    return RULES[best // 2].name, text[start:end]
