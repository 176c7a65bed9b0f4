"""`img2seq export`: a lean run captions as the run it was made from, is whole or not there, and replaces nothing unasked."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import children
from conftest import ROOT
from img2seq import Captioner
from img2seq.cli import main as cli
from img2seq.errors import ModelError, RunError
from img2seq.export import export_run as module
from img2seq.export import lean
from img2seq.export.export_run import export_run
from img2seq.export.pictures import Pictures
from img2seq.progress import Announcer
from img2seq.run.checkpoint import Checkpoint, all_checkpoints, best, manifest_text
from img2seq.run.folder import RunFolder, read_json
from img2seq.run.write import write_json
from servers import serving

QUIET = Announcer(level="critical", bars=False)
OWN = {"README.txt", "config.yaml", "digests.json", "export.json", "facts.json", "tokenizer.json"}


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


@pytest.fixture
def export(run: Path, tmp_path: Path) -> Path:
    export_run(run, tmp_path / "export", announce=QUIET)
    return tmp_path / "export"


def test_it_holds_what_captioning_needs_and_nothing_of_training(run: Path, export: Path) -> None:
    checkpoint = best(run / "checkpoints")
    folder = f"checkpoints/{checkpoint.path.name}"
    files = tree(export)
    of_checkpoint = {f"{folder}/{name}" for name in ("weights.safetensors", "state.json", "manifest.json")}
    assert set(files) == OWN | of_checkpoint
    for name in (
        "config.yaml",
        "facts.json",
        "tokenizer.json",
        f"{folder}/weights.safetensors",
        f"{folder}/state.json",
    ):
        assert files[name] == (run / name).read_bytes()
    made_from = json.loads(files["export.json"])
    assert (made_from["run"], made_from["step"]) == (run.name, checkpoint.step)
    assert made_from["valid_loss"] == checkpoint.valid_loss


def test_every_reader_takes_it_for_a_run(
    run: Path, export: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = sorted(map(str, images.glob("*.png")))[:6]
    settings: list[dict[str, Any]] = [{}, {"beam_size": 1}, {"n_best": 3}, {"method": "sample", "seed": 3}]
    for decoding in settings:
        found, expected = (Captioner.load(path).caption(pictures, **decoding) for path in (export, run))
        assert found == expected
    texts = []
    for path in (run, export):
        assert cli.run(["caption", str(path), *pictures]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
    captions, scores = run.parent / "captions.csv", []
    for path in (run, export):
        to = tmp_path / f"scores of {path.name}"
        words = ["--captions", str(captions), "--images", str(images), "--output", str(to)]
        assert cli.run(["evaluate", str(path), *words]) == 0
        metrics = read_json(to / "metrics.json")
        scores.append({name: metrics[name] for name in ("loss", "bleu_4", "cider_d", "images", "step")})
    assert scores[0] == scores[1]
    capsys.readouterr()
    assert cli.run(["runs", "verify", str(export)]) == 0
    assert "BAD" not in capsys.readouterr().out
    assert cli.run(["runs", "show", str(export)]) == 0
    shown = capsys.readouterr().out
    assert "exported" in shown
    assert f"step {read_json(export / 'export.json')['step']}" in shown


def test_it_is_served_as_its_run(run: Path, export: Path, images: Path, tmp_path: Path) -> None:
    picture = min(images.glob("*.png"))
    with serving(tmp_path, export) as served:
        answer = served.post("/caption", content=picture.read_bytes(), headers={"Content-Type": "image/png"})
    (found,) = answer.json()["captions"]
    assert found["text"] == Captioner.load(run).caption(picture).text


def test_what_is_changed_in_it_is_found(export: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (weights,) = export.glob("checkpoints/*/weights.safetensors")
    for path in (export / "config.yaml", export / "facts.json", export / "tokenizer.json", weights):
        before = path.read_bytes()
        path.write_bytes(before[:-2] + b" \n")
        assert cli.run(["runs", "verify", str(export)]) == 2
        assert str(path) in capsys.readouterr().out
        with pytest.raises(RunError, match=path.name):
            Captioner.load(export)
        path.write_bytes(before)


def test_a_checkpoint_that_was_never_evaluated_can_be_exported(own_run: Path, tmp_path: Path) -> None:
    step = best(own_run / "checkpoints").step
    checkpoint = Checkpoint(own_run / f"checkpoints/step-{step:08d}")
    write_json(checkpoint.path / "state.json", checkpoint.state() | {"valid_loss": None})
    files = read_json(checkpoint.path / "manifest.json")["files"]
    state = (checkpoint.path / "state.json").read_bytes()
    files["state.json"] = {"bytes": len(state), "sha256": hashlib.sha256(state).hexdigest()}
    (checkpoint.path / "manifest.json").write_text(manifest_text(files))
    text = export_run(own_run, tmp_path / "export", step=step, announce=QUIET)
    assert "not evaluated" in text
    assert Captioner.load(tmp_path / "export").trained.checkpoint.step == step


def test_an_export_of_an_export_is_the_same(export: Path, tmp_path: Path) -> None:
    export_run(export, tmp_path / "again", announce=QUIET)
    assert tree(tmp_path / "again") == tree(export)


def test_a_run_of_the_first_versions_is_exported(tmp_path: Path) -> None:
    old = ROOT / "tests/fixtures/run_before_rooms/run"
    step = all_checkpoints(old / "checkpoints")[-1].step
    export_run(old, tmp_path / "export", step=step, announce=QUIET)
    assert set(read_json(tmp_path / "export/digests.json")) == {"config.yaml", "facts.json", "tokenizer.json"}
    picture = str(next((old.parent / "images").glob("*.png")))
    assert Captioner.load(tmp_path / "export").caption(picture) == Captioner.load(old, step=step).caption(picture)


# --- what cannot be exported


def test_a_run_that_is_not_whole_is_not_exported(own_run: Path, tmp_path: Path) -> None:
    weights = best(own_run / "checkpoints").weights
    with weights.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x7f")
    with pytest.raises(RunError, match=r"weights\.safetensors: damaged"):
        export_run(own_run, tmp_path / "export", announce=QUIET)
    assert not (tmp_path / "export").exists()
    with pytest.raises(RunError, match="there is no such checkpoint"):
        export_run(own_run, tmp_path / "export", step=7, announce=QUIET)


def test_a_run_that_cannot_caption_is_not_exported(finished_runs: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="a run with one image input, found 0"):
        export_run(finished_runs[0], tmp_path / "export", announce=QUIET)


def test_what_was_written_is_compared_with_the_run(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = lean._copy

    def copy_with_a_flipped_bit(source: Path, target: Path, advance: Callable[[int], None]) -> None:
        real(source, target, advance)
        if target.name == "weights.safetensors":
            with target.open("r+b") as file:
                file.seek(-1, os.SEEK_END)
                last = file.read(1)[0]
                file.seek(-1, os.SEEK_END)
                file.write(bytes([last ^ 1]))

    monkeypatch.setattr(lean, "_copy", copy_with_a_flipped_bit)
    with pytest.raises(RunError, match="damaged"):
        export_run(run, tmp_path / "export", announce=QUIET)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["weights", "captions"])
def test_an_export_that_is_not_the_run_is_not_left(
    kind: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Captioner.load.__func__  # type: ignore[attr-defined]

    def load_another(cls: type[Captioner], /, path: str | Path, **options: Any) -> Captioner:
        captioner: Captioner = real(cls, path, **options)
        if ".exporting-" in str(path):
            if kind == "weights":
                next(captioner.trained.model.parameters()).data[..., :1] *= 1.0000002
            else:
                captioner.decoding_defaults = {"max_length": 2}
        return captioner

    monkeypatch.setattr(Captioner, "load", classmethod(load_another))
    with pytest.raises(RunError, match="not exported: read back"):
        export_run(run, tmp_path / "export", announce=QUIET)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(lean, "to_disk", no_space)
    with pytest.raises(RunError, match=r"export: cannot be written.*No space left.*bytes are needed"):
        export_run(run, tmp_path / "export", announce=QUIET)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_that_training_removes_meanwhile_is_one_error(
    own_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = lean._copy

    def copy_too_late(source: Path, target: Path, advance: Callable[[int], None]) -> None:
        if source.name == "weights.safetensors":
            shutil.rmtree(source.parent)
        real(source, target, advance)

    monkeypatch.setattr(lean, "_copy", copy_too_late)
    with pytest.raises(RunError, match=r"weights\.safetensors: was removed while it was exported; repeat"):
        export_run(own_run, tmp_path / "export", announce=QUIET)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


# --- what is there already


def test_nothing_but_an_export_is_replaced_and_that_only_when_told(run: Path, export: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    (tmp_path / "empty").mkdir()
    before = tree(tmp_path)
    for overwrite in (False, True):
        for name in ("file", "mine", "link"):
            with pytest.raises(RunError, match="expected a folder that is empty or not there"):
                export_run(run, tmp_path / name, overwrite=overwrite, announce=QUIET)
    with pytest.raises(RunError, match="--overwrite"):
        export_run(run, export, announce=QUIET)
    (export / "notes").mkdir()
    (export / "notes/mine.txt").write_text("mine")
    with pytest.raises(RunError, match=r"1 file that no export wrote.*\n.*notes/mine\.txt"):
        export_run(run, export, overwrite=True, announce=QUIET)
    shutil.rmtree(export / "notes")
    assert tree(tmp_path) == before
    (export / "tokenizer.json").write_text("damaged")
    export_run(run, export, overwrite=True, announce=QUIET)
    export_run(run, tmp_path / "empty", announce=QUIET)
    assert tree(tmp_path / "empty") == tree(export)
    assert {name: before[name] for name in before if name.startswith("export/")} == {
        f"export/{name}": content for name, content in tree(export).items()
    }
    assert hidden(tmp_path) == []


def test_what_comes_to_be_there_meanwhile_is_kept(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def while_another_writes(captioner: Captioner, export: Path, pictures: Pictures) -> str:
        (tmp_path / "export").mkdir()
        (tmp_path / "export/notes.txt").write_text("mine")
        return ""

    monkeypatch.setattr(module, "compare_lean_run", while_another_writes)
    for overwrite in (False, True):
        with pytest.raises(RunError, match="found one that is no export"):
            export_run(run, tmp_path / "export", overwrite=overwrite, announce=QUIET)
        assert tree(tmp_path) == {"export/notes.txt": b"mine"}
        shutil.rmtree(tmp_path / "export")


def test_the_current_folder_is_not_replaced(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match="the current folder"):
        export_run(run, ".", announce=QUIET)
    assert tmp_path.is_dir()


def test_it_cannot_be_trained_on(export: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = tree(export)
    for flags in (["--resume"], ["--overwrite"], []):
        output = f"--globals.basic_experiment.output_folder={export}"
        assert cli.run(["train", str(export / "config.yaml"), output, *flags]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "is an export and cannot be trained on" in line
    assert tree(export) == before


def test_without_a_split_and_losses_evaluate_and_compare_say_so(
    run: Path, export: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (["evaluate", str(export)], ["compare", str(run), str(export)]):
        assert cli.run(command) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "is an export" in line


def test_an_exported_checkpoint_in_a_run_is_not_resumed_from(
    own_run: Path, export: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    newest = all_checkpoints(own_run / "checkpoints")[-1].step
    (exported,) = (export / "checkpoints").iterdir()
    shutil.copytree(exported, own_run / f"checkpoints/step-{newest + 1:08d}")
    from img2seq.run.save_checkpoint import newest_valid

    warnings: list[str] = []
    found = newest_valid(own_run / "checkpoints", warnings.append)
    assert found is not None
    assert found.step == newest
    assert "without the optimiser's state" in warnings[0]


# --- killed


def not_compared(captioner: Captioner, export: Path, pictures: Pictures) -> str:
    return "nothing: it changes nothing on disk, and takes the most time"


def export_until_killed(run: Path, target: Path, n: int) -> None:
    """Export, and be killed before the n-th time that this process changes something on disk."""
    done = 0

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal done
            done += 1
            if done == n:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        return call

    setattr(module, "compare_lean_run", not_compared)  # noqa: B010
    for name in ("fsync", "rename", "replace", "mkdir", "rmdir", "unlink"):
        setattr(os, name, counted(getattr(os, name)))
    export_run(run, target, overwrite=True, announce=QUIET)


@pytest.mark.parametrize("again", [False, True], ids=["a new folder", "in place of another"])
def test_killed_at_any_point_it_is_whole_or_not_there(
    again: bool, run: Path, export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "compare_lean_run", not_compared)
    expected, places = tree(export), set()
    for n in range(1, 200):
        folder = tmp_path / str(n)
        target = folder / "target"
        folder.mkdir()
        if again:
            shutil.copytree(export, target)
            (target / "README.txt").write_text("of before")
        code = children.run(export_until_killed, run, target, n)
        found = tree(target) if target.exists() else {}
        whole = [found == expected, again and found == expected | {"README.txt": b"of before"}, found == {}]
        assert any(whole), n
        places.add(whole.index(True))
        if again and not found:  # between two names: both are there, beside it
            assert [tree(folder / name) for name in hidden(folder)][-1]["README.txt"] == b"of before"
        export_run(run, target, overwrite=True, announce=QUIET)
        assert tree(target) == expected
        assert hidden(folder) == []
        if code == 0:
            break
        assert code == -signal.SIGKILL
    assert n > 15
    assert places == ({0, 1, 2} if again else {0, 2})


def test_what_another_process_is_writing_is_left_alone(run: Path, tmp_path: Path) -> None:
    alive = tmp_path / f".export.exporting-{os.getppid()}"
    alive.mkdir()
    (tmp_path / ".export.exporting-notes").mkdir()
    export_run(run, tmp_path / "export", announce=QUIET)
    assert hidden(tmp_path) == sorted([alive.name, ".export.exporting-notes"])


def test_its_note_names_its_files(export: Path) -> None:
    note = RunFolder(export).readme.read_text().split("\n\n")[1]
    for name in (*OWN - {"README.txt"}, "weights.safetensors", "state.json", "manifest.json"):
        assert name in note
