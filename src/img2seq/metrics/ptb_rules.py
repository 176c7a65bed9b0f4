"""What counts as one token for the reference tokenizer: one pattern per kind, longest match wins.

Every rule was inferred from what the reference does with probe strings (tens of millions, most of them all strings
over a small alphabet), not from its source. A rule that looks arbitrary records a behaviour that is arbitrary:
"Jan.a" is two tokens and "Jan.ab" is one.

At each place every rule is tried; the one that reaches farthest wins, the first of equals. A rule may need to see
what follows its token ("No." is an abbreviation before a digit); what it looks at counts as its reach, and the
part that becomes the token is then the group `_<name>`.
"""

from __future__ import annotations

from typing import NamedTuple

from img2seq.metrics.ptb_characters import LETTERS, MARKS

SPACES = r" \t\n\r\x0b\x0c\x85\xa0\u2000-\u200a\u2028\u2029\u3000"
SOFT_HYPHEN = "\u00ad"

_LETTER = f"[{LETTERS}{MARKS}{SOFT_HYPHEN}]"
_LETTER_OR_DIGIT = f"[{LETTERS}{MARKS}{SOFT_HYPHEN}0-9]"
_ALNUM = f"[{LETTERS}0-9]"
_ACCENTED = "(?i:&[aeiou](?:acute|grave|uml);)"
_WORD = f"(?:{_LETTER}|{_ACCENTED}){_LETTER_OR_DIGIT}*(?:{_ACCENTED}{_LETTER_OR_DIGIT}*)*"
_DIGITS = f"[0-9](?:{SOFT_HYPHEN}?[0-9])*"
_POINT = r"[.:,\u066b\u066c]"
_SPACE = f"[{SPACES}]"

_APOSTROPHE = r"(?:['\u2019\u0092]|&apos;)"
_ANY_APOSTROPHE = r"(?:['\u2019\u0092`\u2018\u0091\u201b]|&apos;)"
_CLITIC = "(?i:[sdm]|ll|re|ve)"

# l'eau-de-vie, O'Neill-like: one letter and an apostrophe may begin any part of a hyphenated word.
_ELISION = f"(?:[DLOdlo]{_ANY_APOSTROPHE}{_ALNUM})?"
_HYPHENATED = rf"{_ELISION}{_ALNUM}+(?:[-_\u058a\u2010\u2011]{_ELISION}{_ALNUM}+)+"
_HYPHENATED_DOTTED = (
    f"[A-Za-z0-9][A-Za-z0-9{SOFT_HYPHEN}.,]*(?:-[A-Za-z0-9{SOFT_HYPHEN}]+)*"
    rf"-(?:(?:[A-Za-z]\.){{2,}}|[A-Za-z0-9{SOFT_HYPHEN}]+)"
)
_JOINED = f"{_WORD}(?:[.!?]{_WORD})+"
_COMPANIES = r"[A-Z]+(?:(?:&(?:(?i:amp);)?|\+)[A-Z]+)+"
_SLASH_PART = "[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}"

# Abbreviations that may end a sentence; those written with a capital only; those not written in capitals.
_ENDING = """
    al ala apr ariz assn aug bhd bldg blvd bros calif co colo conn corp cos ct dak dec esq est etc ext feb fla fri
    ga inc ind intl jan jr jul jun kan kans ky ltd mar md mich minn mo mon mont neb nev nov oct okla penn plc rd rt
    sep sept seq sq sr sys tel tenn thu thurs tue tues univ va vt wed wis wisc wyo
"""
_ENDING_CAPITALISED = "ark az del ill la mass miss ore pa tex wash"
_ENDING_SMALL = "ppte pptes ppty pptys pte ptes pty ptys"
# Abbreviations that something follows: titles, "vs.".
_TITLES = """
    adj adm adv alex assoc asst atty attys ave brig capt cf cie cmdr col comdr cpl dept det dr drs elec ens ft gen
    gov govs hon insp invt jos lieut lt maj messrs mlle mme mr mrs ms msgr mt natl pfc ph pres prof profs pvt rep
    reps rev sen sens sfc sgt spc st ste supt supts treas vs wm
"""
_TITLES_SMALL = "mfg mtg"
ABBREVIATIONS = frozenset(
    f"{_ENDING} {_ENDING_CAPITALISED} {_ENDING_SMALL} {_TITLES} {_TITLES_SMALL}".split()
)  # in lower case
_NUMBERED = "art|bldg|ca|figs?|nos?|opp?|pp?|prop"
# Words that show a sentence has ended when they follow a single letter and a period.
_SENTENCE_STARTS = """
    A About According Additionally After An As At But Earlier He Her Here However If In It Last Many More Now Once
    One Other Our She Since So Some Such That The Their Then There These They This We What When While Yet You
"""


def _capitalised(word: str) -> str:
    """Return a pattern for `word` with a capital first and either case after."""
    return word[0].upper() + "".join(f"[{letter}{letter.upper()}]" for letter in word[1:].lower())


def _abbreviations(any_case: str, capitalised: str = "", small: str = "") -> str:
    """Return a pattern for any of the words, each list in the cases the reference knows it in."""
    patterns = [f"(?i:{word})" for word in any_case.split()]
    patterns += [_capitalised(word) for word in capitalised.split()]
    patterns += [f"[{word[0]}{word[0].upper()}]{word[1:]}" for word in small.split()]
    return "|".join(patterns)


_ENDINGS = _abbreviations(_ENDING, _ENDING_CAPITALISED, _ENDING_SMALL) + r"|(?i:ph\.d|ed\.d)"

_NAME = "[A-Za-z][A-Za-z0-9_:.-]*"
_ATTRIBUTE = rf""" +{_NAME}(?: *= *(?:"[^"]*"|'[^']*'))?"""
_MARKUP = f"</{_NAME} *>|<{_NAME}(?:{_ATTRIBUTE})* *(?:/ *)?>|<[!?][A-Za-z-][^>\n]*>"
_PHONE_GAP = "[ \u00a0-]"
_NOT_IN_ADDRESS = r' \t\n\r\f\xa0"<>|(){}'
_HOST = r"""[^ \t\n\r\f\xa0"<>|(){}.!?,$'/:;=@A-Z0-9\[\]\\^_`-]"""
_SITE = (
    rf'(?:(?i:www)\.(?:[^ \t\n\r\f\xa0"<>|.!?(){{}},]+\.)+[a-zA-Z]{{2,4}}'
    rf"|(?:{_HOST}+\.)+(?i:com|net|org|edu))"
)
_OPEN_EYE = "[x=~<>^']"
_EYE = "[-x=~<>^']"
_FILE_PART = f"[{LETTERS}{SOFT_HYPHEN}0-9]"
_FILE_ENDINGS = (
    "bat|bmp|c|cgi|cpp|dll|docx?|exe|gif|gz|h|html?|jar|java|jpe?g|mov|mp3|pdf|php|pl|png|ppt|ps|py|sql|tar|txt|"
    "wav|x|xml|zip"
)


class Rule(NamedTuple):
    """A kind of token: its name, what it matches, and what may be required to follow it."""

    name: str
    token: str
    then: str = ""


RULES = (
    # --- words with apostrophes -------------------------------------------------------------------------
    Rule("negated", rf"[A-Za-z{SOFT_HYPHEN}]*[A-MO-Za-mo-z{SOFT_HYPHEN}]", f"(?i:n{_ANY_APOSTROPHE}t)"),  # do|n't
    Rule("negation", f"(?i:n{_ANY_APOSTROPHE}t)"),
    Rule("owner_joined", _JOINED, _APOSTROPHE + _CLITIC),
    Rule("owner", f"{_WORD}|{_ALNUM}+", _APOSTROPHE + _CLITIC),  # dog|'s
    Rule("clitic", f"(?:'|&apos;){_CLITIC}(?![A-Za-z])"),
    Rule("clitic_curly", rf"[\u2019\u0092]{_CLITIC}"),
    # --- plain words, and the six that are cut in two ----------------------------------------------------
    Rule("cut_first", "(?i:can(?=not)|gon(?=na)|wan(?=na)|got(?=ta)|gim(?=me)|lem(?=me))",
         f"(?i:not|na|ta|me)(?!{_LETTER_OR_DIGIT})"),
    Rule("word", _WORD),
    Rule("digits_word", f"{_ALNUM}+"),  # 3rd, 1980s
    # --- apostrophes that belong to a word ---------------------------------------------------------------
    Rule("it_was", "'(?i:t)", "(?i:is|was)"),  # 't|is
    Rule("two_quotes", "''"),
    Rule("quotes", r"[`\u2018\u2019\u201a\u201b\u201c\u201d-\u201f\u0091-\u0094\u2039\u203a\xab\xbb]{1,2}"),
    Rule("shortened", f"{_APOSTROPHE}(?i:em|till?|cause)"),
    Rule("and", rf"{_APOSTROPHE}[nN]{_APOSTROPHE}|'[nN](?=[ \t\n\xa0])|[\u2019\u0092][nN]"),  # rock|'n'|roll
    Rule("elided", f"[DLOdlo]{_ANY_APOSTROPHE}{_ALNUM}{{2,}}"
                   f"|[A-HJ-XZdlno]{_ANY_APOSTROPHE}[{LETTERS}]{{2,}}"),  # o'clock, O'Neill
    Rule("between_vowels", f"[{LETTERS}]+[aeiouyAEIOUY]{_ANY_APOSTROPHE}[aeiouA-Z][{LETTERS}]*"),  # Pe'e, ma'am
    Rule("prefix", f"[DJLdjl]{_APOSTROPHE}|[Yy]{_APOSTROPHE}(?={_LETTER})", f"{_LETTER}?"),  # y'|all
    Rule("listed", f"(?i:c'mon|e'er|ev'ry|li'l|nat'l|s'mores|(?:c{_APOSTROPHE}est|cap{_APOSTROPHE}n|ol{_APOSTROPHE})"
                   f"|o{_ANY_APOSTROPHE}o)"),
    Rule("year", f"{_APOSTROPHE}(?:[2-9]0[sS]|[0-9]{{2}}(?={_SPACE}))"),  # '90s
    # --- numbers -----------------------------------------------------------------------------------------
    Rule("number", f"[-+]?(?:{SOFT_HYPHEN}?{_DIGITS}(?:{_POINT}{_DIGITS})*|(?:{_POINT}{_DIGITS})+)"),
    Rule("fraction", r"(?:[0-9]{1,4}[- \xa0])?[0-9]{1,4}(?:\\?/|\u2044)[0-9]{1,4}"),  # 22 3/4
    Rule("phone", rf"(?:\+{{0,2}}[0-9]{{2,4}}{_PHONE_GAP}(?:[0-9]{{2,4}}{_PHONE_GAP})?|\([0-9]{{2,3}}\)[ \xa0]?)"
                  f"[0-9]{{3,4}}{_PHONE_GAP}?[0-9]{{3,5}}"),
    Rule("date", "[0-9]{1,2}[-/][0-9]{1,2}[-/][0-9]{2,4}"),
    # --- addresses, files, markup --------------------------------------------------------------------------
    Rule("file", rf"{_FILE_PART}+(?:\.{_FILE_PART}+)*\.(?i:{_FILE_ENDINGS})(?=[{SPACES}.?!,])"),
    Rule("email", rf"(?:<|&lt;)?[A-Za-z0-9][^{_NOT_IN_ADDRESS}]*@(?:[^{_NOT_IN_ADDRESS}.]+\.)*"
                  rf"[^{_NOT_IN_ADDRESS}.]+(?:>|&gt;)?"),
    Rule("url", r'(?i:https?)://[^ \t\n\r\f"<>|(){}]+[^ \t\n\r\f\xa0"<>|.!?(),{}-]'),
    Rule("site", _SITE),
    Rule("page", _SITE + r'/[^ \t\n\r\f\xa0"<>|()]+[^ \t\n\r\f\xa0"<>|.!?(),{}-]'),
    Rule("markup", _MARKUP),
    Rule("entity", "(?i:&(?:amp|lt|gt|nbsp|md|ht|tl|ur|lr|qc|ql|qr|odq|cdq);)"
                   "|&(?:quot|apos|[mn]dash);|&(?:QUOT|APOS);|&#[0-9]+;"),
    Rule("hashtag", f"#(?:{_LETTER}|{_ACCENTED})+"),
    Rule("mention", "@[A-Za-z_][A-Za-z_0-9]*"),
    # --- words joined by signs, abbreviations ------------------------------------------------------------
    Rule("joined", _JOINED),  # grass.The
    Rule("ending", rf"(?:{_ENDINGS})\.", "(?s:.){0,2}"),
    Rule("hyphenated", _HYPHENATED),
    Rule("hyphenated_dotted", _HYPHENATED_DOTTED),
    Rule("slashed", rf"{_SLASH_PART}(?:\\?/{_SLASH_PART}){{1,2}}"),
    Rule("companies", _COMPANIES),  # AT&T
    Rule("lone_letter", "[A-Za-z]", rf"\.{_SPACE}+(?:"
         + "|".join(_capitalised(word) for word in _SENTENCE_STARTS.split())
         + rf"|M[RrSs]\.|{_MARKUP}){_SPACE}"),
    Rule("initials", r"[A-Za-z](?:\.[A-Za-z])*\."),  # U.S.
    Rule("title", rf"(?:{_abbreviations(_TITLES, small=_TITLES_SMALL)})\."),
    Rule("numbered", rf"(?i:{_NUMBERED})\.", f"{_SPACE}?[0-9]"),  # No.|5
    Rule("dotted", rf"(?:{_HYPHENATED}|{_HYPHENATED_DOTTED}|{_JOINED}|{_COMPANIES}|{_WORD}"
                   rf"|{_ELISION}{_ALNUM}+)\.", "[,;:]"),
    # --- faces and signs -----------------------------------------------------------------------------------
    Rule("face", r"[<>]?[:;=][-o*']?[()DPdpO@\[\]{|\\](?![A-Za-z0-9])"),
    Rule("eastern_face", rf"{_EYE}_{_EYE}|\((?:{_EYE}[_.]?{_EYE}|{_OPEN_EYE}-{_OPEN_EYE})\)"),
    Rule("bracket", "-(?i:[lr][rcs]b)-"),
    Rule("dollars", r"[A-Z]+\$"),  # US$
    Rule("language", r"[Cc]\+\+|[CFcf]#"),
    Rule("ellipsis", r"\.{3,5}|\.(?:[ \xa0]\.){2,4}|\u2026|\x85"),
    Rule("marks", "[!?]+"),
    Rule("dashes", r"--+|[\u2013-\u2015\x96\x97]"),
    Rule("repeated", r"\*+|(?:\\\*)+|_+|#+|@+|<<|>>|[\xb2\xb3\xb9\u2070\u2074-\u2079]+|[\u2080-\u2089]+"),
    Rule("sign", f"[^{SPACES}]"),
)  # fmt: skip
