"""`img2seq runs`: the state of a run on one screen, and whether its files are what was written."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from img2seq.cli import main as cli
from img2seq.progress import counted
from img2seq.report.curves import read_curve
from img2seq.run.checkpoint import all_checkpoints
from img2seq.run.folder import RunFolder, read_json
from img2seq.run.lock import locked, owner_of
from img2seq.run.tables import read_history
from img2seq.run.write import write_json


def shown(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 24
    assert max(len(line) for line in lines if "resume with" not in line) < 160
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
    assert "resume with" not in found


@pytest.fixture
def interrupted_run(finished_runs: tuple[Path, Path], tmp_path: Path) -> RunFolder:
    """Return a run that was finished, gone on with for longer and killed; no two of its figures are equal."""
    run = RunFolder(shutil.copytree(finished_runs[1], tmp_path / "run", symlinks=True))
    text = run.config.read_text()
    for old, new in (
        (r"output_folder: .*", f"output_folder: {run.path}"),
        (r"n_epochs: \d+", "n_epochs: 30"),
        (r"\n    batch_size: \d+", "\n    batch_size: 4"),
        (r"seed: \d+", "seed: 7"),
        (r"lr: 0\.\d+", "lr: 0.0125"),
        (r"gradient_accumulation_steps: null", "gradient_accumulation_steps: 3"),
        (r"num_heads: \d+", "num_heads: 8"),
    ):
        text, n_found = re.subn(old, new, text)
        assert n_found == 1, old
    run.config.write_text(text)
    facts = read_json(run.facts)
    write_json(run.facts, facts | {"parameters": {"all": 7654321, "trained": 1234567}})
    header, *rows = run.history_train.read_text().splitlines(keepends=True)
    run.history_train.write_text("".join([header, *rows[:120], "121,17,0.5"]))  # and half a line
    header = run.history_valid.read_text().splitlines(keepends=True)[0]
    losses = {5: 2.5, 60: 1.25, 110: 1.75}
    run.history_valid.write_text(
        header + "".join(f"{n},0,3.0,{loss},9.5,0.006,86.2,1.0\n" for n, loss in losses.items())
    )
    for checkpoint in all_checkpoints(run.checkpoints):
        shutil.rmtree(checkpoint.path)
    for step, content in ((110, b"x" * 2_500_000), (90, b"x" * 400_000)):
        folder = run.checkpoints / f"step-{step:08d}"
        folder.mkdir()
        state = {"position": {"step": step, "epoch": 16, "elapsed_s": 3725.4}, "n_steps": 150, "valid_loss": 1.75}
        write_json(folder / "state.json", state)
        (folder / "weights.safetensors").write_bytes(content)
    (run.checkpoints / "step-00000130").mkdir()  # damaged: not even its position can be read
    return run


def test_every_line_says_what_is_there(interrupted_run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    run = interrupted_run
    assert cli.run(["runs", "show", str(run.path)]) == 0
    found, split, facts = shown(capsys), read_json(run.split), read_json(run.facts)["facts"]
    n_bytes = sum(path.stat().st_size for path in run.path.rglob("*") if path.is_file() and "samples/" not in f"{path}")
    n_bytes += sum(path.stat().st_size for path in (run.path / "results").rglob("*") if path.is_file())
    assert len(split["train"]) != len(split["valid"])
    assert found == {
        "state": "interrupted",
        "reached": "step 120 of 150 (80%), epoch 17 of 30",
        "best": "validation loss 1.2500 nats per token, at step 60; 3 evaluations",
        "checkpoint": "step-00000110, validation loss 1.7500, 2.5 MB",
        "time": "1:02:05 up to the last checkpoint",
        "model": "photo: test_resnet at 32 x 32; decoder of 2 layers, 8 heads, width 16",
        "parameters": "7,654,321, of which 1,234,567 are trained",
        "data": f"{len(split['train'])} images to train on, {len(split['valid'])} for validation; {facts['vocabulary']} tokens",
        "training": "adamw, learning rate 0.0125 (plateau), 4 x 3 captions a step, seed 7, on cpu",
        "size": f"{n_bytes / 1e6:.1f} MB on disk",
        "resume with": f"img2seq train {run.config} --resume",
    }


def test_one_evaluation_is_one(interrupted_run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    rows = interrupted_run.history_valid.read_text().splitlines(keepends=True)
    interrupted_run.history_valid.write_text("".join(rows[:2]))
    assert cli.run(["runs", "show", str(interrupted_run.path)]) == 0
    assert shown(capsys)["best"].endswith("; 1 evaluation")
    assert (counted(1, "image"), counted(0, "image"), counted(1234, "image")) == ("1 image", "0 images", "1,234 images")


def test_without_its_history_a_run_is_where_its_checkpoint_is(
    interrupted_run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted_run.history_train.unlink()
    assert cli.run(["runs", "show", str(interrupted_run.path)]) == 0
    assert shown(capsys)["reached"] == "step 110 of 150 (73%), epoch 17 of 30"


def test_an_owner_that_lives_trains_the_run_and_one_that_is_dead_does_not(
    interrupted_run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    run = interrupted_run
    with locked(run, print):
        owner = read_json(run.lock)
        assert cli.run(["runs", "show", str(run.path)]) == 0
        found = shown(capsys)
        assert found["state"] == f"being trained by {owner_of(run)}"
        assert f"process {os.getpid()} on " in found["state"]
        assert "resume with" not in found
    write_json(run.lock, owner | {"started": "long ago"})
    assert cli.run(["runs", "show", str(run.path)]) == 0
    assert shown(capsys)["state"] == "interrupted"


def test_a_finished_run_has_done_all_of_its_epochs(
    finished_runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["runs", "show", str(finished_runs[0])]) == 0
    assert shown(capsys)["reached"].endswith("(100%), epoch 20 of 20")


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
    program, *arguments = shlex.split(found["resume with"])
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
        ("split.json", '{"train": [], "valid": ["000"]}'),
        ("split.json", '{"train": ["000"], "valid": []}'),
        ("split.json", '{"train": ["000"]}'),
        ("split.json", "[]"),
        ("facts.json", re.sub(r'"vocabulary": \d+', '"vocabulary": 5', (finished_runs[0] / "facts.json").read_text())),
    ):
        run = Path(shutil.copytree(finished_runs[0], tmp_path / "run", symlinks=True))
        (run / name).write_text(text)
        assert cli.run(["runs", "verify", str(finished_runs[1]), str(run)]) == 2
        good, bad = capsys.readouterr().out.split("\n\n")
        assert "BAD" not in good
        assert bad.count("BAD") == 1
        assert name in bad[bad.index("BAD") :].partition("\n")[0]
        assert len(bad[bad.index("BAD") :].splitlines()) > 1  # what is wrong with it stands below
        assert cli.run(["runs", "verify", str(run), str(finished_runs[1])]) == 2  # in whichever order
        capsys.readouterr()
        shutil.rmtree(run)
    run = Path(shutil.copytree(finished_runs[0], tmp_path / "run", symlinks=True))
    for checkpoint in all_checkpoints(run / "checkpoints"):
        weights = checkpoint.weights.read_bytes()
        checkpoint.weights.write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
        assert cli.run(["runs", "verify", str(run)]) == 2
        assert f"BAD  {checkpoint.path.name}\n       {checkpoint.weights}: damaged" in capsys.readouterr().out
        checkpoint.weights.write_bytes(weights)
    (run / "checkpoints/.tmp-step-00000099-1").mkdir()
    assert cli.run(["runs", "verify", str(run)]) == 0
    assert "note .tmp-step-00000099-1" in capsys.readouterr().out
    shutil.rmtree(run / "checkpoints")
    assert cli.run(["runs", "verify", str(run)]) == 2
    assert "there are none" in capsys.readouterr().out
    assert cli.run(["runs", "verify", str(tmp_path / "runn")]) == 2
    assert "Did you mean 'run'?" in capsys.readouterr().err


def test_a_history_that_a_kill_cut_is_read_up_to_its_last_whole_line(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    train = "iteration,epoch,loss,learning_rate,gradient_norm,captions_per_s\n1,0,3.25,0.1,2.5,54.7\n2,0,3.125,0.1,2.5,93.1\n"
    valid = "iteration,epoch,train_loss,valid_loss,perplexity,learning_rate,captions_per_s,elapsed_s\n2,0,3.1,2.75,15.6,0.1,86.2,1.5\n"
    for length in range(len(train) + 1):
        run.history_train.write_text(train[:length])
        run.history_valid.write_text(valid[:length])
        curve = read_curve(run)
        assert curve.train_losses == [3.25, 3.125][: max(0, train[:length].count("\n") - 1)]
        assert curve.valid_losses == [2.75][: max(0, valid[:length].count("\n") - 1)]
        assert all(None not in row.values() for row in read_history(run.history_train))


ODD: dict[str, tuple[str, str]] = {
    "facts without parameters": ("facts.json", '"parameters"'),
    "a split that is a list": ("split.json", "[]"),
    "a split of numbers": ("split.json", '{"train": 1, "valid": 2}'),
    "a split that is nested deeply": ("split.json", "[" * 200_000),
    "a summary that is a list": ("validation/summary.json", "[]"),
    "a summary without steps": ("validation/summary.json", "{}"),
    "no columns": ("history_train.csv", "a,b\n1,2\n"),
    "a step that is text": ("history_train.csv", "iteration,loss\nx,2\n"),
    "a history that is no text": ("history_train.csv", "\udcff\n"),
    "no validation loss": ("history_valid.csv", "iteration,epoch\n1,2\n"),
    "a loss that is text": ("history_valid.csv", "iteration,valid_loss\n1,low\n"),
    "an empty position": ("checkpoints/step-00000110/state.json", '{"position": {}}'),
    "a step that is a list": ("checkpoints/step-00000110/state.json", '{"position": {"step": [], "epoch": 1, "elapsed_s": 1}}'),
    "a time without end": ("checkpoints/step-00000110/state.json", '{"position": {"step": 1, "epoch": 1, "elapsed_s": Infinity}}'),
    "steps that are text": ("checkpoints/step-00000110/state.json", '{"position": {"step": 1, "epoch": 1, "elapsed_s": 1}, "n_steps": "x"}'),
}  # fmt: skip


@pytest.mark.parametrize("odd", ODD)
def test_a_file_that_is_no_runs_is_one_error_that_names_it(
    odd: str, interrupted_run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    name, content = ODD[odd]
    path = interrupted_run.path / name
    if odd == "facts without parameters":
        content = path.read_text().replace('"parameters"', '"other"')
    path.write_text(content, encoding="utf-8", errors="surrogateescape")
    assert cli.run(["runs", "show", str(interrupted_run.path)]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith(f"error: {path}: ")


@pytest.mark.parametrize(
    "lock", ["[" * 200_000, "[]", "\udcff", '{"pid": "a\\u0000", "host": "HOST", "started": "", "since": ""}']
)
def test_an_odd_lock_is_nobodys(lock: str, interrupted_run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    text = lock.replace("HOST", socket.gethostname())
    interrupted_run.lock.write_text(text, encoding="utf-8", errors="surrogateescape")
    assert cli.run(["runs", "show", str(interrupted_run.path)]) == 0
    assert shown(capsys)["state"] == "interrupted"
    with locked(interrupted_run, pytest.fail):
        assert owner_of(interrupted_run) is not None


def test_files_may_go_while_they_are_counted(
    interrupted_run: RunFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (checkpoint, *_) = all_checkpoints(interrupted_run.checkpoints)
    (interrupted_run.checkpoints / "gone").symlink_to(checkpoint.path / "pruned")
    walk = os.walk

    def walk_while_training_prunes(folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
        for found in walk(folder):
            if found[0].endswith(checkpoint.path.name):
                shutil.rmtree(checkpoint.path)
            yield found

    monkeypatch.setattr("img2seq.report.run_state.os.walk", walk_while_training_prunes)
    assert cli.run(["runs", "show", str(interrupted_run.path)]) == 0
    assert not checkpoint.path.exists()
