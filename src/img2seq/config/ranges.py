"""The range of a field as words: for errors, for --help and for the generated documentation."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo


def limits(field: FieldInfo) -> dict[str, Any]:
    """Return the field's limits by pydantic's names: gt, ge, lt, le."""
    return {
        name: limit
        for item in field.metadata
        for name in ("gt", "ge", "lt", "le")
        if (limit := getattr(item, name, None)) is not None
    }


def range_in_words(field: FieldInfo) -> str:
    """Return "1 to 1000", "above 0, at most 1" or "greedy, beam or sample"; "" for a field without limits."""
    if choices(field):
        return names_in_words(choices(field))
    found = limits(field)
    if "ge" in found and "le" in found:
        return f"{found['ge']} to {found['le']}"
    words = {"ge": "{} or more", "gt": "above {}", "le": "at most {}", "lt": "below {}"}
    return ", ".join(text.format(found[name]) for name, text in words.items() if name in found)


def choices(field: FieldInfo) -> list[str]:
    """Return the names that the field takes, where it takes names only."""
    parts = [part for part in (field.annotation, *get_args(field.annotation)) if get_origin(part) is Literal]
    is_names = len(parts) == 1 and (get_origin(field.annotation) is Literal or type(None) in get_args(field.annotation))
    return list(get_args(parts[0])) if is_names else []


def names_in_words(names: list[str]) -> str:
    """Return "a, b or c"."""
    return f"{', '.join(names[:-1])} or {names[-1]}" if len(names) > 1 else "".join(names)
