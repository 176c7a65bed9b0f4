"""A configuration as a file for people: the values that were chosen, each with a few words on why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from img2seq.config.show import value_text

COMMENT_COLUMN = 52


def commented_yaml(sections: Mapping[str, Any], comments: Mapping[str, str], head: str) -> str:
    """Return one experiment file.

    Args:
        sections: values by key, nested; a list of one mapping for inputs and outputs.
        comments: by dotted key, such as `globals.basic_experiment.n_epochs`; entries of a list have no place of their own.
        head: lines before the first key.
    """
    lines = [f"# {line}".rstrip() for line in head.splitlines()]
    for key, value in sections.items():
        lines += ["", *_lines(key, value, key, 0, comments)]
    return "\n".join(lines) + "\n"


def _lines(key: str, value: Any, at: str, depth: int, comments: Mapping[str, str]) -> Iterator[str]:
    before, comment = "  " * depth, comments.get(at, "")
    if isinstance(value, Mapping) and value:
        yield _with_comment(f"{before}{key}:", comment)
        for name, child in value.items():
            yield from _lines(name, child, f"{at}.{name}", depth + 1, comments)
    elif isinstance(value, list) and value and isinstance(value[0], Mapping):
        yield _with_comment(f"{before}{key}:", comment)
        for entry in value:
            children = [
                line
                for name, child in entry.items()
                for line in _lines(name, child, f"{at}.{name}", depth + 2, comments)
            ]
            yield f"{before}  - {children[0].lstrip()}"
            yield from children[1:]
    else:
        yield _with_comment(f"{before}{key}: {value_text(value)}", comment)


def _with_comment(line: str, comment: str) -> str:
    return f"{line:<{COMMENT_COLUMN}} # {comment}" if comment else line
