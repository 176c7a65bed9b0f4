"""A configuration as text: one experiment file, dotted keys, every value with where it came from."""

from __future__ import annotations

from typing import Any, ClassVar

import yaml

from img2seq.config.load import LoadedConfig
from img2seq.config.schema import Experiment
from img2seq.config.yaml_reader import Path_, dotted, scalar


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


def value_text(value: Any) -> str:
    """Return a value as it stands behind its key, on one line."""
    text = yaml.dump(value, Dumper=_Dumper, default_flow_style=True, width=10**6, allow_unicode=True)
    return text.strip().removesuffix("...").strip()


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if scalar(text) == text else "'")


class _Dumper(yaml.SafeDumper):
    """Quote every text that our reader would not take as text."""

    yaml_representers: ClassVar[Any] = yaml.SafeDumper.yaml_representers | {str: _represent_text}


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
