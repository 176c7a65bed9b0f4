"""From YAML files and command-line overrides to one checked `Experiment`, with the source of every value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from img2seq.config.schema import REFUSED, Experiment
from img2seq.config.yaml_reader import Document, Path_, Source, dotted, parse_yaml, read_yaml, scalar
from img2seq.errors import ConfigError, did_you_mean

SECTIONS = ("globals", "inputs", "fusion", "outputs")
COMMAND_LINE = "command line"


@dataclass(frozen=True)
class ConfigFiles:
    """The files a configuration comes from: one experiment file, or one to many for each section."""

    experiment: str | None = None
    globals: Sequence[str] = ()
    inputs: Sequence[str] = ()
    fusion: Sequence[str] = ()
    outputs: Sequence[str] = ()


@dataclass(frozen=True)
class LoadedConfig:
    """A checked configuration and where its values were written; values without a source are defaults."""

    experiment: Experiment
    sources: dict[Path_, Source]


def load_config(experiment: str | Path, *overrides: str) -> Experiment:
    """Load an experiment file. Overrides read `globals.optimization.lr=3e-4`.

    Raises:
        ConfigError: naming file, line, key, what was expected and what was found.
    """
    return load(ConfigFiles(experiment=str(experiment)), overrides).experiment


def load(files: ConfigFiles, overrides: Sequence[str] = ()) -> LoadedConfig:
    """Load a configuration from its files, apply the overrides and check every field."""
    tree, stems = _read(files)
    for text in overrides:
        _override(tree, text, stems)
    if "outputs" not in tree.data:
        raise ConfigError(
            "no output configured: give --output_configs FILE, or the key `outputs` in one experiment file"
        )
    if "globals" not in tree.data:
        raise ConfigError(
            "no globals configured: give --global_configs FILE, or the key `globals` in one experiment file"
        )
    try:
        return LoadedConfig(Experiment.model_validate(tree.data), tree.sources)
    except ValidationError as error:
        problems = [_explain(details, tree) for details in _one_per_value(error.errors())]
        raise ConfigError("\n".join(dict.fromkeys(problems))) from None
    except RecursionError:
        raise ConfigError("the configuration is nested too deeply") from None


def _read(files: ConfigFiles) -> tuple[Document, dict[str, Path_]]:
    """Return the merged tree, and the key path that each file's stem stands for in overrides."""
    tree = Document({}, {})
    stems: dict[str, Path_] = {}
    if files.experiment is not None:
        tree = read_yaml(files.experiment)
        _expect_mapping(tree.data, files.experiment)
    for section in SECTIONS:
        paths = getattr(files, section)
        if paths and section in tree.data:
            raise ConfigError(
                f"{files.experiment}: has the key {section!r} already, but {', '.join(paths)} was given too"
            )
        if len(paths) > 1 and section in ("globals", "fusion"):
            raise ConfigError(f"{section}: expected one file, found {len(paths)}: {', '.join(paths)}")
        for i, path in enumerate(paths):
            at: Path_ = (section, i) if section in ("inputs", "outputs") else (section,)
            document = read_yaml(path)
            _expect_mapping(document.data, path)
            if isinstance(at[-1], int):
                tree.data.setdefault(section, []).append(document.data)
            else:
                tree.data[section] = document.data
            tree.sources.update({at + key: source for key, source in document.sources.items()})
            stem = Path(path).stem
            if stem in stems or (stem in SECTIONS and stem != section):
                raise ConfigError(f"{path}: its name stands for another file in overrides; rename one of them")
            stems[stem] = at
    for section in ("inputs", "outputs"):  # one mapping in place of a list of one is what everybody writes first
        if isinstance(tree.data.get(section), dict):
            tree.data[section] = [tree.data[section]]
            moved = {k: v for k, v in tree.sources.items() if k[:1] == (section,) and len(k) > 1}
            for key, source in moved.items():
                del tree.sources[key]
                tree.sources[(section, 0, *key[1:])] = source
        elif tree.data.get(section, ()) is None:
            del tree.data[section]
    return tree, stems


def _expect_mapping(data: Any, path: str) -> None:
    if not isinstance(data, dict):
        found = "an empty file" if data is None else type(data).__name__
        raise ConfigError(f"{path}: expected keys and values (key: value), found {found}")


def _override(tree: Document, text: str, stems: dict[str, Path_]) -> None:
    """Set one value: SECTION.KEY[.KEY...]=VALUE, with a section's name or a YAML file's stem first."""
    left, equals, right = text.partition("=")
    parts = left.split(".")
    where = f"{COMMAND_LINE}: --{text}"
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
            f"{where}: {parts[0]!r} is neither a section nor the name of a given file.{did_you_mean(parts[0], [*SECTIONS, *stems])}"
        )
    if not rest:
        raise ConfigError(f"{where}: expected a key after {left!r}")
    value = parse_yaml(right, f"{COMMAND_LINE}: --{left}")
    node = tree.data
    for part in at:
        node = node.setdefault(part, {}) if isinstance(node, dict) else node[part]
    for i, part in enumerate(rest[:-1]):
        if node.get(part) is None:
            node[part] = {}
            tree.sources[(*at, *rest[: i + 1])] = Source(COMMAND_LINE)
        node = node[part]
        if not isinstance(node, dict):
            raise ConfigError(f"{where}: {'.'.join(rest[: i + 1])} is a value, not a section")
    node[rest[-1]] = None if right == "None" else value.data
    path = (*at, *rest)
    for old in [key for key in tree.sources if key[: len(path)] == path]:
        del tree.sources[old]
    tree.sources[path] = Source(COMMAND_LINE)


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
        f"{where}: no {kind} is named {name!r}; found {', '.join(map(repr, names))}.{did_you_mean(name, names)}"
    )


def _name_of(entry: Any, kind: str) -> str:
    info = entry.get(f"{kind}_info") if isinstance(entry, dict) else None
    return str(info.get(f"{kind}_name", "")) if isinstance(info, dict) else ""


# --- errors ----------------------------------------------------------------------------------------------


def _one_per_value(errors: list[ErrorDetails]) -> list[ErrorDetails]:
    """Drop what pydantic says of the second and later branches of a union, but for what they expect."""
    kept: dict[Path_, ErrorDetails] = {}
    for details in errors:
        path = tuple(part for part in details["loc"] if not _is_union_branch(part))
        details["loc"] = path
        if path in kept and kept[path]["type"] == "literal_error":
            kept[path]["ctx"]["expected"] += f", {_EXPECTED.get(details['type'], 'another type')}"
        kept.setdefault(path if details["type"] != "value_error" else (*path, len(kept)), details)
    return list(kept.values())


def _explain(details: ErrorDetails, tree: Document) -> str:
    """Return one line: file:line: key: what was expected, what was found."""
    path = details["loc"]
    kind, found = details["type"], details["input"]
    if kind == "value_error":  # raised by our own validators, which begin with the name of the field
        message = str(details["ctx"]["error"])
        name, colon, rest = message.partition(": ")
        if colon and name.replace("_", "").replace(".", "").isalnum():
            path, message = (*path, *name.split(".")) if path[-1:] != (name,) else path, rest
        return f"{_place(path, tree)}: {message}"
    if kind == "extra_forbidden":
        name = str(path[-1])
        if name in REFUSED:
            return f"{_place(path, tree)}: not supported: {REFUSED[name]}"
        known = _fields_at(path[:-1])
        near = f" Did you mean {_SYNONYMS[name]!r}?" if _SYNONYMS.get(name) in known else did_you_mean(name, known)
        return f"{_place(path, tree)}: unknown key.{near or ' Known here: ' + ', '.join(known)}"
    if kind == "missing":
        return f"{_place(path, tree)}: required, but not given"
    expected = _EXPECTED.get(kind) or details["msg"].removeprefix("Input should be ")
    if kind == "literal_error":
        choices = details["ctx"]["expected"].replace(" or ", ", ")
        near = did_you_mean(str(found), [choice.strip("' ") for choice in choices.split(",")])
        reason = _UNSUPPORTED_CHOICES.get(str(path[-1]), "") if isinstance(found, str) else ""
        expected = choices if "," not in choices else f"one of {choices}"
        return f"{_place(path, tree)}: expected {expected}; found {found!r}.{near or reason}"
    return f"{_place(path, tree)}: expected {expected}; found {found!r}"


_EXPECTED = {
    "int_type": "a whole number", "float_type": "a number", "bool_type": "true or false", "string_type": "text",
    "list_type": "a list", "dict_type": "keys and values", "model_type": "keys and values",
    "model_attributes_type": "keys and values", "finite_number": "a finite number",
    "string_too_short": "text that is not empty",
}  # fmt: skip

_SYNONYMS = {
    "learning_rate": "lr", "epochs": "n_epochs", "num_epochs": "n_epochs", "weight_decay": "wd", "beta1": "b1",
    "beta2": "b2", "workers": "dataloader_workers", "num_workers": "dataloader_workers", "clip": "gradient_clipping",
    "image_size": "size", "pretrained": "pretrained_model", "freeze": "freeze_pretrained_model", "model_name": "model_type",
    "output_dir": "output_folder", "layers": "num_layers", "heads": "num_heads", "bs": "batch_size",
}  # fmt: skip

_UNSUPPORTED_CHOICES = {
    "input_type": " Other inputs are not supported: img2seq turns images into sequences.",
    "output_type": " Other outputs are not supported: img2seq generates sequences.",
    "model_type": " Other fusions are not supported: they squeeze the inputs to one vector before the decoder sees them.",
    "tokenizer": " Other tokenizers are not supported: use split_on with lowercase, or bpe.",
}


def _is_union_branch(part: str | int) -> bool:
    """Tell pydantic's own path parts (the branch of a union it tried) from keys."""
    return isinstance(part, str) and (part in ("int", "float", "str", "bool", "list[int]", "none") or "[" in part)


def _place(path: Path_, tree: Document) -> str:
    for length in range(len(path), 0, -1):
        if (source := tree.sources.get(path[:length])) is not None:
            return f"{source}: {dotted(path)}"
    return dotted(path)


def _fields_at(path: Path_) -> list[str]:
    """Return the YAML names of the fields below a key path."""
    model: type[BaseModel] = Experiment
    for part in path:
        if isinstance(part, int):
            continue
        field = next((f for n, f in model.model_fields.items() if part in (n, f.alias)), None)
        if field is None:
            return []
        annotation = field.annotation
        inner = [annotation, *get_args(annotation)]
        nested = next((t for t in inner if isinstance(t, type) and issubclass(t, BaseModel)), None)
        if nested is None:
            return []
        model = nested
    return [field.alias or name for name, field in model.model_fields.items()]


# --- printing --------------------------------------------------------------------------------------------


def to_plain(experiment: Experiment) -> dict[str, Any]:
    """Return the configuration as plain data, in the form of one experiment file."""
    return experiment.model_dump(mode="json", by_alias=True)


def to_flat(experiment: Experiment) -> dict[str, str]:
    """Return each value as text by its dotted key, inputs and outputs by their names."""
    plain = to_plain(experiment)
    for section, kind in (("inputs", "input"), ("outputs", "output")):
        plain[section] = {entry[f"{kind}_info"][f"{kind}_name"]: entry for entry in plain[section]}
    flat: dict[str, str] = {}

    def walk(value: Any, key: str) -> None:
        if isinstance(value, dict):
            for name, child in value.items():
                walk(child, f"{key}.{name}" if key else name)
        else:
            flat[key] = str(value)

    walk(plain, "")
    return flat


def to_yaml(experiment: Experiment) -> str:
    """Return the configuration as one experiment file that `load_config` reads back equal."""
    return yaml.dump(to_plain(experiment), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """Quote every text that our reader would not take as text."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if scalar(text) == text else "'")


_Dumper.add_representer(str, _represent_text)


def describe(loaded: LoadedConfig) -> str:
    """Return every value with where it came from, one line each."""
    rows: list[tuple[str, str]] = []

    def walk(value: Any, at: Path_) -> None:
        if isinstance(value, dict) and value:
            for key, child in value.items():
                walk(child, (*at, key))
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for i, child in enumerate(value):
                walk(child, (*at, i))
        else:
            source = next(
                (loaded.sources[at[:n]] for n in range(len(at), len(at) - 1, -1) if at[:n] in loaded.sources), None
            )
            shown = yaml.safe_dump(value, default_flow_style=True, width=10**6).strip().removesuffix("...").strip()
            rows.append((f"{dotted(at)}: {shown}", str(source) if source else "default"))

    walk(to_plain(loaded.experiment), ())
    width = min(max(len(left) for left, _ in rows), 90)
    return "\n".join(f"{left:<{width}}  # {right}" for left, right in rows)
