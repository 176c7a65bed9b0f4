"""What is not written of a configuration and must be as in the run that training begins with: taken from that run."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from img2seq.config.written import written_at
from img2seq.config.yaml_reader import Document, Path_, read_yaml
from img2seq.errors import ConfigError

# Of the inputs of the same name, and of the output. What was measured of images (mean and standard deviation) is in facts.json.
TAKEN: dict[str, list[Path_]] = {
    "inputs": [
        ("input_type_info", "size"),
        ("input_type_info", "mode"),
        ("model_config", "model_type"),
        ("model_config", "model_init_config"),
        ("model_config", "pretrained_model"),  # not read, but they tell what the encoder is made of
        ("model_config", "pretrained_weights"),
    ],
    "outputs": [
        ("output_type_info", "split_on"),
        ("output_type_info", "lowercase"),
        ("output_type_info", "tokenizer"),
        ("model_config", "embedding_dim"),
        ("model_config", "position"),
        ("model_config", "model_init_config", "num_heads"),
        ("model_config", "model_init_config", "num_layers"),
        ("model_config", "model_init_config", "dim_feedforward"),
    ],
}


def of_text_only_baseline(output_name: str, tokenizer: str | Path) -> list[str]:
    """Return the overrides that a text-only baseline of a run with `pretrained_run` needs: its words, and not those weights, which see images."""
    return ["--globals.model.pretrained_run=null", f"--outputs.{output_name}.output_type_info.vocab_file={tokenizer}"]


def take_from_pretrained_run(tree: Document) -> None:
    """Add what `pretrained_run` decides and is not written, with its place in the configuration of that run.

    Where that run is gone, a run that began with it still has these values: then its own configuration is read, to resume it.
    """
    source = written_at(tree.data, ("globals", "model", "pretrained_run"))
    own = written_at(tree.data, ("globals", "basic_experiment", "output_folder"))
    for folder in (source, own) if isinstance(source, str) else ():
        # One that cannot be read is an error where it is needed; a finished run needs it no more.
        with suppress(ConfigError, OSError):
            other = read_yaml(Path(str(folder)) / "config.yaml")
            if folder == source or written_at(other.data, ("globals", "model", "pretrained_run")) == source:
                for section, fields in TAKEN.items():
                    _take(tree, other, section, fields)
                return


def _take(tree: Document, other: Document, section: str, fields: list[Path_]) -> None:
    names = _names(other, section)
    kind = (section, 0, "model_config", "model_type")
    if "causal_lm" in (written_at(tree.data, kind), written_at(other.data, kind)):
        return  # refused later
    for place, name in _names(tree, section).items():
        before = next((at for at, known in names.items() if section == "outputs" or known == name), None)
        for field in fields if before is not None else ():
            value = written_at(other.data, (section, before, *field))
            if value is not None and _put(tree.data[section][place], field, value):
                at, origin = (section, place, *field), (section, before, *field)
                moved = {key: found for key, found in other.sources.items() if key[: len(origin)] == origin}
                tree.sources.update({at + key[len(origin) :]: found for key, found in moved.items()})


def _names(document: Document, section: str) -> dict[int, Any]:
    """Return the names of inputs or outputs by their places."""
    entries = written_at(document.data, (section,))
    key = section.removesuffix("s")
    return {
        place: written_at(entry, (f"{key}_info", f"{key}_name"))
        for place, entry in enumerate(entries if isinstance(entries, list) else [])
    }


def _put(data: Any, path: Path_, value: Any) -> bool:
    """Write a value where there is none, and tell whether it was written."""
    for part in path[:-1]:
        if not isinstance(data, dict):
            return False
        data = data.setdefault(part, {})
    if not isinstance(data, dict) or path[-1] in data:
        return False
    data[path[-1]] = value
    return True
