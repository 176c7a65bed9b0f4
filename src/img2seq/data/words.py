r"""Cut sentences into words and punctuation marks, and write them again as people do: "A girl climbs a rock."

Every rule is a pattern that Python, Oniguruma (`tokenizers`) and JavaScript read alike: characters are listed, for classes of Unicode
differ between versions, and nothing is looked for inside a look-behind; `(?<![\s\S])` is the beginning of the text, `(?![\s\S])` its end.
"""

from __future__ import annotations

import re

WORDS = "words"  # the value of split_on
START, END = r"(?<![\s\S])", r"(?![\s\S])"
_OPENING, _CLOSING = r"(\[{<¿¡", r".,;:!?)\]}>…،؛؟।॥。、，！？：；"
_DOUBLE, _SINGLE = '"“”„‟«»', "'’‘"
_LETTER = f"[^ {_OPENING}{_CLOSING}{_DOUBLE}{_SINGLE}]"  # digits and hyphens, too: all that is not cut off
# "girl's" and "don't" are two pieces each, as in the Penn Treebank, where "girl 's" and "do n't" are written.
_CLITIC = f"(?:[nN]['’][tT]|['’](?:[sSmMdD]|[rR][eE]|[vV][eE]|[lL][lL]))(?!{_LETTER})"
# Stay inside a word: "o'clock", "'em", "statefarm.com", "3.5", "1,000", "10:30".
_INSIDE = f"[{_SINGLE}](?={_LETTER})|(?<={_LETTER})[.](?={_LETTER})|(?<=[0-9])[,:](?=[0-9])"
_WORD = f"(?:(?!{_CLITIC})(?:{_LETTER}|{_INSIDE}))+"
PIECE = re.compile(f"{_CLITIC}|{_WORD}|[^ ]")


def _inside(quotes: str) -> str:
    """Return the space inside two quotation marks. They are paired from the end of the text; one left over closes."""
    mark = f"(?<![^ ])[{quotes}](?![^ ])"
    no_mark = rf"(?:(?!{mark})[\s\S])*"
    pairs = f"(?:{no_mark}{mark}{no_mark}{mark})*{no_mark}{END}"
    return f" (?={mark}{pairs})|(?<=[{quotes}])(?<![^ ][{quotes}]) (?={no_mark}{mark}{pairs})"


UNWRITTEN_SPACE = re.compile(f" (?=[{_CLOSING}]|{_CLITIC})|(?<=[{_OPENING}]) |{_inside(_DOUBLE)}|{_inside(_SINGLE)}")
# A sentence ends after three letters, for "Mr. Smith" and "D.C. police" go on.
SENTENCE = rf"(?:{START}|(?<=[({_DOUBLE}])(?<![\s\S]{{2}})|(?<=[^ .]{{3}}[.!?] ))"
_FIRST = re.compile(rf"{SENTENCE}[\s\S]")


def join(pieces: list[str], *, capitals: bool) -> str:
    """Return the pieces as a text, each sentence with a capital if `capitals`."""
    text = UNWRITTEN_SPACE.sub("", " ".join(pieces))
    return _FIRST.sub(lambda first: capital(first[0]), text) if capitals else text


def capital(letter: str) -> str:
    """Return the letter as a sentence begins with it; one that two letters would stand for ("ß") stays."""
    return letter.title() if len(letter.title()) == 1 else letter
