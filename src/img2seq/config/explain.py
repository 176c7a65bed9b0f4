"""What is wrong with a configuration, in one line a value: file, line, key, what was expected, what was found."""

from __future__ import annotations

from typing import get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from img2seq.config.devices import DEVICES, nearest_device
from img2seq.config.ranges import limits, names_in_words, range_in_words
from img2seq.config.schema import REFUSED, Experiment
from img2seq.config.section import sections_of
from img2seq.config.written import written_at
from img2seq.config.yaml_reader import Document, Path_, dotted
from img2seq.errors import did_you_mean, shown

MOST_LINES = 30


def explain(error: ValidationError, tree: Document) -> str:
    """Return what is wrong, one line for each value."""
    problems = list(dict.fromkeys(_explain(details, tree) for details in _one_per_value(error.errors())))
    more = [f"... and {len(problems) - MOST_LINES} more"] if len(problems) > MOST_LINES else []
    return "\n".join([*problems[:MOST_LINES], *more])


def _one_per_value(errors: list[ErrorDetails]) -> list[ErrorDetails]:
    """Drop what pydantic says of the second and later branches of a union, but for what they expect."""
    kept: dict[Path_, ErrorDetails] = {}
    for details in errors:
        is_key = details["type"] == "extra_forbidden"  # then the last part is what the user wrote, even `int` or `[]`
        n = len(details["loc"]) - is_key
        path = tuple(part for i, part in enumerate(details["loc"]) if i == n or not _is_union_branch(part))
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
        known = _fields_at(path[:-1], tree)
        near = f" Did you mean {_SYNONYMS[name]!r}?" if _SYNONYMS.get(name) in known else did_you_mean(name, known)
        return f"{_place(path, tree)}: unknown key.{near or ' Known here: ' + ', '.join(known)}"
    if kind == "missing":
        return f"{_place(path, tree)}: required, but not given"
    found_text = shown(found)
    if kind == "literal_error":
        section = f"{path[0]}." if path[-1] == "model_type" else ""
        kinds = _kinds_at(path[:-1], tree) if path[-1] == "model_type" else []
        names = ", ".join(map(repr, _names_of(*kinds))) or details["ctx"]["expected"].replace(" or ", ", ")
        near = did_you_mean(shown(found).strip("'"), [name.strip("' ") for name in names.split(",")])
        reason = _UNSUPPORTED_CHOICES.get(f"{section}{path[-1]}", "") if isinstance(found, str) else ""
        expected = names if "," not in names else f"one of {names}"
        return f"{_place(path, tree)}: expected {expected}; found {found_text}.{near or reason}"
    if kind == "string_pattern_mismatch" and path[-1] == "device":
        return f"{_place(path, tree)}: expected {names_in_words(DEVICES)}; found {found_text}.{nearest_device(found)}"
    if kind == "string_pattern_mismatch" and path[-1] == "delimiter":
        return f"{_place(path, tree)}: expected one character, or tab; found {found_text}"
    expected = _EXPECTED.get(kind) or details["msg"].removeprefix("Input should be ")
    field = _field_at(path, tree)
    both_ends = f" (range: {range_in_words(field)})" if field is not None and len(limits(field)) > 1 else ""
    return f"{_place(path, tree)}: expected {expected}; found {found_text}{both_ends}"


_EXPECTED = {
    "int_type": "a whole number", "float_type": "a number", "bool_type": "true or false", "string_type": "text",
    "list_type": "a list", "dict_type": "keys and values", "model_type": "keys and values",
    "model_attributes_type": "keys and values", "finite_number": "a finite number",
    "string_too_short": "text that is not empty", "string_pattern_mismatch": "letters, digits, - and _ only",
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
    "outputs.model_type": " Other decoders are not supported: captions are generated by a causal transformer decoder.",
    "fusion.model_type": " Other fusions are not supported: they squeeze the inputs to one vector before the decoder sees them.",
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


def _fields_at(path: Path_, tree: Document) -> list[str]:
    """Return the YAML names of the fields below a key path."""
    model = _model_at(path, tree)
    return [] if model is None else [field.alias or name for name, field in model.model_fields.items()]


def _model_at(path: Path_, tree: Document) -> type[BaseModel] | None:
    """Return the section at a key path; of several kinds the one that is written there."""
    model: type[BaseModel] | None = Experiment
    for i, part in enumerate(path):
        if isinstance(part, int):
            continue
        kinds = _kinds_at(path[: i + 1], tree)
        if len(kinds) > 1:
            written = written_at(tree.data, (*path[: i + 1], "model_type"))
            kinds = [kind for kind in kinds if written in _names_of(kind)] or kinds
        model = next(iter(kinds), None)
    return model


def _kinds_at(path: Path_, tree: Document) -> list[type[BaseModel]]:
    """Return the kinds of section that a key path may hold: mostly one."""
    field = _field_at(path, tree)
    return [] if field is None else sections_of(field.annotation)


def _names_of(*kinds: type[BaseModel]) -> list[str]:
    """Return what `model_type` may be in sections that have one."""
    return [name for kind in kinds for name in get_args(kind.model_fields["model_type"].annotation)]


def _field_at(path: Path_, tree: Document) -> FieldInfo | None:
    """Return the field at a key path."""
    model = _model_at(path[:-1], tree)
    fields = {} if model is None else model.model_fields
    return next((field for name, field in fields.items() if path[-1] in (name, field.alias)), None)
