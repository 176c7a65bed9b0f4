"""Bring captions and names to one form, so that texts which look the same are the same."""

from __future__ import annotations

import re
import unicodedata

# Removed wherever they stand: they show nothing and would make two words of one. Soft hyphen, Arabic letter mark, zero width
# space, word joiner, byte order mark, marks and overrides of writing direction.
INVISIBLE = re.compile("[\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff]")
# Joiners and variation selectors change how the letter or emoji before them is drawn (Persian, Indic scripts, families of
# emoji), so they stay inside words and go only where they have nothing to act on.
_JOINERS = "\u200c\u200d"
_MODIFIERS = _JOINERS + "\u034f\ufe00-\ufe0f\U000e0000-\U000e0fff"
STRAY = re.compile(f"(?:^|(?<= ))[{_MODIFIERS}]+|[{_JOINERS}]+(?=$| )")


def is_utf8(text: str) -> bool:
    """Tell whether text can be written as UTF-8: file names and texts in JSON may hold what cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def clean_caption(text: str) -> str:
    """Return the caption in Unicode NFC on one line, without invisible characters; separators and control characters become one space.

    Raises:
        ValueError: for text that is not valid Unicode (a lone surrogate).
    """
    if not (text.isascii() and text.isprintable()):  # most captions need none of this
        if not is_utf8(text):
            raise ValueError("not valid Unicode (a lone surrogate)")
        text = unicodedata.normalize("NFC", INVISIBLE.sub("", text))
        if not text.isprintable():  # also true of every separator but the space
            text = "".join(" " if unicodedata.category(char) in ("Cc", "Zl", "Zp", "Zs") else char for char in text)
        text = STRAY.sub("", text)
    return " ".join(part for part in text.split(" ") if part) if "  " in text else text


def clean_name(text: str) -> str:
    """Return an ID or a file name in the form that is compared: NFC (macOS writes NFD), without invisible characters or blanks around it."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", INVISIBLE.sub("", text))
    return text.strip()
