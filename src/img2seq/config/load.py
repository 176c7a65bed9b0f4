"""From YAML files and command-line overrides to one checked `Experiment`, with the source of every value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from img2seq.config.explain import explain
from img2seq.config.overrides import SECTIONS, override
from img2seq.config.pretrained_run import take_from_pretrained_run
from img2seq.config.schema import Experiment
from img2seq.config.yaml_reader import Document, Path_, Source, read_yaml
from img2seq.errors import ConfigError


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
        override(tree, text, stems)
    take_from_pretrained_run(tree)
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
        raise ConfigError(explain(error, tree)) from None
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
            for key in [key for key in tree.sources if key[:1] == (section,) and len(key) > 1]:
                tree.sources[(section, 0, *key[1:])] = tree.sources.pop(key)
        elif tree.data.get(section, ()) is None:
            del tree.data[section]
    return tree, stems


def _expect_mapping(data: Any, path: str) -> None:
    if not isinstance(data, dict):
        found = "an empty file" if data is None else type(data).__name__
        raise ConfigError(f"{path}: expected keys and values (key: value), found {found}")
