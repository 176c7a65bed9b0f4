"""What is saved survives: killed at any point of a save, missing, cut and changed files, a full disk, weights gone bad."""

from __future__ import annotations

import errno
import io
import os
import re
import resource
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import children
from conftest import tiny_config, write_tiny_data, write_yaml
from img2seq.build import start_weights, trained
from img2seq.cli import main as cli
from img2seq.config.load import ConfigFiles, load
from img2seq.errors import RunError
from img2seq.model import teacher_forcing
from img2seq.run import checkpoint as checkpoints
from img2seq.run import save_checkpoint
from img2seq.run.checkpoint import Checkpoint
from img2seq.run.folder import RunFolder
from img2seq.run.snapshot import Snapshot
from img2seq.training import validation
from img2seq.training.loop import Trainer, train

FILES = ("manifest.json", "state.json", "training.safetensors", "weights.safetensors")


def tensors(step: int) -> dict[str, Tensor]:
    return {"a": torch.full((40,), float(step)), "b": torch.arange(6.0) * step}


def save(folder: Path, step: int, loss: float | None = None) -> Checkpoint:
    return save_checkpoint.save(folder, step, Snapshot(tensors(step)), Snapshot(tensors(-step)), {"valid_loss": loss})


def newest(folder: Path) -> Checkpoint:
    found = save_checkpoint.newest_valid(folder, lambda _: None)
    assert found is not None
    return found


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- 1: killed while saving


def be_killed_at(n: int) -> None:
    """Kill this process before, or in the midst of, the n-th time that it changes something on disk."""
    done = 0

    def counted(real: Callable[..., Any], *, tears: bool) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal done
            done += 1
            if done == n:
                os.kill(os.getpid(), signal.SIGKILL)
            result = real(*arguments, **options)
            if tears:
                done += 1
                if done == n:
                    path = next(Path(a) for a in arguments if isinstance(a, Path))
                    os.truncate(path, path.stat().st_size // 2)
                    os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    save_checkpoint._write = counted(save_checkpoint._write, tears=True)
    for owner, name in ((os, "fsync"), (os, "rename"), (os, "replace"), (os, "mkdir"), (os, "rmdir"), (os, "unlink")):
        setattr(owner, name, counted(getattr(owner, name), tears=False))


def save_until_killed(folder: Path, step: int, loss: float, n: int) -> None:
    be_killed_at(n)
    save_checkpoint.prune(save(folder, step, loss), 1, print)


@pytest.mark.parametrize("again", [False, True], ids=["a new step", "the same step once more"])
def test_killed_at_any_point_of_a_save_a_whole_checkpoint_is_left(tmp_path: Path, again: bool) -> None:
    left, step = set(), 1 if again else 2
    for n in range(1, 100):
        folder = tmp_path / str(n)
        save(folder, 1)
        code = children.run(save_until_killed, folder, step, 0.5, n)
        found = newest(folder)
        assert found.step in (1, step)
        assert torch.equal(load_file(found.weights)["a"], tensors(found.step)["a"])
        left.add((found.step, found.valid_loss))
        save_checkpoint.remove_unfinished(folder)
        written = save(folder, 3)
        save_checkpoint.prune(written, 1, print)
        assert not [name for name in names_in(folder) if not name.startswith("step-")]
        assert newest(folder).step == 3
        if code == 0:
            break
        assert code == -signal.SIGKILL
    assert n > 15
    assert left == {(1, None), (step, 0.5)}


@pytest.mark.parametrize(("step", "left"), [(1, []), (9, ["removed-step-00000009"])])
def test_an_old_checkpoint_that_cannot_be_removed_yet_goes_with_the_next(
    step: int, left: list[str], tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    refused: list[Path] = []
    real = shutil.rmtree

    def rmtree(path: Path, **options: Any) -> None:
        if path.name.endswith(f"step-{step:08d}") and not refused:
            refused.append(path)  # as NFS does while somebody reads a file in it
            (path / "state.json").unlink()
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(path))
        real(path, **options)

    monkeypatch.setattr(shutil, "rmtree", rmtree)
    run = train_in(tiny, "globals.evaluation_checkpoint.checkpoint_interval=1")
    assert names_in(run.checkpoints) == [*left, "step-00000010"]
    assert f"warning: {refused[0]}: cannot be removed now" in capsys.readouterr().err


def test_what_a_file_system_reads_in_pieces_is_what_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class InPieces(io.FileIO):
        def readinto(self, buffer: Any) -> int:
            return super().readinto(memoryview(buffer)[:7]) or 0

    real = Path.open

    def opened(path: Path, mode: str = "r", buffering: int = -1, **options: Any) -> Any:
        if mode != "rb":
            return real(path, mode, buffering, **options)
        return io.BufferedReader(InPieces(path)) if buffering else InPieces(path)

    large = {"a": torch.arange(100_000.0)}  # more than any buffer
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", opened)
        written = save_checkpoint.save(tmp_path, 1, Snapshot(large), Snapshot(tensors(1)), {"valid_loss": None})
    checkpoints.verify(written)


def test_what_a_resume_reads_is_on_disk_before_the_first_step_and_samples_do_not_wait(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_sync, real_replace, real_unlink, real_step = os.fsync, os.replace, os.unlink, Trainer._step
    synced: set[int] = set()  # inodes; of a folder, until a name in it changes
    replaced: dict[str, bool] = {}  # by name: was the content on disk before the file had that name
    named: dict[str, bool] = {}  # was the name on disk when the first step began

    def fsync(descriptor: int) -> None:
        synced.add(os.fstat(descriptor).st_ino)
        real_sync(descriptor)

    def replace(source: Any, target: Any) -> None:
        replaced[Path(target).name] = Path(source).stat().st_ino in synced
        if Path(target).exists():
            synced.discard(Path(target).stat().st_ino)
        synced.discard(Path(target).parent.stat().st_ino)
        real_replace(source, target)

    def unlink(path: Any, **options: Any) -> None:
        synced.discard(os.stat(path, follow_symlinks=False, **options).st_ino)  # noqa: PTH116  another file will have this number
        real_unlink(path, **options)

    def step(trainer: Trainer, work: Any) -> tuple[float, float, float]:
        if not named:
            named.update((path.name, run.path.stat().st_ino in synced) for path in run.path.iterdir())
        return real_step(trainer, work)

    run = RunFolder(tiny / "run")
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(os, "unlink", unlink)
    monkeypatch.setattr(Trainer, "_step", step)
    train_in(tiny)
    needed = (run.config, run.facts, run.tokenizer, run.split, run.environment, run.history_train, run.history_valid)
    for path in needed:
        assert (path.name, replaced[path.name], named[path.name]) == (path.name, True, True)
    assert named["checkpoints"]
    samples = {path.name for path in (run.path / "results").rglob("*") if path.suffix in (".txt", ".json")}
    assert len(samples) > 3
    assert not [name for name in samples if replaced[name]]


# --- 2 and 3: incomplete and changed files


@pytest.fixture(scope="module")
def run_of_two(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Return a run that has kept the checkpoints of steps 5 and 10; tests copy it."""
    folder = tmp_path_factory.mktemp("two")
    write_tiny_data(folder)
    write_yaml(folder / "experiment.yaml", tiny_config(folder))
    os.environ["IMG2SEQ_CACHE"] = str(folder / "cache")
    run = train_in(folder, "globals.evaluation_checkpoint.n_saved_models=2")
    assert names_in(run.checkpoints) == ["step-00000005", "step-00000010"]
    return run


def train_in(folder: Path, *overrides: str, resume: bool = False) -> RunFolder:
    return train(load(ConfigFiles(experiment=str(folder / "experiment.yaml")), overrides), resume=resume)


def copy_of(run: RunFolder, folder: Path) -> RunFolder:
    return RunFolder(shutil.copytree(run.path, folder / "copy", symlinks=True))


BREAKAGES: dict[str, Callable[[Path], object]] = {
    "deleted": lambda path: path.unlink(),
    "emptied": lambda path: os.truncate(path, 0),
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "one byte short": lambda path: os.truncate(path, path.stat().st_size - 1),
}


@pytest.mark.parametrize("how", BREAKAGES)
def test_an_incomplete_checkpoint_is_passed_over_and_refused_where_it_is_named(
    how: str, run_of_two: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in FILES:
        run = copy_of(run_of_two, tmp_path)
        broken = run.checkpoints / "step-00000010"
        BREAKAGES[how](broken / name)
        warnings: list[str] = []
        found = save_checkpoint.newest_valid(run.checkpoints, warnings.append)
        assert found is not None
        assert found.step == 5
        assert name in warnings[0]
        with pytest.raises(RunError, match=name):
            trained.load_run(run.path, step=10)
        with pytest.raises(RunError, match=name):
            start_weights.load_weights_from(torch.nn.Linear(1, 1), str(broken), strict=True, say=print)  # type: ignore[arg-type]
        assert cli.run(["runs", "verify", str(run.path)]) == 2
        shown = capsys.readouterr().out
        assert f"{broken / name}" in shown
        assert "ok   step-00000005" in shown
        shutil.rmtree(run.path)


def test_any_changed_byte_is_found_and_its_file_named(tmp_path: Path) -> None:
    checkpoint = save(tmp_path, 1, 0.5)
    for name in FILES:
        path = checkpoint.path / name
        whole = path.read_bytes()
        for place in range(len(whole)):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << place % 8)]) + whole[place + 1 :])
            assert checkpoints.damage(checkpoint), (name, place)
            if name != "manifest.json":  # a changed name or digest there speaks of another file, or of the manifest
                assert str(path) in checkpoints.damage(checkpoint)[0]
        path.write_bytes(whole)
    assert checkpoints.damage(checkpoint) == []


def bend(text: str, before: str, after: str) -> str:
    assert re.search(before, text)
    return re.sub(before, after, text, count=1)


CHANGES: dict[str, Callable[[str], str]] = {
    "config.yaml": lambda text: bend(text, r"temperature: [\d.]+", "temperature: 1.75"),
    "facts.json": lambda text: bend(text, r'("mean": \[\s*)0\.\d', r"\g<1>0.0"),
    "tokenizer.json": lambda text: text + "\n",
    "split.json": lambda text: bend(text, r'("train": \[\s*)"\d+",', r"\g<1>"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_a_model_cannot_be_rebuilt_without_is_what_was_written(
    name: str, run_of_two: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, config = copy_of(run_of_two, tmp_path), run_of_two.path.parent / "experiment.yaml"
    path = run.path / name
    path.write_text(CHANGES[name](path.read_text()))
    output = f"--globals.basic_experiment.output_folder={run.path}"
    assert cli.run(["runs", "verify", str(run.path)]) == 2
    assert f"{path}: changed since it was written" in capsys.readouterr().out
    assert cli.run(["train", str(config), "--resume", output]) == 2
    assert f"{path}: changed since it was written" in capsys.readouterr().err
    with pytest.raises(RunError, match=f"{name}: changed since it was written"):
        trained.load_run(run.path)
    run.digests.unlink()  # as the first versions left it
    assert cli.run(["runs", "verify", str(run.path)]) == 0
    trained.load_run(run.path)


def test_a_configuration_that_changed_on_resuming_is_signed_anew(run_of_two: RunFolder, tmp_path: Path) -> None:
    run, config = copy_of(run_of_two, tmp_path), run_of_two.path.parent / "experiment.yaml"
    temperature = "--outputs.captions.sampling_config.temperature=1.75"
    output = f"--globals.basic_experiment.output_folder={run.path}"
    assert cli.run(["train", str(config), "--resume", output, temperature]) == 0
    assert "temperature: 1.75" in run.config.read_text()
    assert cli.run(["runs", "verify", str(run.path)]) == 0
    run.digests.write_text("[]")
    assert cli.run(["runs", "verify", str(run.path)]) == 2


def test_a_manifest_cannot_name_other_files(tmp_path: Path) -> None:
    checkpoint = save(tmp_path, 1)
    path = checkpoint.path / "manifest.json"
    path.write_text(path.read_text().replace("state.json", "../state.json"))
    assert checkpoints.damage(checkpoint) == [f"{path}: damaged: its content is not what was saved"]


def test_training_goes_on_before_a_damaged_checkpoint_and_keeps_what_it_writes(
    run_of_two: RunFolder, tmp_path: Path
) -> None:
    run, config = copy_of(run_of_two, tmp_path), run_of_two.path.parent / "experiment.yaml"
    os.truncate(run.checkpoints / "step-00000010/weights.safetensors", 100)
    shutil.copy(config, tmp_path / "experiment.yaml")
    overrides = [f"globals.basic_experiment.output_folder={run.path}", "globals.evaluation_checkpoint.n_saved_models=2"]
    seen = []
    real = Trainer._step

    def step(trainer: Trainer, batches: Any) -> tuple[float, float, float]:
        seen.append(trainer.state.step)
        return real(trainer, batches)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_step", step)
        train_in(tmp_path, *overrides, "globals.evaluation_checkpoint.checkpoint_interval=2", resume=True)
    assert seen == [5, 6, 7, 8, 9]
    assert names_in(run.checkpoints) == ["step-00000005", "step-00000010"]
    one, other = newest(run.checkpoints), newest(run_of_two.checkpoints)
    assert one.weights.read_bytes() == other.weights.read_bytes()
    assert one.training.read_bytes() == other.training.read_bytes()


def test_a_run_without_a_whole_checkpoint_is_not_begun_anew(run_of_two: RunFolder, tmp_path: Path) -> None:
    run = copy_of(run_of_two, tmp_path)
    for checkpoint in checkpoints.all_checkpoints(run.checkpoints):
        checkpoint.weights.unlink()
    shutil.copy(run_of_two.path.parent / "experiment.yaml", tmp_path)
    history = run.history_train.read_text()
    with pytest.raises(RunError, match="none of its checkpoints is whole"):
        train_in(tmp_path, f"globals.basic_experiment.output_folder={run.path}", resume=True)
    assert run.history_train.read_text() == history


# --- 4: a full disk


def limit_file_size(n_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))


def test_a_full_disk_is_one_error_and_the_older_checkpoint_stays(tiny: Path) -> None:
    interrupted = ["train", tiny / "experiment.yaml", "--max_time", "0.01"]
    assert children.run(children.img2seq, interrupted) == 0
    run = RunFolder(tiny / "run")
    before = newest(run.checkpoints)
    resumed = ["train", tiny / "experiment.yaml", "--resume"]
    assert children.run(children.img2seq, resumed, partial(limit_file_size, 1_000_000), log=tiny / "err") == 2
    error = (tiny / "err").read_text()
    assert "Traceback" not in error
    assert "bytes are needed" in error
    assert "are free" in error
    assert names_in(run.checkpoints) == [before.path.name]
    checkpoints.verify(before)
    assert children.run(children.img2seq, resumed) == 0


@pytest.mark.parametrize("where", ["_write", "to_disk", "manifest_text", "_read_back"])
def test_no_space_left_at_any_part_of_a_save(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 1)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(save_checkpoint, where, full)
        with pytest.raises(RunError, match=r"about [\d,]+ bytes are needed, [\d,]+ are free"):
            save(tmp_path, 2)
    assert names_in(tmp_path) == ["step-00000001"]
    checkpoints.verify(Checkpoint(tmp_path / "step-00000001"))


def test_no_space_left_for_samples_costs_the_samples_alone(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path, *_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr("img2seq.training.samples.write_text", full)
    train_in(tiny, "globals.evaluation_checkpoint.checkpoint_interval=2")
    assert newest(tiny / "run/checkpoints").step == 10
    warned = [line for line in capsys.readouterr().err.splitlines() if "No space left on device" in line]
    assert len(warned) == 2  # of two evaluations
    assert all(line.startswith("warning: samples are not complete") for line in warned)


@pytest.mark.parametrize("where", ["remove_unfinished", "set_aside_newer"])
def test_a_disk_that_refuses_before_the_first_step_is_one_error_too(
    where: str, run_of_two: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), "checkpoints")

    monkeypatch.setattr(save_checkpoint, where, refuse)
    assert cli.run(["train", str(run_of_two.path.parent / "experiment.yaml"), "--resume"]) == 2
    assert "error: checkpoints: cannot be read or written: Read-only file system" in capsys.readouterr().err


# --- 12: weights gone bad


@pytest.mark.parametrize("average", [[], ["globals.model.ema_decay=0.9"]], ids=["plain", "averaged"])
def test_weights_that_are_not_finite_never_replace_good_ones(
    average: list[str], tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Trainer._step

    def poisoned(trainer: Trainer, batches: Any) -> tuple[float, float, float]:
        result = real(trainer, batches)
        if trainer.state.step == 5:  # in the sixth step
            with torch.no_grad():
                trainer.trained[-1].flatten()[0] = float("nan")
        return result

    monkeypatch.setattr(Trainer, "_step", poisoned)
    with pytest.raises(RunError, match=r"step 6: not saved, for .* not finite"):
        train_in(tiny, "globals.evaluation_checkpoint.checkpoint_interval=1", *average)
    assert names_in(tiny / "run/checkpoints") == ["step-00000005"]
    assert all(t.isfinite().all() for t in load_file(newest(tiny / "run/checkpoints").weights).values())


def test_a_validation_loss_that_is_not_finite_is_no_best(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = teacher_forcing.token_losses
    monkeypatch.setattr(validation, "token_losses", lambda model, batch: real(model, batch) * float("inf"))
    with pytest.raises(Exception, match="step 5: the validation loss is inf"):
        train_in(tiny, "globals.evaluation_checkpoint.checkpoint_interval=2")
    assert newest(tiny / "run/checkpoints").step == 4
