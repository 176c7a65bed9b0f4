"""Phases: what each one trains and sees, that a run may stop anywhere in them, and what they leave behind."""

from __future__ import annotations

import contextlib
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_loop import CACHED, assert_same_weights, newest, run_of

from conftest import img2seq, minimal_config, tiny_config, write_yaml
from img2seq.config.load import load_config
from img2seq.errors import ConfigError, RunError
from img2seq.report.curves import read_curve
from img2seq.report.run_state import describe_run
from img2seq.run.checkpoint import Checkpoint, all_checkpoints
from img2seq.run.folder import RunFolder, read_json
from img2seq.run.tables import read_table
from img2seq.run.write import write_json
from img2seq.training.interruption import Interrupted
from img2seq.training.loop import Trainer
from img2seq.training.phases import phase_of, phases_of

DECODER = {"name": "decoder", "n_epochs": 1}
ENCODER = {"name": "encoder", "n_epochs": 1, "lr": 0.002, "lr_schedule": "same", "encoder_stages": 2}
CRITICAL: dict[str, Any] = {
    "name": "critical", "n_epochs": 1, "objective": "self_critical", "batch_size": 20, "lr": 0.001, "encoder_stages": 0
}  # fmt: skip
KEEP_ALL = "globals.evaluation_checkpoint.n_saved_models=9"


def phased(tiny: Path, *phases: dict[str, Any], **of_globals: Any) -> Path:
    """Write the tiny configuration with these phases."""
    config = tiny_config(tiny)
    config["globals"] |= {"phases": list(phases), **of_globals}
    write_yaml(tiny / "experiment.yaml", config)
    return tiny


def weights(run: RunFolder, step: int) -> dict[str, torch.Tensor]:
    return load_file(run.checkpoints / f"step-{step:08d}" / "weights.safetensors")


def changed(run: RunFolder, before: int, after: int) -> set[str]:
    """Return the tensors that differ between two steps, by their first parts."""
    one, other = weights(run, before), weights(run, after)
    return {name for name in one if not torch.equal(one[name], other[name])}


def test_each_phase_trains_its_own_part(tiny: Path) -> None:
    run = run_of(phased(tiny, DECODER, ENCODER, CRITICAL), *CACHED, KEEP_ALL)
    assert [c.step for c in all_checkpoints(run.checkpoints)] == [5, 10, 15]
    of_encoder = changed(run, 5, 10)
    backbone = {name for name in of_encoder if name.startswith("encoders.photo.backbone")}
    assert {name.split(".")[3] for name in backbone} == {"layer3", "layer4"}
    assert not [name for name in backbone if "running" in name or "num_batches" in name]
    assert {name for name in of_encoder if name.startswith("decoder")}
    assert not [name for name in changed(run, 10, 15) if name.startswith("encoders")]
    rows = read_table(run.history_train)
    assert [row["phase"] for row in rows] == ["decoder"] * 5 + ["encoder"] * 5 + ["critical"] * 5
    assert [bool(row["loss"]) for row in rows] == [True] * 10 + [False] * 5
    assert [bool(row["reward"]) for row in rows] == [False] * 10 + [True] * 5
    assert {float(row["learning_rate"]) for row in rows[5:10]} == {0.002}
    assert [row["phase"] for row in read_table(run.history_valid)] == ["decoder", "encoder", "critical"]
    curve = read_curve(run)
    assert list(curve.phases) == [("decoder", 1), ("encoder", 6), ("critical", 11)]
    assert len(curve.rewards) == 5
    assert "STANDARD_wInit+Cider-D[n4,s6.0]+average[nspi5]" in run.log.read_text()


def test_the_losses_of_the_end_are_those_of_the_best_weights(tiny: Path) -> None:
    """Whichever phase they are of: features that another phase has cached are not theirs."""
    run = run_of(phased(tiny, DECODER, {**ENCODER, "lr": 0.02}, {**CRITICAL, "lr": 0.5}), *CACHED)
    summary = read_json(run.validation / "summary.json")
    rows = read_table(run.validation / "images.csv")
    total = sum(float(row["loss_nats"]) for row in rows) / sum(int(row["tokens"]) for row in rows)
    assert total == pytest.approx(summary["valid_loss"], abs=2e-3)


def test_a_phase_begins_with_the_best_weights_and_its_own_optimizer(tiny: Path) -> None:
    spoiled = {"name": "spoiled", "n_epochs": 1, "lr": 3.0, "lr_schedule": "same"}
    still = {"name": "still", "n_epochs": 1, "lr": 1e-12, "lr_lb": 1e-12, "lr_schedule": "same"}
    run = run_of(phased(tiny, DECODER, spoiled, still), *CACHED, KEEP_ALL, "globals.optimization.wd=0.0")
    first, second, third = (float(row["valid_loss"]) for row in read_table(run.history_valid))
    assert second > first + 0.5, "the second phase must do harm, or this shows nothing"
    assert third == pytest.approx(first, abs=1e-3)
    tensors = load_file(newest(run).training)
    assert {float(t) for name, t in tensors.items() if name.endswith(".step")} == {5.0}


def test_the_planned_learning_rate_is_the_one_that_is_taken(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[list[int], list[float]]] = []

    def draw(steps: list[int], rates: list[float]) -> None:
        drawn.append((steps, rates))

    monkeypatch.setattr("img2seq.training.record.draw_learning_rate", draw)
    schedule = {"lr_schedule": "cosine", "warmup_steps": 2, "plot_lr_schedule": True}
    run = run_of(phased(tiny, {**DECODER, "n_epochs": 2}, {**CRITICAL, "lr": 0.01}, lr_schedule=schedule))
    ((steps, rates),) = drawn
    rows = read_table(run.history_train)
    assert steps == [int(row["iteration"]) for row in rows] == list(range(1, 16))
    assert rates == [float(row["learning_rate"]) for row in rows]
    assert max(rates[10:]) == 0.01


STOPPED = {
    "cached features, encoder, self-critical": (
        [DECODER, ENCODER, CRITICAL],
        [*CACHED, "globals.evaluation_checkpoint.caption_metrics.method=greedy", "globals.evaluation_checkpoint.best_by=cider_d"],
    ),
    "greedy baseline, cross-entropy, dropout, average, accumulation": (
        [DECODER, CRITICAL],
        [
            "globals.self_critical.baseline=greedy",
            "globals.self_critical.cross_entropy_weight=0.2",
            "globals.self_critical.dropout=true",
            "globals.model.ema_decay=0.9",
            "globals.optimization.gradient_accumulation_steps=2",
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STOPPED)
def test_a_run_stopped_in_any_phase_ends_as_if_it_had_not_been(
    name: str, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phases, overrides = STOPPED[name]
    phased(tiny, *phases)
    whole = run_of(tiny, *overrides, f"globals.basic_experiment.output_folder={tiny / 'whole'}")
    n_steps = newest(whole).step
    borders = [int(row["iteration"]) for row in read_table(whole.history_valid)]
    stops = sorted({2, *borders[:-1], *(border + 1 for border in borders[:-1]), n_steps - 1})
    real = Trainer._stop_if_asked

    def stop(trainer: Trainer) -> None:
        if stops and trainer.state.step >= stops[0]:
            stops.pop(0)
            trainer.stop_signal = signal.SIGTERM
        real(trainer)

    monkeypatch.setattr(Trainer, "_stop_if_asked", stop)
    stopped: RunFolder | None = None
    while stopped is None:
        with contextlib.suppress(Interrupted):
            stopped = run_of(tiny, *overrides, resume=(tiny / "run").exists())
    assert not stops
    assert_same_weights(whole, stopped)
    for table in ("history_train", "history_valid"):
        one, other = (read_table(getattr(run, table)) for run in (whole, stopped))
        for column in set(one[0]) - {"captions_per_s", "elapsed_s"}:
            assert [row[column] for row in one] == [row[column] for row in other], (table, column)


def test_a_phase_stopped_early_makes_room_for_the_next(tiny: Path) -> None:
    still = {"name": "still", "n_epochs": 9, "lr": 1e-12, "lr_lb": 1e-12, "early_stopping_patience": 2}
    run = run_of(phased(tiny, still, CRITICAL), "globals.evaluation_checkpoint.sample_interval=2")
    phases = [row["phase"] for row in read_table(run.history_train)]
    assert phases.count("critical") == 5
    assert 4 <= phases.count("still") < 45
    assert newest(run).step == len(phases)


def test_without_phases_nothing_is_named(tiny: Path) -> None:
    run = run_of(tiny, "globals.basic_experiment.n_epochs=1")
    for table in (run.history_train, run.history_valid):
        assert {"phase", "reward"}.isdisjoint(read_table(table)[0])
    assert newest(run).state()["position"]["phase"] == 0


def test_a_phase_overrides_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    config = minimal_config()
    config["globals"] |= {
        "optimization": {"lr": 0.01, "wd": 0.5},
        "phases": [DECODER, {**ENCODER, "auto_augment": False, "label_smoothing": 0.2, "early_stopping_patience": 3}],
    }
    found = phases_of(load_config(write_yaml(tmp_path / "e.yaml", config)))
    first, second = (phase.settings for phase in found)
    assert (first.optimization.lr, first.basic_experiment.n_epochs) == (0.01, 1)
    assert (second.optimization.lr, second.optimization.wd, second.optimization.label_smoothing) == (0.002, 0.5, 0.2)
    assert second.training_control.early_stopping_patience == 3
    assert first.training_control.early_stopping_patience == 10
    assert [phase.inputs[0].input_type_info.auto_augment for phase in found] == [True, False]


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ([DECODER, {**DECODER, "n_epochs": 2}], "different names"),
        ([{**DECODER, "lr": 1e-4, "lr_lb": 1e-3}], "phases: decoder: lr_lb: expected at most lr"),
        ([{**DECODER, "lr": 1e-4}], r"lr_lb: expected at most lr \(0.0001\), found 0.0002; give this phase an lr_lb$"),
        ([{**DECODER, "objectiv": "self_critical"}], "Did you mean 'objective'"),
        ([{**DECODER, "objective": "cider"}], "expected cross_entropy or self_critical|one of"),
        ([{"name": "decoder"}], "n_epochs: required"),
    ],
)
def test_wrong_phases_are_one_error(tmp_path: Path, phases: list[dict[str, Any]], message: str) -> None:
    config = minimal_config()
    config["globals"] |= {"phases": phases, "optimization": {"lr_lb": 2e-4}}
    with pytest.raises(ConfigError, match=message):
        load_config(write_yaml(tmp_path / "e.yaml", config))


def test_what_cannot_be_combined_is_refused(tmp_path: Path) -> None:
    config = minimal_config()
    config["globals"] |= {"phases": [CRITICAL], "accelerator": {"strategy": "fsdp"}}
    with pytest.raises(ConfigError, match="strategy auto or ddp"):
        load_config(write_yaml(tmp_path / "e.yaml", config))
    config["globals"] |= {"accelerator": {}, "self_critical": {"n_samples": 1}}
    with pytest.raises(ConfigError, match="n_samples: expected 2 or more"):
        load_config(write_yaml(tmp_path / "e.yaml", config))


def test_an_encoder_has_no_more_stages_than_it_has(tiny: Path) -> None:
    with pytest.raises(ConfigError, match=r"encoder_stages: expected 0 to 5 for inputs\.photo, found 9"):
        run_of(phased(tiny, {**ENCODER, "encoder_stages": 9}))
    assert not (tiny / "run").exists()


def test_a_checkpoint_of_a_phase_that_is_not_there_is_refused(tiny: Path) -> None:
    run = run_of(phased(tiny, DECODER))
    path = newest(run).path
    state = read_json(path / "state.json")
    write_json(path / "state.json", state | {"position": state["position"] | {"phase": 4}})
    with pytest.raises(RunError, match="phase 5 of 1"):
        phase_of(Checkpoint(path), phases_of(load_config(run.config)))


def test_the_state_of_a_run_names_its_phase(tiny: Path) -> None:
    run = run_of(phased(tiny, DECODER, CRITICAL))
    shutil.rmtree(run.validation)
    assert "step 10 of 10 (100%)" in describe_run(run.path)
    assert ", phase critical" in describe_run(run.path)
    shutil.rmtree(run.checkpoints)  # killed before the first one
    assert "epoch 1 of 2, phase decoder" in describe_run(run.path)


def test_a_run_in_phases_captions_and_evaluates(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(phased(tiny, DECODER, ENCODER, CRITICAL), *CACHED)
    assert img2seq("evaluate", run.path) == 0
    metrics = read_json(run.path / "evaluation/metrics.json")
    assert metrics["loss"] == pytest.approx(read_json(run.validation / "summary.json")["valid_loss"], abs=2e-3)
    assert img2seq("runs", "show", run.path) == 0
    assert "finished" in capsys.readouterr().out
