"""`img2seq runs`: the state of a run on one screen, and whether its files are what was written."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import pytest

from img2seq import cli
from img2seq.runs import RunFolder, read_json


def shown(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 24
    assert max(len(line) for line in lines if "go on with" not in line) < 160
    return {line[2:14].strip(): line[14:] for line in lines[1:]}


def test_a_finished_run_says_so(finished_runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["runs", "show", str(finished_runs[1])]) == 0
    found, summary = shown(capsys), read_json(finished_runs[1] / "validation/summary.json")
    assert found["state"] == "finished"
    assert found["reached"].startswith(f"step {summary['steps']} of ")
    assert f"{summary['valid_loss']:.4f}" in found["best"]
    assert f"at step {summary['step']};" in found["best"]
    assert found["parameters"].startswith(f"{summary['parameters']:,}, ")
    assert found["model"].startswith("photo: test_resnet at 32 x 32; decoder of 2 layers")
    assert "go on with" not in found


def test_the_command_that_a_stopped_and_moved_run_shows_finishes_it(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["train", str(tiny / "experiment.yaml"), "--max_time", "0.001"]) == 0
    moved = (tiny / "run").rename(tiny / "a moved run")
    capsys.readouterr()
    assert cli.run(["runs", "show", str(moved)]) == 0
    found = shown(capsys)
    assert found["state"] == "interrupted"
    assert found["reached"] == "step 1 of 10 (10%), epoch 1 of 2"
    assert found["checkpoint"].startswith("step-00000001, not evaluated, ")
    program, *arguments = shlex.split(found["go on with"])
    assert program == "img2seq"
    assert cli.run([*arguments, "--globals.basic_experiment.max_time_s=1000"]) == 0
    capsys.readouterr()
    assert cli.run(["runs", "show", str(moved)]) == 0
    assert shown(capsys)["state"] == "finished"


def test_a_run_killed_before_its_first_checkpoint_is_described_too(
    finished_runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunFolder(shutil.copytree(finished_runs[0], tmp_path / "run", symlinks=True))
    shutil.rmtree(run.checkpoints)
    shutil.rmtree(run.validation)
    run.history_valid.unlink()
    assert cli.run(["runs", "show", str(run.path)]) == 0
    found = shown(capsys)
    assert found["state"] == "interrupted before its first checkpoint"
    assert found["checkpoint"] == "none"
    assert found["best"] == "no evaluation yet"
    assert found["model"].startswith("text only; ")


def test_verify_names_what_is_broken_of_every_part(
    finished_runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["runs", "verify", *map(str, finished_runs)]) == 0
    assert "BAD" not in capsys.readouterr().out
    for name, text in (
        ("config.yaml", "globals: 3\n"),
        ("tokenizer.json", (finished_runs[0] / "tokenizer.json").read_text().replace("ball", "bell")),
        ("facts.json", "{}"),
        ("split.json", '{"train": ["000"], "valid": ["000"]}'),
        ("split.json", "[]"),
    ):
        run = Path(shutil.copytree(finished_runs[0], tmp_path / "run", symlinks=True))
        (run / name).write_text(text)
        assert cli.run(["runs", "verify", str(finished_runs[1]), str(run)]) == 2
        good, bad = capsys.readouterr().out.split("\n\n")
        assert "BAD" not in good
        assert bad.count("BAD") == 1
        assert name in bad[bad.index("BAD") :]
        shutil.rmtree(run)
    run = Path(shutil.copytree(finished_runs[0], tmp_path / "run", symlinks=True))
    (run / "checkpoints/.tmp-step-00000099-1").mkdir()
    assert cli.run(["runs", "verify", str(run)]) == 0
    assert "note .tmp-step-00000099-1" in capsys.readouterr().out
    assert cli.run(["runs", "verify", str(tmp_path / "runn")]) == 2
    assert "Did you mean 'run'?" in capsys.readouterr().err
