"""Weights & Biases and MLflow, offline: figures and captions with pictures reach them, once; a failure costs a warning."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import pytest
from test_loop import newest, run_of

from img2seq.config.schema import Experiment
from img2seq.errors import Img2SeqError
from img2seq.report.gallery import Sample
from img2seq.run.folder import RunFolder, read_json
from img2seq.run.tables import read_table
from img2seq.training import loggers

MLFLOW, WANDB = ("globals.visualization_logging.loggers=[" + name + "]" for name in ("mlflow", "wandb"))
SCORES = "globals.evaluation_checkpoint.caption_metrics.method=greedy"
needs_mlflow, needs_wandb = (
    pytest.mark.skipif(importlib.util.find_spec(name) is None, reason="needs img2seq[loggers]")
    for name in ("mlflow", "wandb")
)


class Notes:
    """A logger that keeps what it is told."""

    def __init__(self, run: RunFolder, config: Experiment, run_id: str | None):
        self.run_id = run_id or "first"
        self.scalars: dict[str, dict[int, float]] = {}
        self.samples: dict[int, Sequence[Sample]] = {}
        self.closed = 0

    def scalar(self, name: str, value: float, step: int) -> None:
        self.scalars.setdefault(name, {})[step] = value

    def captions(self, samples: Sequence[Sample], step: int) -> None:
        self.samples[step] = samples

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Notes]:
    """Return the loggers that are made in place of MLflow."""
    found: list[Notes] = []

    def make(run: RunFolder, config: Experiment, run_id: str | None) -> Notes:
        found.append(Notes(run, config, run_id))
        return found[-1]

    monkeypatch.setitem(loggers.LOGGERS, "mlflow", make)
    monkeypatch.setattr("img2seq.build.check.require", lambda *a, **k: None)
    return found


def test_a_logger_gets_figures_and_captions_with_their_pictures(tiny: Path, made: list[Notes]) -> None:
    run = run_of(tiny, MLFLOW, SCORES)
    (notes,) = made
    for row in read_table(run.history_valid):
        step = int(row["iteration"])
        assert notes.scalars["valid/loss"][step] == float(row["valid_loss"])
        assert notes.scalars["valid/cider_d"][step] == float(row["cider_d"])
        samples = notes.samples[step]
        texts = [(run.path / f"samples/{step}/auto/{n}_generated.txt").read_text() for n in range(3)]
        assert [sample.generated for sample in samples] == texts
        assert all(sample.picture is not None for sample in samples)
    assert 10 in notes.scalars["train/loss"]
    assert notes.closed == 1


def test_a_resumed_run_continues_what_it_began(tiny: Path, made: list[Notes]) -> None:
    run_of(tiny, MLFLOW, "globals.basic_experiment.n_epochs=1")
    run = run_of(tiny, MLFLOW, "globals.basic_experiment.n_epochs=2", resume=True)
    assert [notes.run_id for notes in made] == ["first", "first"]
    assert read_json(run.path / "loggers.json") == {"mlflow": "first"}
    assert min(made[1].scalars["valid/loss"]) == 10


@pytest.mark.parametrize("when", ["__init__", "scalar", "captions", "close"])
def test_a_logger_that_fails_costs_a_warning(
    tiny: Path, made: list[Notes], when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(Notes, when, fail)
    run = run_of(tiny, MLFLOW)
    assert newest(run).step == 10
    (line,) = [line for line in run.log.read_text().splitlines() if "no route to host" in line]
    assert "mlflow" in line


def test_a_package_that_is_missing_is_said_before_anything_is_read(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("img2seq.extras.find_spec", lambda name: None)
    with pytest.raises(Img2SeqError, match=r"needs wandb: pip install \"img2seq\[loggers\]\""):
        run_of(tiny, WANDB)
    assert not (tiny / "run").exists()


@pytest.mark.filterwarnings("ignore")  # of its libraries
@needs_mlflow
def test_mlflow_has_the_run_in_its_folder(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run_of(tiny, MLFLOW, SCORES, "globals.basic_experiment.n_epochs=1")
    run = run_of(tiny, MLFLOW, SCORES, resume=True)
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{run.path / 'mlflow.db'}")
    run_id = read_json(run.path / "loggers.json")["mlflow"]
    for column, name in (("valid_loss", "valid/loss"), ("cider_d", "valid/cider_d")):
        expected = [(int(row["iteration"]), float(row[column])) for row in read_table(run.history_valid)]
        assert [(m.step, m.value) for m in client.get_metric_history(run_id, name)] == expected
    found = client.get_run(run_id)
    assert found.data.params["globals.optimization.lr"] == "0.003"
    assert found.info.status == "FINISHED"
    names = {Path(entry.path).name for entry in client.list_artifacts(run_id, "samples/10")}
    assert names == {"0.png", "1.png", "2.png", "captions.json"}


@pytest.mark.filterwarnings("ignore")  # of its libraries
@needs_wandb
def test_wandb_keeps_the_run_for_later_where_it_is_offline(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = run_of(tiny, WANDB, SCORES)
    (folder,) = (run.path / "wandb").glob("offline-run-*")
    assert folder.name.endswith(read_json(run.path / "loggers.json")["wandb"])
    assert len(list((folder / "files/media/images").glob("samples_*.png"))) == 6  # three an evaluation
    assert next(folder.glob("run-*.wandb")).stat().st_size > 0
