"""Values from the command line: `SECTION.KEY=VALUE` put into the tree that the files gave."""

from __future__ import annotations

from typing import Any

from img2seq.config.yaml_reader import Document, Path_, Source, parse_yaml
from img2seq.errors import ConfigError, did_you_mean, shown, shown_all

SECTIONS = ("globals", "inputs", "fusion", "outputs")
COMMAND_LINE = "command line"
NO_INPUTS = "inputs=[]"  # the text-only baseline of the same files


def override(tree: Document, text: str, stems: dict[str, Path_]) -> None:
    """Set one value: SECTION.KEY[.KEY...]=VALUE, with a section's name or a YAML file's stem first."""
    left, equals, right = text.partition("=")
    parts = left.split(".")
    where = f"{COMMAND_LINE}: --{left}{equals}{right if len(right) < 80 else shown(right)}"
    if text == NO_INPUTS:
        tree.data["inputs"] = []
        tree.sources = {key: source for key, source in tree.sources.items() if key[:1] != ("inputs",)}
        tree.sources[("inputs",)] = Source(COMMAND_LINE)
        return
    if not equals or len(parts) < 2 or not all(parts):
        raise ConfigError(f"{where}: expected --SECTION.KEY=VALUE, such as --globals.optimization.lr=3e-4")
    at: list[str | int]
    rest = parts[1:]
    if parts[0] in ("inputs", "outputs"):
        index, named = _entry(tree, parts[0], rest[0], where)
        at = [parts[0], index]
        rest = rest[1:] if named else rest
    elif parts[0] in SECTIONS:
        at = [parts[0]]
    elif parts[0] in stems:
        at = list(stems[parts[0]])
    else:
        raise ConfigError(
            f"{where}: {shown(parts[0])} is neither a section nor the name of a given file.{did_you_mean(parts[0], [*SECTIONS, *stems])}"
        )
    if not rest:
        raise ConfigError(f"{where}: expected a key after {left!r}")
    value = parse_yaml(right, f"{COMMAND_LINE}: --{left}")
    node = tree.data
    for part in at:
        node = node.setdefault(part, {}) if isinstance(node, dict) else node[part]
    path: list[str | int] = [*at]
    for i, part in enumerate(rest[:-1]):
        if isinstance(node, list):
            step: str | int = _named(node, part, where)
        else:
            step = part
            if node.get(part) is None:
                node[part] = {}
                tree.sources[(*path, part)] = Source(COMMAND_LINE)
        node = node[step]
        path.append(step)
        is_followed_by_name = isinstance(node, list) and i < len(rest) - 2
        if not isinstance(node, dict) and not is_followed_by_name:
            raise ConfigError(f"{where}: {'.'.join(rest[: i + 1])} is a value, not a section")
    if right in ("", "None"):  # the shell has removed the quotes of ''
        value.data = None if right else ""
    node[rest[-1]] = value.data
    key = (*path, rest[-1])
    for old in [other for other in tree.sources if other[: len(key)] == key]:
        del tree.sources[old]
    tree.sources[key] = Source(COMMAND_LINE)


def _entry(tree: Document, section: str, name: str, where: str) -> tuple[int, bool]:
    """Return which entry of inputs or outputs is meant, and whether it was named."""
    entries = tree.data.get(section) or []
    kind = section[:-1]
    names = [_name_of(entry, kind) for entry in entries]
    if name in names:
        return names.index(name), True
    if not entries:
        raise ConfigError(f"{where}: there are no {section} to change; give --{kind}_configs FILE")
    if len(entries) == 1 and name in (f"{kind}_info", f"{kind}_type_info", "model_config", "sampling_config"):
        return 0, False
    raise ConfigError(
        f"{where}: no {kind} is named {shown(name)}; found {shown_all(names)}.{did_you_mean(name, names)}"
    )


def _named(entries: list[Any], name: str, where: str) -> int:
    """Return which entry of a list has a name, such as a phase."""
    names = [str(entry.get("name", "")) if isinstance(entry, dict) else "" for entry in entries]
    if name not in names:
        raise ConfigError(f"{where}: none is named {shown(name)}; found {shown_all(names)}.{did_you_mean(name, names)}")
    return names.index(name)


def _name_of(entry: Any, kind: str) -> str:
    info = entry.get(f"{kind}_info") if isinstance(entry, dict) else None
    return str(info.get(f"{kind}_name", "")) if isinstance(info, dict) else ""
