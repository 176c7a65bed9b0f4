"""What a run folder holds. Every file in it is read and written through the paths named here.

    config.yaml                 the resolved configuration, one experiment file
    sources.txt                 the same, each value with where it came from
    facts.json                  what the data decided: lengths, normalisation, vocabulary size, parameters
    tokenizer.json              the vocabulary and how captions are cut
    split.json                  image ids of the training and the validation part
    data_report.txt             what was left out and why (empty where nothing was)
    digests.json                SHA-256 of config.yaml, facts.json, tokenizer.json and split.json
    environment.json            versions, machine, threads, command line
    run.lock                    which process trains it; absent when none does
    model.txt                   every layer with its shapes
    history_train.csv           one row a step: loss in nats per token, learning rate, gradient norm
    history_valid.csv           one row an evaluation: losses, perplexity, speed
    log.txt                     what the run said
    tensorboard/                the same figures as events
    figures/                    training_curve_LOSS.png and .pdf, learning_rate.png
    results/<output>/<output>/samples/<step>/
        auto/<n>_generated.txt  a sampled caption of a validation image
        auto/<n>_true.txt       what people wrote
        auto/<n>_inputs/<input>.png     the image as the model saw it, <output>.txt the beginning it was given
        manual/...              the same for sampling_config.manual_inputs
        grid.jpg                all of them in one picture
        meta.json               which image is which
    samples                     a link to the folder above
    checkpoints/step-<n>/       see run/checkpoint.py
    validation/                 of the best checkpoint, written at the end: summary.json, images.csv (loss of each image,
                                with its own and with another's pictures), captions.json, pictures/

The folder is complete: moved to another machine it can be used there.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from img2seq.config.load import load_config
from img2seq.config.schema import Experiment
from img2seq.data.tokenizer import Tokenizer
from img2seq.errors import RunError, did_you_mean

HALF_WRITTEN = ".*.tmp-*"  # what a killed process leaves beside a file


class RunFolder:
    """Paths of a run's files."""

    def __init__(self, path: str | Path):
        self.path = path = Path(path)
        self.name = path.resolve().name
        self.config = path / "config.yaml"
        self.sources = path / "sources.txt"
        self.facts = path / "facts.json"
        self.tokenizer = path / "tokenizer.json"
        self.split = path / "split.json"
        self.digests = path / "digests.json"
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

    def link_samples(self, output_name: str) -> None:
        """Let `samples` at the top of the run lead to the samples folder, where links can be made."""
        self.samples(output_name).mkdir(parents=True, exist_ok=True)
        link = self.path / "samples"
        if not link.is_symlink():
            with contextlib.suppress(OSError):  # a convenience only: some file systems have no links
                link.symlink_to(self.samples(output_name).relative_to(self.path), target_is_directory=True)


def open_run(path: str | Path) -> RunFolder:
    """Return an existing run. Raises RunError, with the nearest name, if there is none."""
    run = RunFolder(path)
    if not run.config.is_file():
        parent = run.path.parent
        siblings = [p.name for p in parent.iterdir() if (p / "config.yaml").is_file()] if parent.is_dir() else []
        found = "a folder without config.yaml" if run.path.is_dir() else "a file" if run.path.exists() else "nothing"
        raise RunError(f"{path}: expected a run folder, found {found}.{did_you_mean(run.path.name, siblings)}")
    return run


def read_config(run: RunFolder) -> Experiment:
    """Return the resolved configuration of a run."""
    return load_config(run.config)


def read_tokenizer(run: RunFolder) -> Tokenizer:
    """Return the tokenizer of a run."""
    try:
        return Tokenizer.from_json(run.tokenizer.read_text(encoding="utf-8"), str(run.tokenizer))
    except OSError as error:
        raise RunError(f"{run.tokenizer}: cannot be read: {error.strerror}") from error


def read_json(path: Path) -> Any:
    """Return a JSON file of a run. Raises RunError if it is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: not valid JSON: {error}") from error


def write_json(path: Path, data: Any, *, synced: bool = True) -> None:
    """Write JSON as `write_text` does. Not-a-number is refused: it is not JSON."""
    write_text(path, json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n", synced=synced)


def write_text(path: Path, text: str, *, synced: bool = True) -> None:
    """Write a file so that it is whole or as it was, whenever the process ends, and if synced whenever the power fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _replacing(path, synced=synced) as file:
        file.write(text)


@contextlib.contextmanager
def _replacing(path: Path, *, synced: bool = True) -> Iterator[TextIO]:
    """Open a file beside this one that takes its place once it is written."""
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            yield file
        if synced:
            to_disk(temporary)
        temporary.replace(path)
        if synced:
            to_disk(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sign(run: RunFolder) -> None:
    """Note the digests of the files that a model cannot be rebuilt without."""
    write_json(run.digests, {path.name: _digest(path) for path in run.signed})


def check_signed(run: RunFolder, *paths: Path) -> None:
    """Raise RunError naming the first of these files, or of `run.signed`, that is not what was written.

    Runs of the first versions have no digests, nor has one that was killed while its files were written anew.
    """
    digests = read_json(run.digests) if run.digests.exists() else {}
    if not isinstance(digests, dict):
        raise RunError(f"{run.digests}: expected the digest of each file, found {type(digests).__name__}")
    for path in paths or run.signed:
        if digests and _digest(path) != digests.get(path.name):
            raise RunError(
                f"{path}: changed since it was written (SHA-256 differs): restore it, or if the change was meant remove {run.digests}"
            )


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from error


def remove_half_written(run: RunFolder) -> None:
    """Remove what a killed process was writing beside a file; only for the owner of the run."""
    for path in run.path.rglob(HALF_WRITTEN):
        if path.is_file():
            path.unlink()


def to_disk(path: Path) -> None:
    """Return when what was written to a file, or into a folder, would survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_table(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file of a run. Raises RunError if it cannot be read."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from error


def read_history(path: Path) -> list[dict[str, str]]:
    """Return the rows of a history, none where there is no file: it grows line by line, and a kill can leave half of one.

    Raises:
        RunError: if it cannot be read, or a row has no step.
    """
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        rows = list(csv.DictReader(text[: text.rfind("\n") + 1].splitlines()))
        for row in rows:
            int(row["iteration"])
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise RunError(f"{path}: not the history of a run: {error!r}") from error
    return rows


def write_table(path: Path, columns: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as CSV so that the file is always whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _replacing(path) as file:
        writer = csv.DictWriter(file, list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
