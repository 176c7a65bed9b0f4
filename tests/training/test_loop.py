"""Whole runs on a tiny data set: what they leave behind, and that they can be stopped and go on as if nothing had happened."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import children
from children import child, exit_code, wait_until
from conftest import tiny_config, write_tiny_data, write_yaml
from img2seq.config.load import ConfigFiles, load
from img2seq.data.batch import Batch
from img2seq.errors import DataError, Img2SeqError, ModelError, RunError
from img2seq.inference.captioner import Captioner
from img2seq.model.caption_model import CaptionModel
from img2seq.model.packing import PackedBatch
from img2seq.run import checkpoint as checkpoints
from img2seq.run.folder import RunFolder, read_json
from img2seq.run.tables import read_table
from img2seq.training.interruption import Interrupted
from img2seq.training.loop import Trainer, train
from img2seq.training.objective import CrossEntropy


def run_of(folder: Path, *overrides: str, resume: bool = False, overwrite: bool = False) -> RunFolder:
    return train(
        load(ConfigFiles(experiment=str(folder / "experiment.yaml")), overrides), resume=resume, overwrite=overwrite
    )


def newest(run: RunFolder) -> checkpoints.Checkpoint:
    return checkpoints.all_checkpoints(run.checkpoints)[-1]


def assert_same_weights(one: RunFolder, other: RunFolder) -> None:
    for name in ("weights", "training"):
        a, b = (load_file(getattr(newest(run), name)) for run in (one, other))
        assert a.keys() == b.keys()
        different = [key for key in a if not torch.equal(a[key], b[key])]
        assert not different, different[:5]


def losses(run: RunFolder) -> list[tuple[str, ...]]:
    return [
        tuple(row[key] for key in ("iteration", "loss", "learning_rate", "gradient_norm"))
        for row in read_table(run.history_train)
    ]


@pytest.mark.figures
def test_a_run_leaves_all_that_its_folder_promises(tiny: Path) -> None:
    run = run_of(
        tiny,
        "globals.evaluation_checkpoint.sample_interval=1000",
        "globals.evaluation_checkpoint.checkpoint_interval=1000",
    )
    for path in (
        run.config,
        run.sources,
        run.facts,
        run.tokenizer,
        run.split,
        run.data_report,
        run.environment,
        run.model_text,
        run.log,
    ):
        assert path.is_file(), path
    assert {p.name for p in run.figures.iterdir()} == {"training_curve_LOSS.png", "training_curve_LOSS.pdf"}
    assert [row["iteration"] for row in read_table(run.history_valid)] == [
        "10"
    ]  # intervals longer than the run: evaluated at its end
    assert newest(run).step == 10
    assert list(run.tensorboard.iterdir())
    folder = run.path / "samples" / "10"
    assert (folder / "auto/0_generated.txt").read_text().strip()
    with Image.open(folder / "auto/2_inputs/photo.png") as seen:
        assert seen.size == (32, 32)
    with Image.open(folder / "grid.jpg") as grid:
        assert grid.width > 600
    assert set(read_json(folder / "meta.json")) <= set(read_json(run.split)["valid"])
    rows = read_table(run.validation / "images.csv")
    assert [row["image_id"] for row in rows] == read_json(run.split)["valid"]
    total = sum(float(row["loss_nats"]) for row in rows) / sum(int(row["tokens"]) for row in rows)
    assert total == pytest.approx(read_json(run.validation / "summary.json")["valid_loss"], abs=1e-5)


def test_a_run_can_be_moved_and_used_without_its_data(tiny: Path) -> None:
    run = run_of(tiny)
    images = [Image.open(path).copy() for path in sorted((tiny / "images").iterdir())]
    before = [caption.text for caption in Captioner.load(run.path).caption(images)]
    moved = tiny / "elsewhere" / "moved"
    moved.parent.mkdir()
    run.path.rename(moved)
    for name in ("images", "captions.csv", "experiment.yaml"):
        (tiny / name).rename(tiny / f"gone-{name}")
    assert [caption.text for caption in Captioner.load(moved).caption(images)] == before


def test_vocabulary_and_statistics_come_from_the_training_part_alone(tiny: Path) -> None:
    run = run_of(tiny, "globals.basic_experiment.n_epochs=1")
    valid_id = read_json(run.split)["valid"][0]
    table = tiny / "captions.csv"
    table.write_text(table.read_text().replace(f"{valid_id},a ", f"{valid_id},unheard-of "))
    Image.new("RGB", (40, 30), "#ff00ff").save(tiny / "images" / f"{valid_id}.png")
    again = run_of(tiny, "globals.basic_experiment.n_epochs=1", overwrite=True)
    assert read_json(again.facts) == read_json(run.facts)
    assert "unheard-of" not in json.loads(again.tokenizer.read_text())["tokens"]


CACHED = [
    "inputs.photo.model_config.freeze_pretrained_model=true",
    "inputs.photo.model_config.pretrained_weights=random",
    "inputs.photo.model_config.cache_features=true",
    "inputs.photo.input_type_info.auto_augment=false",
]
VARIANTS = {
    "plain": [],
    "accumulation": ["globals.optimization.gradient_accumulation_steps=2"],
    "average": ["globals.model.ema_decay=0.9"],
    "swa, sgdm": ["globals.model.n_iter_before_swa=4", "globals.optimization.optimizer=sgdm"],
    "adabelief, noise": ["globals.optimization.optimizer=adabelief", "globals.optimization.gradient_noise=0.01"],
    "workers": ["globals.basic_experiment.dataloader_workers=2"],
    "plateau": [
        "globals.lr_schedule.lr_plateau_patience=1",
        "globals.evaluation_checkpoint.sample_interval=1",
        "globals.optimization.lr=0.5",
    ],
    "bf16-mixed": ["globals.accelerator.precision=bf16-mixed"],
    "compiled graphs": [
        "globals.model.compile_model=true",
        *CACHED,
        "outputs.captions.model_config.model_init_config.num_layers=1",
    ],
    "cached features, flips": [*CACHED, "inputs.photo.input_type_info.horizontal_flip=true"],
    "scores of captions": [
        "globals.evaluation_checkpoint.caption_metrics.method=beam",
        "globals.evaluation_checkpoint.best_by=cider_d",
        "globals.evaluation_checkpoint.sample_interval=1",
    ],
    "windows": [
        "outputs.captions.output_type_info.max_length=4",
        "outputs.captions.output_type_info.sampling_strategy_if_longer=uniform",
    ],
    "crops, flips": [
        "inputs.photo.input_type_info.resize_approach=randomcrop",
        "inputs.photo.input_type_info.horizontal_flip=true",
    ],
}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_run_stopped_at_any_step_ends_as_if_it_had_not_been(
    name: str, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # graphs are captured as in earnest, but not compiled: that takes two minutes (and ends to the same bits too)
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    overrides = ["globals.evaluation_checkpoint.checkpoint_interval=1", *VARIANTS[name]]
    whole = run_of(tiny, *overrides, f"globals.basic_experiment.output_folder={tiny / 'whole'}")
    n_steps = newest(whole).step
    real = Trainer._stop_if_asked
    stops = [2, 3, n_steps // 2, n_steps - 1]  # mid-epoch, the epoch's last step, and one short of the end

    def stop(trainer: Trainer) -> None:
        if stops and trainer.state.step >= stops[0]:
            stops.pop(0)
            trainer.stop_signal = signal.SIGTERM
        real(trainer)

    monkeypatch.setattr(Trainer, "_stop_if_asked", stop)
    stopped: RunFolder | None = None
    n_stops = 0
    while stopped is None:
        try:
            stopped = run_of(tiny, *overrides, resume=n_stops > 0)
        except Interrupted as interruption:
            n_stops += 1
            assert interruption.exit_code == 143
    assert n_stops == 4
    assert_same_weights(whole, stopped)
    assert losses(whole) == losses(stopped)
    histories = [read_table(run.history_valid) for run in (whole, stopped)]
    for column in ("valid_loss", "cider_d", "bleu_4", "distinct"):
        assert [row.get(column) for row in histories[0]] == [row.get(column) for row in histories[1]]


def test_accumulated_batches_train_as_one_large_batch(tiny: Path) -> None:
    fixed = [
        "globals.basic_experiment.n_epochs=1",
        "outputs.captions.model_config.position_dropout=0.0",
        "outputs.captions.model_config.model_init_config.dropout=0.0",
    ]
    frozen = [
        "inputs.photo.model_config.freeze_pretrained_model=true",
        "inputs.photo.model_config.pretrained_weights=random",
        "inputs.photo.input_type_info.auto_augment=false",
    ]  # no batch statistics
    small = run_of(
        tiny,
        *fixed,
        *frozen,
        "globals.basic_experiment.batch_size=8",
        "globals.optimization.gradient_accumulation_steps=2",
    )
    large = run_of(
        tiny,
        *fixed,
        *frozen,
        "globals.basic_experiment.batch_size=16",
        f"globals.basic_experiment.output_folder={tiny / 'large'}",
    )
    for one, other in zip(losses(small), losses(large), strict=True):
        assert [float(x) for x in one] == pytest.approx([float(x) for x in other], rel=1e-3, abs=1e-5)


def test_an_existing_run_is_kept_unless_told_otherwise(tiny: Path) -> None:
    run = run_of(tiny, "globals.basic_experiment.n_epochs=1")
    before = newest(run).weights.read_bytes()
    with pytest.raises(RunError, match="exists already"):
        run_of(tiny)
    assert newest(run).weights.read_bytes() == before
    stranger = tiny / "photos"
    stranger.mkdir()
    (stranger / "precious.txt").write_text("x")
    with pytest.raises(RunError, match="not overwritten"):
        run_of(tiny, f"globals.basic_experiment.output_folder={stranger}", overwrite=True)
    assert (stranger / "precious.txt").exists()
    with pytest.raises(RunError, match="nothing to resume"):
        run_of(tiny, f"globals.basic_experiment.output_folder={tiny / 'absent'}", resume=True)


def test_more_epochs_may_be_added_and_other_data_not(tiny: Path) -> None:
    run = run_of(tiny, "globals.basic_experiment.n_epochs=1")
    assert newest(run_of(tiny, "globals.basic_experiment.n_epochs=2", resume=True)).step == 10
    with pytest.raises(RunError, match="cannot be resumed: "):
        run_of(
            tiny,
            "outputs.captions.output_type_info.lowercase=true",
            "outputs.captions.output_type_info.min_freq=12",
            resume=True,
        )
    assert newest(run).step == 10


def test_early_stopping_counts_evaluations_after_its_buffer(tiny: Path) -> None:
    overrides = [
        "globals.optimization.lr=1e-9",
        "globals.optimization.lr_lb=1e-9",
        "globals.basic_experiment.n_epochs=20",
    ]
    overrides += [
        "globals.evaluation_checkpoint.sample_interval=2",
        "globals.training_control.early_stopping_patience=2",
        "outputs.captions.sampling_config.n_eval_inputs=0",
    ]
    stopped = run_of(
        tiny,
        *overrides,
        "globals.optimization.optimizer=sgdm",
        "globals.optimization.gradient_noise=1.0",
        "globals.training_control.early_stopping_buffer=30",
    )
    assert 30 <= newest(stopped).step < 100


def test_a_loss_that_is_not_finite_stops_before_the_weights_change(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = CrossEntropy.prepare, CrossEntropy.loss_sum
    calls = []

    def prepare(objective: CrossEntropy, model: CaptionModel, batch: Batch, **more: Any) -> PackedBatch:
        calls.append(batch.image_ids)
        return real[0](objective, model, batch, **more)

    def poisoned(objective: CrossEntropy, model: CaptionModel, batch: PackedBatch) -> torch.Tensor:
        return real[1](objective, model, batch) * (float("nan") if len(calls) == 3 else 1.0)

    monkeypatch.setattr(CrossEntropy, "prepare", prepare)
    monkeypatch.setattr(CrossEntropy, "loss_sum", poisoned)
    with pytest.raises(ModelError, match=r"step 3: .* not finite"):
        run_of(tiny, "globals.evaluation_checkpoint.sample_interval=2")
    run = RunFolder(tiny / "run")
    assert read_json(run.path / "not_finite.json") == {"step": 3, "image_ids": list(calls[2])}
    assert newest(run).step == 2


def test_frozen_cached_features_train_the_same_as_features_computed_each_step(tiny: Path) -> None:
    overrides = [
        "inputs.photo.model_config.freeze_pretrained_model=true",
        "inputs.photo.model_config.pretrained_weights=random",
        "inputs.photo.input_type_info.auto_augment=false",
    ]
    overrides += ["inputs.photo.input_type_info.horizontal_flip=true"]
    cached = run_of(tiny, *overrides, "inputs.photo.model_config.cache_features=true")
    computed = run_of(tiny, *overrides, f"globals.basic_experiment.output_folder={tiny / 'b'}")
    for one, other in zip(losses(cached), losses(computed), strict=True):
        assert float(one[1]) == pytest.approx(float(other[1]), abs=2e-3)  # features are kept as 16-bit floats


def test_cached_features_say_what_computed_them(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def folders_of(name: str, *, exported: bool) -> set[str]:
        monkeypatch.setattr("img2seq.build.features.accelerate", lambda encoder: exported)
        cache = tiny / name
        for _ in range(2):  # the second run finds them
            overrides = ["freeze_pretrained_model=true", "pretrained_weights=random", "cache_features=true"]
            run_of(
                tiny,
                *(f"inputs.photo.model_config.{override}" for override in overrides),
                "inputs.photo.input_type_info.auto_augment=false",
                "globals.basic_experiment.n_epochs=1",
                f"globals.basic_experiment.cache_folder={cache}",
                overwrite=True,
            )
            monkeypatch.setattr(
                "img2seq.build.features.accelerate", lambda encoder: pytest.fail("nothing is to be computed")
            )
        return {path.name.partition("32x32")[0] for path in cache.iterdir() if path.name.startswith("features-")}

    assert folders_of("a", exported=True) == {"features-onnx-"}
    assert folders_of("b", exported=False) == {"features-"}


def test_the_image_lowers_the_loss_where_it_tells_what_to_say(finished_runs: tuple[Path, Path]) -> None:
    text, image = (read_json(path / "validation/summary.json")["valid_loss"] for path in finished_runs)
    assert image < text - 0.1


def test_pretrained_checkpoints_start_where_the_other_run_ended(tiny: Path, finished_runs: tuple[Path, Path]) -> None:
    source = f"globals.model.pretrained_checkpoint={finished_runs[1]}"
    first = losses(run_of(tiny, source, "globals.basic_experiment.n_epochs=1"))[0]
    fresh = losses(run_of(tiny, "globals.basic_experiment.n_epochs=1", overwrite=True))[0]
    assert float(first[1]) < 0.7 * float(fresh[1])
    with pytest.raises(ModelError, match="found nothing"):
        run_of(tiny, "globals.model.pretrained_checkpoint=nowhere", overwrite=True)


@pytest.mark.parametrize("source", ["pretrained_checkpoint", "pretrained_weights"])
def test_what_a_run_started_from_is_not_needed_to_go_on(
    source: str, tiny: Path, finished_runs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, common = tiny / "start.safetensors", [*CACHED, "inputs.photo.model_config.pretrained_model=true"]
    start = f"{'globals.model' if source == 'pretrained_checkpoint' else 'inputs.photo.model_config'}.{source}={file}"
    if source == "pretrained_checkpoint":
        shutil.copy(newest(RunFolder(finished_runs[1])).weights, file)
        common.remove("inputs.photo.model_config.pretrained_model=true")
    else:
        save_file(timm.create_model("test_resnet", num_classes=0).state_dict(), file)
    whole = run_of(tiny, *common, start, f"globals.basic_experiment.output_folder={tiny / 'whole'}")
    real = Trainer._stop_if_asked

    def stop(trainer: Trainer) -> None:
        trainer.stop_signal = signal.SIGTERM
        real(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_stop_if_asked", stop)
        with pytest.raises(Interrupted):
            run_of(tiny, *common, start)
        file.unlink()
        with pytest.raises(Interrupted):
            run_of(tiny, *common, start, resume=True)
    assert newest(RunFolder(tiny / "run")).step == 2
    # features are computed once more, by the encoder of the checkpoint
    resumed = run_of(tiny, *common, f"globals.basic_experiment.cache_folder={tiny / 'other'}", resume=True)
    assert_same_weights(whole, resumed)
    assert losses(whole) == losses(resumed)


def broken(tiny: Path) -> None:
    (tiny / "images/003.png").write_bytes(b"not an image")
    (tiny / "images/004.png").unlink()
    with (tiny / "captions.csv").open("a") as file:
        file.write("999,no such image .\n001,\n")


def test_all_that_is_wrong_with_the_data_is_listed_before_training(tiny: Path) -> None:
    broken(tiny)
    with pytest.raises(DataError) as caught:
        run_of(tiny)
    message = str(caught.value)
    for part in (
        "1 row(s)",
        "line 51",
        "2 ID(s) with captions have no image",
        "004",
        "999",
        "1 image(s)",
        "003.png",
        "on_bad_data: skip",
    ):
        assert part in message
    assert not (tiny / "run").exists()


def test_what_is_skipped_is_left_out_and_written_down(tiny: Path) -> None:
    broken(tiny)
    skip = "globals.basic_experiment.on_bad_data=skip"
    run = run_of(tiny, skip, "globals.basic_experiment.max_broken_share=0.1")
    ids = {i for side in read_json(run.split).values() for i in side}
    assert ids == {f"{i:03}" for i in range(24)} - {"003", "004"}
    assert "003.png" in run.data_report.read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_real_process_finishes_its_step_saves_and_says_so(tiny: Path, number: signal.Signals) -> None:
    command = ["train", tiny / "experiment.yaml", "--globals.basic_experiment.n_epochs=100000"]
    command += ["--globals.training_control.early_stopping_patience=0"]
    history = tiny / "run/history_valid.csv"
    with child(children.img2seq, command, log=tiny / "err") as process:
        wait_until(lambda: history.exists() and len(history.read_text().splitlines()) > 1, process)
        os.kill(process.pid or 0, number)
        assert exit_code(process) == 128 + number
    text = (tiny / "err").read_text()
    assert "Traceback" not in text
    step = int(text.split("after step ")[1].split(" ")[0])
    assert newest(RunFolder(tiny / "run")).step == step


def test_a_time_budget_stops_by_itself_and_can_be_resumed(tiny: Path) -> None:
    with pytest.raises(Interrupted) as stop:
        run_of(tiny, "globals.basic_experiment.max_time_s=0.01")
    assert stop.value.exit_code == 0
    assert newest(run_of(tiny, resume=True)).step == 10


@pytest.mark.parametrize("tokenizer", ["bpe", "characters"])
def test_other_tokenizers_train_too(tiny: Path, tokenizer: str) -> None:
    override = {
        "bpe": "outputs.captions.output_type_info.tokenizer=bpe",
        "characters": "outputs.captions.output_type_info.split_on=''",
    }[tokenizer]
    run = run_of(tiny, override, "globals.basic_experiment.n_epochs=1")
    assert Captioner.load(run.path).caption(Image.new("RGB", (8, 8)), max_length=5).tokens


def test_manual_inputs_are_captioned_with_their_beginning(tiny: Path) -> None:
    config = tiny_config(tiny)
    config["outputs"][0]["sampling_config"]["manual_inputs"] = [
        {"photo": str(tiny / "images/001.png"), "captions": "there is"}
    ]
    write_yaml(tiny / "experiment.yaml", config)
    run = run_of(tiny, "globals.basic_experiment.n_epochs=1")
    assert (run.path / "samples/5/manual/0_generated.txt").read_text().startswith("there is")


def test_errors_are_all_of_one_family(tmp_path: Path) -> None:
    write_tiny_data(tmp_path)
    write_yaml(tmp_path / "experiment.yaml", tiny_config(tmp_path))
    with pytest.raises(Img2SeqError, match="is not present on this machine"):
        run_of(tmp_path, "globals.basic_experiment.device=cuda:7")


def test_two_image_inputs_share_one_memory(tiny: Path) -> None:
    config = tiny_config(tiny)
    other = tiny_config(tiny)["inputs"][0]
    other["input_info"]["input_name"] = "detail"
    other["input_type_info"]["size"] = [48, 32]
    config["inputs"].append(other)
    config["globals"]["basic_experiment"]["n_epochs"] = 1
    write_yaml(tiny / "experiment.yaml", config)
    run = run_of(tiny)
    with Image.open(run.path / "samples/5/auto/0_inputs/detail.png") as seen:
        assert seen.size == (32, 48)
