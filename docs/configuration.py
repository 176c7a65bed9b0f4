"""Write docs/configuration.md from the schema: `make docs`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from img2seq.config.decoding import SETTINGS
from img2seq.config.ranges import choices, limits, range_in_words
from img2seq.config.schema import REFUSED, Experiment
from img2seq.config.section import sections_of

TARGET = Path(__file__).with_name("configuration.md")

INTRODUCTION = """# Configuration

Every field of a configuration: its type, range, default and meaning. Written from the schema by `make docs`;
`img2seq config schema` prints the same as JSON Schema.

A configuration is one experiment file with the keys `globals`, `inputs`, `fusion` and `outputs`
(`img2seq train experiment.yaml`), or one file for each section (`--global_configs`, `--input_configs`,
`--fusion_configs`, `--output_configs`). Leaving the inputs out is the text-only baseline.

Any field is overridden on the command line, after the section's name or the file's stem:

    --globals.optimization.lr=3e-4
    --inputs.NAME.model_config.pretrained_model=false
    --outputs.NAME.output_type_info.max_length=24
    --output.output_type_info.min_freq=5        # for a file called output.yaml

`img2seq config show ...` takes the same arguments as `train` and prints every value with where it came from.
Relative paths are relative to the folder the command is run in. Fields marked "Ours" are not in the schema of the
framework that the tutorial was written for; all others have the same name, default and meaning there.
"""

DECODING = """## Decoding

How captions are searched for: the flags of `img2seq caption` and `img2seq evaluate`, and the keywords of
`Captioner.caption` in Python. `sampling_config` above has some of them with other defaults, for the samples of training.
A value out of range, or a setting that is not in the table, is an error.
"""


def main() -> None:
    """Write the file, or with --check fail if it is out of date."""
    text = render()
    if "--check" in sys.argv:
        sys.exit(0 if TARGET.read_text(encoding="utf-8") == text else "docs/configuration.md is out of date: make docs")
    TARGET.write_text(text, encoding="utf-8")


def render() -> str:
    """Return the whole page."""
    lines = [INTRODUCTION]
    _section(Experiment, "", lines)
    lines += [DECODING, "| flag, keyword | type | range | default | meaning |", "|---|---|---|---|---|"]
    lines += [
        f"| `--{name.replace('_', '-')}`, `{name}` | {_kind(field)} | {range_in_words(field)} | {_default(field)} | {field.description} |"
        for name, field in SETTINGS.items()
    ]
    lines.append("")
    lines += [
        "## Refused by name",
        "",
        "Keys of that schema which are not supported, and why.",
        "",
        "| key | reason |",
        "|---|---|",
    ]
    lines += [f"| `{name}` | {reason} |" for name, reason in REFUSED.items()]
    return "\n".join(lines) + "\n"


def _section(model: type[BaseModel], path: str, lines: list[str], kind: str = "") -> None:
    rows, nested = [], []
    for name, field in model.model_fields.items():
        key = field.alias or name
        kinds = sections_of(field.annotation)
        for inner in kinds:
            is_list = "list" in str(field.annotation)
            nested.append((inner, f"{path}.{key}" if path else key, is_list, _kind_of(inner) if len(kinds) > 1 else ""))
        if not kinds:
            rows.append(f"| `{key}` | {_type(field)} | {_default(field)} | {field.description} |")
    if rows:
        lines += [f"## {path}{kind}", "", "| field | type | default | meaning |", "|---|---|---|---|", *rows, ""]
    for inner, key, is_list, of_kind in nested:
        _section(inner, f"{key}[]" if is_list else key, lines, of_kind)


def _kind_of(section: type[BaseModel]) -> str:
    """Return which kind of section it is, where a key has several."""
    return f", model_type: {choices(section.model_fields['model_type'])[0]}"


def _type(field: FieldInfo) -> str:
    text = str(field.annotation) if not isinstance(field.annotation, type) else field.annotation.__name__
    text = text.replace("typing.", "").replace("NoneType", "null").replace("None", "null").replace("Literal", "one of ")
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    bounds = [f"{signs[name]} {limit}" for name, limit in limits(field).items()]
    return f"{text} {', '.join(bounds)}".strip().replace("|", "or")


def _kind(field: FieldInfo) -> str:
    return "name" if choices(field) else "whole number" if field.annotation is int else "number"


def _default(field: FieldInfo) -> str:
    return "required" if field.is_required() else f"`{json.dumps(field.default)}`"


if __name__ == "__main__":
    main()
