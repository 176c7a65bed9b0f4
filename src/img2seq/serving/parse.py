"""What the forms of requests have in common: names and values, JSON, base64."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic_core import from_json

from img2seq.config.decoding import SETTINGS
from img2seq.config.yaml_reader import scalar
from img2seq.errors import ConfigError, DataError, did_you_mean, shown
from img2seq.serving.limits import Refusal
from img2seq.serving.service import Url

MOST_PARTS = 20_000  # of a JSON body
DATA_URL = re.compile(r"data:[\w.+-]*/?[\w.+-]*(;[\w=.+-]+)*;base64,", re.ASCII | re.IGNORECASE)


def json_of(body: object) -> Any:
    """Return what a JSON body holds. Raises Refusal for one that is damaged, nested too deep or has too many parts.

    Parts are counted first: reading millions of them would keep everyone waiting, and pictures as base64 have none.
    """
    if not isinstance(body, bytes):
        raise Refusal(415, "content-type: expected application/json")
    if (found := sum(map(body.count, (b",", b"[", b"{")))) > MOST_PARTS:
        raise Refusal(413, f"body: expected JSON of at most {MOST_PARTS:,} parts; found {found:,}")
    try:
        return from_json(body, allow_inf_nan=False)
    except (ValueError, TypeError) as error:
        raise Refusal(400, f"body: expected JSON: {error}") from None


def keys_of(value: object, where: str) -> Mapping[str, Any]:
    """Return a JSON object. Raises Refusal for anything else."""
    if isinstance(value, dict):
        return value
    raise Refusal(400, f"{where}: expected an object with names and values; found {kind(value)}")


def text_of(value: object, where: str) -> str:
    """Return a text. Raises Refusal for anything else; None is the empty text."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    raise Refusal(400, f"{where}: expected a text; found {kind(value)}")


def is_number(value: object) -> bool:
    """Tell whether a JSON value is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def at_most(value: Any, most: int) -> Any:
    """Return a client's upper bound, no higher than ours; anything but a number as it is, to be refused by name."""
    return min(value, most) if is_number(value) else value


def kind(value: object) -> str:
    """Return what a JSON value is, never what it holds: that may be a whole picture."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def picture_of(text: object, where: str) -> bytes:
    """Return the bytes of a picture written as base64, alone or as a data URL."""
    if not isinstance(text, str):
        raise Refusal(400, f"{where}: expected a picture as base64; found {kind(text)}")
    found = DATA_URL.match(text[:200])
    try:
        # Lines are broken by `base64`; padding is left out by some.
        plain = text[found.end() if found else 0 :].encode("ascii").translate(None, b" \t\r\n\f\v")
        data = base64.b64decode(plain + b"=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError(f"{where}: expected a picture as base64: {str(error).lower()}") from None
    if not data:
        raise DataError(f"{where}: expected a picture as base64; found nothing")
    return data


def picture_or_url(text: object, where: str) -> bytes | Url:
    """Return a picture's bytes, or where it is."""
    if isinstance(text, str) and re.match(r"https?://", text[:8], re.IGNORECASE):
        return Url(text)
    return picture_of(text, where)


def settings_of_text(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Return decoding settings that were written as text, as on the command line. Raises ConfigError for unknown names."""
    found: dict[str, Any] = {}
    for name, text in pairs:
        if name not in SETTINGS:
            raise ConfigError(f"{shown(name)}: expected a decoding setting.{did_you_mean(name, SETTINGS)}")
        if text.strip():
            found[name] = scalar(text)
    return found
