"""Every error a user can cause, as one tree.

    Img2SeqError            exit code 2: the input is wrong, nothing was lost
    ├── ConfigError         a YAML file or an override on the command line
    ├── DataError           photographs, captions, ids, vocabularies
    ├── ModelError          encoders, weights, shapes
    ├── RunError            a run folder: exists already, incomplete, does not match
    └── ScoreError          results or references that cannot be scored

A message names the file, the place in it, what was expected, what was found and the nearest right name. It stays short
whatever was found: see MOST_IN_LINE and MOST_LINES.
Only `cli/main.py` turns an error into an exit code; nothing else in the package exits.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable

MOST_IN_LINE, MOST_LINES = 600, 60  # characters; lines


class Img2SeqError(Exception):
    """Report wrong input in one message that a user can act on.

    Attributes:
        already_reported: another process of the same run has shown it already.
    """

    already_reported = False

    def __init__(self, message: str = ""):
        super().__init__(_bounded(message))


class ConfigError(Img2SeqError):
    """A configuration that cannot be used."""


class DataError(Img2SeqError):
    """Images or captions that cannot be used."""


class ModelError(Img2SeqError):
    """A model that cannot be built or whose weights cannot be loaded."""


class RunError(Img2SeqError):
    """A run folder that cannot be read or must not be written."""


class ScoreError(Img2SeqError):
    """Results or references that cannot be scored."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the nearest known name, or "" where none is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean {shown(near[0])}?" if near else ""


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80
_SHORT.maxlevel, _SHORT.maxdict, _SHORT.maxlist = 2, 4, 4
MOST_SHOWN = 160  # characters of one value


def shown(value: object) -> str:
    """Return the `repr` of what was found, at most a line of it: a value may be a whole file."""
    try:
        text = _SHORT.repr(value)
    except ValueError:  # Python does not print whole numbers of more than 4300 digits
        text = "a number of thousands of digits"
    return text if len(text) <= MOST_SHOWN else text[: MOST_SHOWN - 4] + " ..."


def shown_all(values: Iterable[object], *, most: int = 6) -> str:
    """Return the `repr` of several values on one line, the first `most` of them, or "nothing"."""
    values = list(values)
    more = f" and {len(values) - most} more" if len(values) > most else ""
    return ", ".join(map(shown, values[:most])) + more or "nothing"


def listed(items: Iterable[str], *, most: int = 10) -> str:
    """Return one indented line per item, the first `most` of them, and how many were left out; long items are cut in the middle."""
    items = list(items)
    lines = [_shortened(f"  {item}") for item in items[:most]]
    if len(items) > most:
        lines.append(f"  ... and {len(items) - most} more")
    return "\n".join(lines)


def _bounded(text: str) -> str:
    lines = text.split("\n")
    more = [f"... and {len(lines) - MOST_LINES:,} more lines"] if len(lines) > MOST_LINES else []
    return "\n".join([*map(_shortened, lines[:MOST_LINES]), *more])


def _shortened(line: str) -> str:
    """Cut a line in the middle where it is too long: it begins with the place and ends with the hint."""
    half = MOST_IN_LINE // 2 - 3
    return line if len(line) <= MOST_IN_LINE else f"{line[:half]} ... {line[-half:]}"
