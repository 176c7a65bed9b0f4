"""YAML, read strictly: plain data only, each value with the file and line it came from.

PyYAML parses; what a scalar means is decided here, by the core schema of YAML 1.2: `1e-3` is a number,
`on` and `012` are strings. A key given twice, an alias or a tag is an error.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from img2seq.errors import ConfigError, shown

MAX_FILE_BYTES = 1_000_000
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    ".nan": float("nan"), ".NaN": float("nan"), ".NAN": float("nan"),
    ".inf": float("inf"), "-.inf": float("-inf"), "+.inf": float("inf"),
}  # fmt: skip
_PLAIN_TAGS = {"tag:yaml.org,2002:str", "tag:yaml.org,2002:seq", "tag:yaml.org,2002:map"}

Path_ = tuple[str | int, ...]


@dataclass(frozen=True)
class Source:
    """Where a value was written."""

    file: str
    line: int | None = None

    def __str__(self) -> str:
        return self.file if self.line is None else f"{self.file}:{self.line}"


@dataclass
class Document:
    """Plain data, and the source of each key path in it."""

    data: Any
    sources: dict[Path_, Source]


def scalar(text: str) -> Any:
    """Return what an unquoted scalar means."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text) and len(text) < 300:
        return int(text)
    if _FLOAT.fullmatch(text) and not re.match(r"[-+]?0[0-9]", text):
        return float(text)
    return text


def read_yaml(path: str | Path) -> Document:
    """Read one YAML file. Raises ConfigError with file and line for anything that is not plain data."""
    path = Path(path)
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(
                f"{path}: expected a configuration of at most {MAX_FILE_BYTES:,} bytes, found {path.stat().st_size:,}"
            )
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: expected UTF-8 text, found byte {error.object[error.start]:#04x} at {error.start}"
        ) from error
    return parse_yaml(text, str(path))


def parse_yaml(text: str, file: str) -> Document:
    """Parse YAML text; `file` is what errors call it."""
    try:
        node = yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = "" if mark is None else f":{mark.line + 1}"
        raise ConfigError(f"{file}{line}: not valid YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError) as error:
        first_line = str(error).splitlines()[0]
        raise ConfigError(f"{file}: not valid YAML: {first_line}") from error
    except RecursionError as error:
        raise ConfigError(f"{file}: not valid YAML: nested too deeply") from error
    document = Document(None, {})
    if node is not None:
        document.data = _value(node, (), file, document.sources, set())
    return document


def _value(node: yaml.Node, at: Path_, file: str, sources: dict[Path_, Source], seen: set[int]) -> Any:
    line = node.start_mark.line + 1
    place = f"{file}:{line}" + (f": {dotted(at)}" if at else "")
    if id(node) in seen:
        raise ConfigError(f"{place}: aliases (*name) are not supported; write the value out")
    seen.add(id(node))
    sources[at] = Source(file, line)
    if node.tag not in _PLAIN_TAGS:
        raise ConfigError(f"{place}: tags are not supported, found {shown(node.tag)}")
    if isinstance(node, yaml.ScalarNode):
        if any(char == "\0" or "\ud800" <= char <= "\udfff" for char in node.value):
            raise ConfigError(f"{place}: expected text, found a null or half a character (a lone surrogate)")
        return scalar(node.value) if node.style is None else node.value
    if isinstance(node, yaml.SequenceNode):
        return [_value(child, (*at, i), file, sources, seen) for i, child in enumerate(node.value)]
    data: dict[str, Any] = {}
    for key_node, child in node.value:
        key_line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise ConfigError(f"{file}:{key_line}: expected a name as key, found a {key_node.id}")
        key = key_node.value
        if key in data:
            first = sources[(*at, key)].line
            raise ConfigError(f"{file}:{key_line}: {dotted((*at, key))}: given twice, first on line {first}")
        data[key] = _value(child, (*at, key), file, sources, seen)
        sources[(*at, key)] = Source(file, key_line)
    return data


def dotted(path: Path_) -> str:
    """Return a key path as a user writes it: `optimization.lr`, `size[0]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
