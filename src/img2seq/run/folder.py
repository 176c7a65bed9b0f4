"""Where each file of a run folder is, and how those that captioning needs are read. What they hold: docs/run-folder.md."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from img2seq.data.tokenizer import Tokenizer
from img2seq.errors import RunError, did_you_mean
from img2seq.files import regular
from img2seq.run.hub import local_folder

if TYPE_CHECKING:
    from img2seq.config.model_sections import ModelSections


class RunFolder:
    """Paths of a run's files."""

    def __init__(self, path: str | Path):
        self.path = path = Path(path)
        self.name = path.resolve().name
        self.readme = path / "README.txt"
        self.config = path / "config.yaml"
        self.sources = path / "sources.txt"
        self.facts = path / "facts.json"
        self.tokenizer = path / "tokenizer.json"
        self.split = path / "split.json"
        self.decoding = path / "decoding.json"  # where it was tuned
        self.digests = path / "digests.json"
        self.pretrained = path / "pretrained.json"  # only in a run that began with another captioner: which one
        self.export = path / "export.json"  # only in a lean run: what it was made from
        self.signed = (self.config, self.facts, self.tokenizer, self.split)
        self.data_report = path / "data_report.txt"
        self.environment = path / "environment.json"
        self.lock = path / "run.lock"
        self.model_text = path / "model.txt"
        self.history_train = path / "history_train.csv"
        self.history_valid = path / "history_valid.csv"
        self.log = path / "log.txt"
        self.tensorboard = path / "tensorboard"
        self.figures = path / "figures"
        self.checkpoints = path / "checkpoints"
        self.validation = path / "validation"

    def samples(self, output_name: str) -> Path:
        """Return where the tutorial's scripts look for samples."""
        return self.path / "results" / output_name / output_name / "samples"


def open_run(path: str | Path) -> RunFolder:
    """Return an existing run, or an export on the hub. Raises RunError, with the nearest name, if there is none."""
    run = RunFolder(local_folder(path))
    if not run.config.is_file():
        parent = run.path.parent
        siblings = [p.name for p in parent.iterdir() if (p / "config.yaml").is_file()] if parent.is_dir() else []
        found = "a folder without config.yaml" if run.path.is_dir() else "a file" if run.path.exists() else "nothing"
        raise RunError(f"{path}: expected a run folder, found {found}.{did_you_mean(run.path.name, siblings)}")
    return run


def read_model_sections(run: RunFolder) -> ModelSections:
    """Return what a run's configuration says of its model.

    Raises:
        ConfigError: if the file is not plain YAML.
        RunError: if it is not the configuration of a run.
    """
    from pydantic import ValidationError

    from img2seq.config.model_sections import ModelSections  # an export for ONNX Runtime has neither YAML nor a schema
    from img2seq.config.yaml_reader import read_yaml

    data = read_yaml(run.config).data
    try:
        return ModelSections.model_validate({name: data.get(name, []) for name in ModelSections.model_fields})
    except (ValidationError, AttributeError) as error:
        why = str(error).splitlines()[1:3] if isinstance(error, ValidationError) else ["expected keys and values"]
        raise RunError(f"{run.config}: not the configuration of a run: {' '.join(why)}") from error


def read_tokenizer(run: RunFolder) -> Tokenizer:
    """Return the tokenizer of a run."""
    try:
        return Tokenizer.from_json(regular(run.tokenizer).read_text(encoding="utf-8"), str(run.tokenizer))
    except OSError as error:
        raise RunError(f"{run.tokenizer}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RunError(f"{run.tokenizer}: expected UTF-8 text: {error.reason}") from error


def read_json(path: Path) -> Any:
    """Return a JSON file of a run. Raises RunError if it is missing or broken."""
    try:
        return json.loads(regular(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: not valid JSON: {error}") from error


def check_signed(run: RunFolder, *paths: Path) -> None:
    """Raise RunError naming the first of these files, or of `run.signed`, that is not what was written.

    Runs of the first versions have no digests, nor has one that was killed while its files were written anew. An export has
    no split: a file that is neither there nor signed was left out.
    """
    digests = read_json(run.digests) if run.digests.exists() else {}
    if not isinstance(digests, dict):
        raise RunError(f"{run.digests}: expected the digest of each file, found {type(digests).__name__}")
    for path in paths or [path for path in run.signed if path.exists() or path.name in digests]:
        if digests and file_digest(path) != digests.get(path.name):
            raise RunError(
                f"{path}: changed since it was written (SHA-256 differs): restore it, or if the change was meant remove {run.digests}"
            )


def file_digest(path: Path) -> str:
    try:
        return hashlib.sha256(regular(path).read_bytes()).hexdigest()
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from error
