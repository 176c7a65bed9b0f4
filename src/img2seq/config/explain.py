"""What is wrong with a configuration, in one line a value: file, line, key, what was expected, what was found."""

from __future__ import annotations

from typing import get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from img2seq.config.schema import REFUSED, Experiment
from img2seq.config.yaml_reader import Document, Path_, dotted
from img2seq.errors import did_you_mean


def explain(error: ValidationError, tree: Document) -> str:
    """Return what is wrong, one line for each value."""
    problems = [_explain(details, tree) for details in _one_per_value(error.errors())]
    return "\n".join(dict.fromkeys(problems))


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
