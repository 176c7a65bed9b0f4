"""A run that is stopped, killed, signalled or fed bad numbers, and goes on, ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import time
from collections import Counter
from dataclasses import replace
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from test_checkpoint_faults import be_killed_at

import children
from conftest import ROOT, tiny_config, write_tiny_data, write_yaml
from img2seq.build.prepare import prepare
from img2seq.cli import main as cli
from img2seq.config.causal_lm import CausalLM
from img2seq.config.load import ConfigFiles, load, load_config
from img2seq.config.show import to_flat
from img2seq.data.order import Plan, training_plan
from img2seq.errors import ModelError, RunError
from img2seq.model import teacher_forcing
from img2seq.model.caption_model import CaptionModel
from img2seq.progress import Announcer
from img2seq.run import checkpoint as checkpoints
from img2seq.run import save_checkpoint
from img2seq.run.folder import RunFolder, read_json
from img2seq.run.lock import Owner, owner_of, process_start
from img2seq.run.tables import read_table
from img2seq.training import validation
from img2seq.training.interruption import Interrupted
from img2seq.training.loop import Trainer, train
from img2seq.training.objective import CrossEntropy
from img2seq.training.resume import MAY_CHANGE

BASIC = "globals.basic_experiment"
INTERVALS = "globals.evaluation_checkpoint"


def run_of(folder: Path, *overrides: str, resume: bool = False, overwrite: bool = False) -> RunFolder:
    return train(
        load(ConfigFiles(experiment=str(folder / "experiment.yaml")), overrides), resume=resume, overwrite=overwrite
    )


def output(folder: Path) -> str:
    return f"{BASIC}.output_folder={folder}"


def newest(run: RunFolder) -> checkpoints.Checkpoint:
    found = save_checkpoint.newest_valid(run.checkpoints, lambda _: None)
    assert found is not None
    return found


TIMES = {"captions_per_s", "elapsed_s"}


def histories(run: RunFolder) -> list[list[dict[str, str]]]:
    tables = [read_table(run.history_train), read_table(run.history_valid)]
    return [[{key: row[key] for key in row.keys() - TIMES} for row in rows] for rows in tables]


def position(run: RunFolder) -> dict[str, Any]:
    state = newest(run).state()
    return {key: state["position"][key] for key in state["position"].keys() - {"elapsed_s", "train_time_s"}} | {
        "n_averaged": state["n_averaged"],
        "valid_loss": state["valid_loss"],
    }


def samples(run: RunFolder) -> dict[str, bytes]:
    """Return the sampled captions and what the model saw, by path; the grid's title has the run's name in it."""
    folder = run.path / "samples"
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "grid.jpg"
    }


def assert_ended_alike(whole: RunFolder, other: RunFolder) -> None:
    for name in ("weights", "training"):
        a, b = (load_file(getattr(newest(run), name)) for run in (whole, other))
        assert a.keys() == b.keys()
        assert [key for key in a if not torch.equal(a[key], b[key])] == []
    assert position(whole) == position(other)
    assert histories(whole) == histories(other)
    assert samples(whole) == samples(other)
    one, same = (read_json(run.validation / "summary.json") for run in (whole, other))
    assert {key: one[key] for key in one.keys() - TIMES} == {key: same[key] for key in same.keys() - TIMES}
    assert (whole.validation / "images.csv").read_bytes() == (other.validation / "images.csv").read_bytes()


class Watched:
    """What every step of a Trainer was given, and a wish to stop after every step."""

    def __init__(self, patch: pytest.MonkeyPatch, *, stop: bool = False):
        self.ids: list[list[tuple[str, ...]]] = []  # of each batch of each step
        real_step, real_stop = Trainer._step, Trainer._stop_if_asked

        def step(trainer: Trainer, work: Any) -> tuple[float, float, float]:
            self.ids.append([batch.image_ids for batch in work.batches])
            return real_step(trainer, work)

        def stop_if_asked(trainer: Trainer) -> None:
            if self.stop:
                trainer.stop_signal = signal.SIGTERM
            real_stop(trainer)

        self.stop = stop
        patch.setattr(Trainer, "_step", step)
        patch.setattr(Trainer, "_stop_if_asked", stop_if_asked)


# --- 5, 6, 7: resumed after every step, at the epoch's end too

EVERYTHING = [
    "globals.optimization.gradient_accumulation_steps=2",
    "globals.optimization.gradient_noise=0.001",
    "globals.model.ema_decay=0.8",
    "globals.lr_schedule.lr_schedule=cosine",
    f"{INTERVALS}.sample_interval=2",
]


def test_stopped_after_every_step_of_two_epochs_a_run_ends_to_the_same_bits(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(monkeypatch)
    whole = run_of(tiny, *EVERYTHING, output(tiny / "whole"))
    expected, watched.ids = watched.ids, []
    assert [len(batches) for batches in expected] == [
        2,
        2,
        1,
        2,
        2,
        1,
    ]  # the last step of an epoch gathers what is left
    epochs = [Counter(i for step in part for ids in step for i in ids) for part in (expected[:3], expected[3:])]
    assert epochs[0] == epochs[1] == dict.fromkeys(read_json(whole.split)["train"], 1)
    assert expected[:3] != expected[3:]
    watched.stop = True
    stopped, n_stops = None, 0
    while stopped is None:
        workers = f"{BASIC}.dataloader_workers={n_stops % 3}"
        try:
            stopped = run_of(tiny, *EVERYTHING, workers, resume=n_stops > 0)
        except Interrupted:
            n_stops += 1
    assert n_stops == 6
    assert watched.ids == expected
    assert_ended_alike(whole, stopped)


def test_killed_whenever_it_writes_a_run_ends_to_the_same_bits(tiny: Path) -> None:
    intervals = [f"--{INTERVALS}.checkpoint_interval=1", f"--{INTERVALS}.sample_interval=2", f"--{BASIC}.n_epochs=1"]
    train_it = ["train", tiny / "experiment.yaml", *intervals]
    assert children.run(children.img2seq, [*train_it, f"--{output(tiny / 'whole')}"]) == 0
    codes: list[int] = []
    while not codes or codes[-1] != 0:
        # Later from child to child: in describing the run, in the first checkpoint, the second, in samples, in the end.
        kill = partial(be_killed_at, 3 + 17 * len(codes))
        codes.append(children.run(children.img2seq, [*train_it, *(["--resume"] if codes else [])], kill))
        assert codes[-1] in (0, -signal.SIGKILL)
    assert len(codes) > 4
    assert_ended_alike(RunFolder(tiny / "whole"), RunFolder(tiny / "run"))
    assert [p.name for p in (tiny / "run").rglob("*tmp*") if p.parent.name == "checkpoints"] == []


def test_what_a_killed_process_was_writing_is_removed_on_resuming(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Watched(monkeypatch, stop=True)
    with pytest.raises(Interrupted):
        run_of(tiny)
    samples = RunFolder(tiny / "run").path / "results/left/samples/2"
    samples.mkdir(parents=True)
    (samples / ".captions.txt.tmp-4321").write_text("half")
    (samples / ".kept.txt").write_text("somebody's")
    with pytest.raises(Interrupted):
        run_of(tiny, resume=True)
    assert [path.name for path in samples.iterdir()] == [".kept.txt"]


@pytest.mark.parametrize("how", [{"resume": True}, {"overwrite": True}, {}], ids=str)
def test_a_run_killed_while_its_first_file_was_written_begins(tiny: Path, how: dict[str, bool]) -> None:
    run = RunFolder(tiny / "run")
    run.path.mkdir()
    run.lock.write_text("")
    (run.path / ".config.yaml.tmp-4321").write_text("half")
    run_of(tiny, f"{BASIC}.n_epochs=1", **how)
    assert newest(run).step == 5
    assert not (run.path / ".config.yaml.tmp-4321").exists()


def test_an_early_stop_that_was_interrupted_stays_one(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stops_soon = [
        "globals.training_control.early_stopping_patience=1", f"{INTERVALS}.sample_interval=2",
        "globals.optimization.lr=0.5", f"{BASIC}.n_epochs=20",
    ]  # fmt: skip
    whole = run_of(tiny, *stops_soon, output(tiny / "whole"))
    assert newest(whole).step < 100
    with monkeypatch.context() as patch:
        patch.setattr("img2seq.training.record.Recorder.finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            run_of(tiny, *stops_soon)
    assert_ended_alike(whole, run_of(tiny, *stops_soon, resume=True))


def test_a_line_of_the_history_that_a_kill_cut_is_written_again(tiny: Path) -> None:
    whole = run_of(tiny, f"{BASIC}.n_epochs=1")
    expected = histories(whole)
    text = whole.history_train.read_text()
    whole.history_train.write_text(text + "6,1,2.5\n1")
    run_of(tiny, f"{BASIC}.n_epochs=1", resume=True)
    assert histories(whole) == expected


# --- 8, 9: what runs beside training does not change it


def test_batches_are_equal_for_any_number_of_workers(tiny: Path) -> None:
    prepared = prepare(load_config(tiny / "experiment.yaml"), Announcer(level="critical", bars=False))
    options: dict[str, Any] = {"batch_size": 8, "captions_per_image": 1, "seed": 3, "epoch": 1}
    plan: Plan = training_plan(prepared.train.captions_of, **options)
    alone, *others = (list(prepared.train.batches(plan, epoch=1, workers=n)) for n in (0, 1, 2))
    plain = list(prepared.train.batches(plan))
    assert any(not torch.equal(a.pixels["photo"], b.pixels["photo"]) for a, b in zip(alone, plain, strict=True))
    for other in others:
        for one, same in zip(alone, other, strict=True):
            assert one.image_ids == same.image_ids
            assert torch.equal(one.pixels["photo"], same.pixels["photo"])
            assert torch.equal(one.input_ids, same.input_ids)
            assert torch.equal(one.target_ids, same.target_ids)


def test_evaluation_checkpoints_and_workers_change_nothing_that_is_trained(tiny: Path) -> None:
    often = [f"{INTERVALS}.sample_interval=1", f"{INTERVALS}.checkpoint_interval=1", f"{BASIC}.dataloader_workers=2"]
    busy = run_of(tiny, *often)
    quiet = run_of(tiny, output(tiny / "quiet"), f"{INTERVALS}.sample_interval=1000")
    for name in ("weights", "training"):
        a, b = (load_file(getattr(newest(run), name)) for run in (busy, quiet))
        assert [key for key in a if not torch.equal(a[key], b[key])] == []
    assert histories(busy)[0] == histories(quiet)[0]


# --- 10: signals and time


def slow_steps(folder: Path, step_s: float) -> None:
    """Make every step long enough to be signalled in, and tell when the third has begun."""
    real = Trainer._step

    def step(trainer: Trainer, batches: Any) -> tuple[float, float, float]:
        if trainer.state.step == 2:
            (folder / "in step 3").touch()
        time.sleep(step_s)
        return real(trainer, batches)

    Trainer._step = step  # type: ignore[method-assign, assignment]


@pytest.mark.parametrize(("number", "workers"), [(signal.SIGTERM, 2), (signal.SIGINT, 0), (signal.SIGINT, 2)])
def test_a_signal_to_all_its_processes_finishes_the_step_and_saves(
    tiny: Path, number: signal.Signals, workers: int
) -> None:
    train_it = ["train", tiny / "experiment.yaml", f"--{BASIC}.dataloader_workers={workers}"]
    assert children.run(children.img2seq, [*train_it, f"--{output(tiny / 'whole')}"]) == 0
    with children.child(children.img2seq, train_it, partial(slow_steps, tiny, 0.2), log=tiny / "err") as process:
        children.wait_until(lambda: (tiny / "in step 3").exists(), process)
        assert process.pid is not None
        os.killpg(process.pid, number)
        assert children.exit_code(process) == 128 + number
    run = RunFolder(tiny / "run")
    assert newest(run).step == 3
    assert owner_of(run) is None
    assert "Traceback" not in (tiny / "err").read_text()
    assert children.run(children.img2seq, [*train_it, "--resume"]) == 0
    assert_ended_alike(RunFolder(tiny / "whole"), run)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_exits_at_once(tiny: Path, number: signal.Signals) -> None:
    train_it = ["train", tiny / "experiment.yaml", f"--{INTERVALS}.checkpoint_interval=1"]
    with children.child(children.img2seq, train_it, partial(slow_steps, tiny, 0.3), log=tiny / "err") as process:
        children.wait_until(lambda: (tiny / "in step 3").exists(), process)
        assert process.pid is not None
        os.kill(process.pid, number)
        children.wait_until(lambda: "again to exit at once" in (tiny / "err").read_text(), process)
        os.kill(process.pid, number)
        assert children.exit_code(process) == -number  # a shell shows it as 128 + number
    assert newest(RunFolder(tiny / "run")).step in (1, 2)  # the second may have been on its way to disk
    assert owner_of(RunFolder(tiny / "run")) is not None


def test_a_signal_that_ends_the_reader_of_its_messages_too_saves_all_the_same(tiny: Path) -> None:
    train_it = ["train", tiny / "experiment.yaml", f"--{BASIC}.dataloader_workers=0"]
    assert children.run(children.img2seq, [*train_it, f"--{output(tiny / 'whole')}"]) == 0
    os.mkfifo(tiny / "pipe")
    reader = os.open(tiny / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    with_bars = [*train_it, "--globals.visualization_logging.no_pbar=false"]
    with children.child(children.img2seq, with_bars, partial(slow_steps, tiny, 0.2), log=tiny / "pipe") as process:
        children.wait_until(lambda: (tiny / "in step 3").exists(), process)
        assert process.pid is not None
        os.close(reader)
        os.kill(process.pid, signal.SIGINT)
        assert children.exit_code(process) == 130
    run = RunFolder(tiny / "run")
    assert newest(run).step == 3
    assert "finishing this step" in run.log.read_text()
    assert children.run(children.img2seq, [*train_it, "--resume"]) == 0
    assert_ended_alike(RunFolder(tiny / "whole"), run)


def test_a_log_that_cannot_be_written_ends_no_training(tiny: Path) -> None:
    whole = run_of(tiny, output(tiny / "whole"))
    config = str(tiny / "experiment.yaml")
    assert cli.run(["train", config, "--max_time", "0.01"]) == 0
    run = RunFolder(tiny / "run")
    run.log.unlink()
    run.log.mkdir()
    assert cli.run(["train", config, "--resume"]) == 0
    assert_ended_alike(whole, run)


@pytest.mark.parametrize("step", [2, 6], ids=["midway", "at the end"])
def test_a_signal_cuts_an_evaluation_short_and_the_resumed_run_makes_up_for_it(
    step: int, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, n_measured = run_of(tiny, *EVERYTHING, output(tiny / "whole")), 0
    real_losses, real_measure = teacher_forcing.token_losses, Trainer._measure
    measuring: list[Trainer] = []

    def measure(trainer: Trainer) -> None:
        measuring.append(trainer)
        real_measure(trainer)

    def losses(model: CaptionModel, batch: Any) -> torch.Tensor:
        nonlocal n_measured
        if measuring[-1].state.step == step:
            n_measured += 1
            measuring[-1].stop_signal = signal.SIGTERM
        return real_losses(model, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_measure", measure)
        patch.setattr(validation, "token_losses", losses)
        with pytest.raises(Interrupted) as caught:
            run_of(tiny, *EVERYTHING)
    assert caught.value.exit_code == 143
    assert n_measured == 1  # of two batches
    run = RunFolder(tiny / "run")
    assert (newest(run).step, newest(run).valid_loss) == (step, None)
    assert_ended_alike(whole, run_of(tiny, *EVERYTHING, resume=True))


def test_a_time_budget_ends_the_sitting_and_the_next_one_goes_on(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = run_of(tiny, output(tiny / "whole"))
    config = str(tiny / "experiment.yaml")
    assert cli.run(["train", config, "--max_time", "0.000001h"]) == 0
    assert newest(RunFolder(tiny / "run")).step == 1
    assert cli.run(["train", config, "--resume", "--max_time", "2d"]) == 0
    assert_ended_alike(whole, RunFolder(tiny / "run"))
    for wrong in ("soon", "-3", "0", "1w", "nan", "inf"):
        assert cli.run(["train", config, f"--max_time={wrong}"]) == 2
        assert "--max_time: expected seconds" in capsys.readouterr().err


# --- 11: numbers that are not finite


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_batch_that_is_not_finite_stops_before_the_weights_change(
    where: str, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_loss, real_step = CrossEntropy.loss_sum, Trainer._step
    before: dict[str, Any] = {}
    watched = Watched(monkeypatch)

    def step(trainer: Trainer, batches: Any) -> tuple[float, float, float]:
        if trainer.state.step == 2:
            before["weights"] = {name: t.clone() for name, t in trainer.model.named_parameters()}
            before["optimizer"] = [t.clone() for s in trainer.optimizer.state.values() for t in s.values()]
        before["trainer"] = trainer
        return real_step(trainer, batches)

    def poisoned(objective: CrossEntropy, model: CaptionModel, batch: Any) -> torch.Tensor:
        loss = real_loss(objective, model, batch)
        if before["trainer"].state.step == 2:
            if where == "loss":
                return loss * float("nan")
            loss.register_hook(lambda gradient: gradient * float("inf"))
        return loss

    monkeypatch.setattr(Trainer, "_step", step)
    monkeypatch.setattr(CrossEntropy, "loss_sum", poisoned)
    with pytest.raises(ModelError, match=r"step 3: .* not finite"):
        run_of(tiny, f"{INTERVALS}.checkpoint_interval=2")
    trainer = before["trainer"]
    assert all(torch.equal(t, before["weights"][name]) for name, t in trainer.model.named_parameters())
    after = [t for s in trainer.optimizer.state.values() for t in s.values()]
    assert all(torch.equal(a, b) for a, b in zip(after, before["optimizer"], strict=True))
    run = RunFolder(tiny / "run")
    plan = training_plan(trainer.prepared.train.captions_of, batch_size=8, captions_per_image=5, seed=0, epoch=0)
    ids = [trainer.prepared.train.image_ids[group.image] for group in plan[2]]
    assert read_json(run.path / "not_finite.json") == {"step": 3, "image_ids": ids}
    assert newest(run).step == 2
    assert watched.ids == []


# --- what may change on resuming, and what may not


@pytest.fixture(scope="module")
def short_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with data, experiment.yaml and a finished run of one epoch; tests copy it."""
    folder = tmp_path_factory.mktemp("short")
    os.environ["IMG2SEQ_CACHE"] = str(folder / "cache")
    write_tiny_data(folder)
    write_yaml(folder / "experiment.yaml", tiny_config(folder))
    run_of(folder, f"{BASIC}.n_epochs=1", "globals.lr_schedule.lr_schedule=same")
    return folder


def copy_of(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to, symlinks=True, dirs_exist_ok=True)
    write_yaml(to / "experiment.yaml", tiny_config(to))
    return to


def test_more_epochs_other_intervals_and_a_moved_folder_are_fine(short_run: Path, tmp_path: Path) -> None:
    folder = copy_of(short_run, tmp_path)  # data and run have moved
    same = "globals.lr_schedule.lr_schedule=same"
    longer = run_of(
        folder,
        same,
        f"{BASIC}.dataloader_workers=1",
        f"{BASIC}.memory_dataset=true",
        f"{INTERVALS}.sample_interval=3",
        f"{INTERVALS}.checkpoint_interval=4",
        f"{INTERVALS}.n_saved_models=2",
        "outputs.captions.sampling_config.temperature=0.5",
        "globals.training_control.early_stopping_patience=7",
        resume=True,
    )
    at_once = run_of(folder, same, output(folder / "at once"))
    for name in ("weights", "training"):  # a constant rate does not depend on the number of epochs
        a, b = (load_file(getattr(newest(run), name)) for run in (longer, at_once))
        assert [key for key in a if not torch.equal(a[key], b[key])] == []
    assert [row["iteration"] for row in read_table(longer.history_valid)] == ["5", "6", "9", "10"]
    assert read_json(longer.validation / "summary.json")["steps"] == 10


REFUSED = {
    f"{BASIC}.batch_size": "7",
    f"{BASIC}.captions_per_image": "1",
    f"{BASIC}.seed": "1",
    f"{BASIC}.valid_size": "5",
    "globals.optimization.optimizer": "sgdm",
    "globals.optimization.gradient_accumulation_steps": "3",
    "globals.optimization.label_smoothing": "0.1",
    "globals.model.ema_decay": "0.9",
    "inputs.photo.model_config.model_type": "resnet18",
    "inputs.photo.input_type_info.size": "[48]",
    "inputs.photo.input_type_info.auto_augment": "false",
    "outputs.captions.model_config.embedding_dim": "32",
    "outputs.captions.output_type_info.lowercase": "true",
    "outputs.captions.output_type_info.min_freq": "2",
}


def test_what_decides_the_training_is_refused_field_by_field(short_run: Path) -> None:
    run = RunFolder(short_run / "run")
    before = everything_in(run)
    with pytest.raises(RunError) as caught:
        run_of(short_run, *(f"{key}={value}" for key, value in REFUSED.items()), resume=True)
    flat = to_flat(load_config(short_run / "experiment.yaml"))
    for key, value in REFUSED.items():
        was = flat[key]
        assert re.search(rf"{re.escape(key)}: was {re.escape(was)}, is now {re.escape(value)}", str(caught.value), re.I)
    assert str(caught.value).count("was ") == len(REFUSED)
    for key, value in REFUSED.items():
        with pytest.raises(RunError, match="must stay as they were"):
            run_of(short_run, f"{key}={value}", resume=True)
    assert everything_in(run) == before


def test_every_field_that_may_change_is_a_field(tiny: Path) -> None:
    fields = [
        *to_flat(load_config(tiny / "experiment.yaml")),
        *(f"outputs.captions.model_config.{name}" for name in CausalLM.model_fields),
    ]
    assert [pattern for pattern in MAY_CHANGE if not any(fnmatch(field, pattern) for field in fields)] == []


def test_the_table_of_what_may_change_is_complete() -> None:
    text = (ROOT / "docs/resume.md").read_text(encoding="utf-8").partition("## What may change on resuming")[2]
    rows = re.findall(r"^\| (`.+?|all of .+?) \|", text, re.MULTILINE)
    documented = [name.rpartition(".")[2] for row in rows for name in re.findall(r"`([^`]+)`", row)]
    assert sorted(documented) == sorted(pattern.removesuffix(".*").rpartition(".")[2] for pattern in MAY_CHANGE)


def change_a_caption(folder: Path) -> None:
    table = folder / "captions.csv"
    lines = table.read_text().splitlines()
    lines[1], lines[3] = (
        lines[1].split(",")[0] + "," + lines[3].split(",")[1],
        lines[3].split(",")[0] + "," + lines[1].split(",")[1],
    )
    table.write_text("\n".join(lines) + "\n")  # the same words, lengths and images


def change_an_image(folder: Path) -> None:
    path = folder / "images/005.png"
    with Image.open(path) as image:
        pixels = np.array(image)
    Image.fromarray(pixels[:, ::-1].copy()).save(path)  # the same mean and deviation


def leave_out_an_image(folder: Path) -> None:
    table = folder / "captions.csv"
    table.write_text("".join(line for line in table.read_text().splitlines(True) if not line.startswith("000,")))


CHANGED_DATA = {
    "captions_digest": change_a_caption,
    "images_digest": change_an_image,
    "images of the train part": leave_out_an_image,
}


@pytest.mark.parametrize("what", CHANGED_DATA)
def test_other_data_are_refused(what: str, short_run: Path, tmp_path: Path) -> None:
    folder = copy_of(short_run, tmp_path)
    CHANGED_DATA[what](folder)
    with pytest.raises(RunError, match=rf"cannot be resumed: data and model must stay .*\n[^$]*{what}: (was|were) \w+"):
        run_of(folder, "globals.lr_schedule.lr_schedule=same", resume=True)
    assert newest(RunFolder(folder / "run")).step == 5


def everything_in(run: RunFolder) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file() and path != run.log}


@pytest.mark.parametrize("kept", ["summary", "history"])
def test_a_run_whose_checkpoints_are_gone_is_not_begun_anew(kept: str, short_run: Path, tmp_path: Path) -> None:
    folder = copy_of(short_run, tmp_path)
    run = RunFolder(folder / "run")
    shutil.rmtree(run.checkpoints)
    (run.path / "evaluation").mkdir()
    (run.path / "evaluation/metrics.json").write_text("{}")
    if kept == "summary":
        run.history_valid.unlink()
    else:
        shutil.rmtree(run.validation)
        header, row = run.history_valid.read_text().splitlines()
        run.history_valid.write_text(f"{header}\n{row}\n{row}\n")
    before = everything_in(run)
    with pytest.raises(RunError, match="checkpoints is empty or missing; put it back, or start again with --overwrite"):
        run_of(folder, "globals.lr_schedule.lr_schedule=same", resume=True)
    assert everything_in(run) == before


def test_killed_amid_its_first_evaluation_a_run_begins_anew(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def kill(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_save", kill)
        with pytest.raises(Killed):
            run_of(tiny)
    run_of(tiny, resume=True)
    assert newest(RunFolder(tiny / "run")).step == 10


# --- 36: two processes, one folder


def test_a_run_in_training_belongs_to_its_process(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny / "experiment.yaml"
    run = RunFolder(tiny / "run")
    train_it = ["train", config, f"--{INTERVALS}.checkpoint_interval=1"]
    with children.child(children.img2seq, train_it, partial(slow_steps, tiny, 0.3)) as process:
        children.wait_until(lambda: (tiny / "in step 3").exists(), process)
        for flags in ([], ["--resume"], ["--overwrite"]):
            assert cli.run(["train", str(config), *flags]) == 2
            error = capsys.readouterr().err
            assert f"is being trained by process {process.pid} on {socket.gethostname()}" in error
            assert len(error.splitlines()) == 1
        assert cli.run(["runs", "show", str(run.path)]) == 0
        assert f"being trained by process {process.pid}" in capsys.readouterr().out
        process.kill()
    assert owner_of(run) is not None
    assert cli.run(["train", str(config), "--resume"]) == 0
    assert owner_of(run) is None


def test_a_process_that_cannot_be_seen_keeps_its_run(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train_it = ["train", str(tiny / "experiment.yaml"), f"--{INTERVALS}.checkpoint_interval=1"]
    with children.child(children.img2seq, train_it, partial(slow_steps, tiny, 0.3)) as process:
        children.wait_until(lambda: (tiny / "in step 3").exists(), process)
        monkeypatch.setattr(
            "img2seq.run.lock.process_start", lambda _: None
        )  # as in another container of this host's name
        for flags in (["--resume"], ["--overwrite"]):
            assert cli.run([*train_it, *flags]) == 2
            error = capsys.readouterr().err
            assert f"is being trained by process {process.pid} on {socket.gethostname()}" in error
            assert len(error.splitlines()) == 1
        process.kill()
        process.join()
        assert cli.run([*train_it, "--resume"]) == 0


def test_the_lock_of_a_dead_process_is_taken_over_with_a_word(
    short_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy_of(short_run, tmp_path)
    run = RunFolder(folder / "run")
    me = Owner(os.getpid(), socket.gethostname(), process_start(os.getpid()), "before")
    resume = ["train", str(folder / "experiment.yaml"), "--resume", "--globals.lr_schedule.lr_schedule=same"]
    resume += [f"--{BASIC}.n_epochs=1"]
    for owner, may_live in (
        (me, True),
        (replace(me, host="elsewhere", pid=1), True),
        (replace(me, started="another process with this number"), False),
        (replace(me, pid=2**22 + 1), False),
    ):
        run.lock.write_text(json.dumps(vars(owner)))
        code, error = cli.run(resume), capsys.readouterr().err
        if may_live:
            assert code == 2
            assert f"is being trained by process {owner.pid} on {owner.host}" in error
            assert json.loads(run.lock.read_text()) == vars(owner)
            assert ("remove" in error) == (owner.host == "elsewhere")
        else:
            assert code == 0
            assert f"taken over from process {owner.pid}" in error
            assert not run.lock.exists()
    run.lock.write_text("")  # killed before it had written its name
    assert cli.run(resume) == 0


def test_a_folder_that_is_no_run_is_never_touched(tiny: Path) -> None:
    stranger = tiny / "photos"
    stranger.mkdir()
    (stranger / "log.txt").write_text("mine")
    for options in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(RunError, match="not a run folder"):
            run_of(tiny, output(stranger), **options)
    assert [path.name for path in stranger.iterdir()] == ["log.txt"]
    with pytest.raises(RunError, match="there is no such run"):
        run_of(tiny, output(tiny / "absent"), resume=True)
    assert not (tiny / "absent").exists()


def test_overwriting_keeps_the_old_run_until_the_new_one_can_begin(short_run: Path, tmp_path: Path) -> None:
    folder = copy_of(short_run, tmp_path)
    before = newest(RunFolder(folder / "run")).weights.read_bytes()
    (folder / "images/003.png").write_bytes(b"no image")
    with pytest.raises(Exception, match=r"003\.png"):
        run_of(folder, overwrite=True)
    assert newest(RunFolder(folder / "run")).weights.read_bytes() == before
