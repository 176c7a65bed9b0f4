"""The configuration of an export that is published: without the folders of the machine that trained it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from img2seq.config.load import load_config
from img2seq.config.schema import Experiment
from img2seq.config.show import to_plain
from img2seq.export.lean import write_config
from img2seq.run.folder import RunFolder
from img2seq.run.hub import is_on_hub

PLACES = frozenset(
    ("output_folder", "manual_valid_ids_file", "cache_folder", "pretrained", "pretrained_checkpoint", "pretrained_run", "input_source", "pretrained_weights", "output_source", "vocab_file")
)  # fmt: skip


def remove_places(folder: Path) -> None:
    """Keep of each path in an export's configuration its last part alone, and sign the file anew."""
    export = RunFolder(folder)
    experiment = load_config(export.config)
    plain = _without_places(to_plain(experiment), experiment.output.name)
    write_config(export, Experiment.model_validate(plain))


def _without_places(value: Any, output_name: str) -> Any:
    if isinstance(value, list):
        return [_without_places(item, output_name) for item in value]
    if not isinstance(value, dict):
        return value
    found = {name: _without_places(item, output_name) for name, item in value.items()}
    found |= {name: last_part(found[name]) for name in PLACES & found.keys() if found[name] is not None}
    if "manual_inputs" in found:
        found["manual_inputs"] = [
            {name: text if name == output_name else last_part(text) for name, text in entry.items()}
            for entry in found["manual_inputs"]
        ]
    return found


def last_part(path: str) -> str:
    """Return the name of a file or folder, of whatever system; what is on the hub is there for everyone."""
    if is_on_hub(path):
        return path
    return re.split(r"[\\/]", path.rstrip("\\/"))[-1] or "."
