"""Programs that runs are followed with, beside TensorBoard: Weights & Biases and MLflow, where the configuration names them.

Each gets the figures that TensorBoard gets, and at every evaluation the sampled captions with their pictures. A resumed run continues
what it began there: its ids are in loggers.json. Where they write is theirs to say: WANDB_MODE=offline and MLFLOW_TRACKING_URI; by
default MLflow writes into the run folder.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from img2seq.config.schema import Experiment
from img2seq.config.show import to_flat, to_plain
from img2seq.report.gallery import Sample
from img2seq.run.folder import RunFolder, read_json
from img2seq.run.write import write_json

PROJECT = "img2seq"
LONGEST_PARAMETER = 500  # characters that MLflow takes


class Logger(Protocol):
    """What follows a run.

    Attributes:
        run_id: what the other program calls it.
    """

    run_id: str

    def scalar(self, name: str, value: float, step: int) -> None:
        """Note a figure of a step."""

    def captions(self, samples: Sequence[Sample], step: int) -> None:
        """Note sampled captions with their pictures."""

    def close(self) -> None:
        """Hand over what is left."""


class WandbLogger:
    """Weights & Biases."""

    def __init__(self, run: RunFolder, config: Experiment, run_id: str | None):
        import wandb

        self._wandb = wandb
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=run.name,
            id=run_id,
            resume="allow",
            dir=str(run.path),
            config=to_plain(config),
            settings=wandb.Settings(silent=True, console="off"),
        )
        self.run_id = str(self._run.id)
        self._run.define_metric("*", step_metric="step")  # its own only rises: a resumed run may go back

    def scalar(self, name: str, value: float, step: int) -> None:
        """See `Logger`."""
        self._run.log({name: value, "step": step})

    def captions(self, samples: Sequence[Sample], step: int) -> None:
        """See `Logger`."""
        images = [self._wandb.Image(s.picture, caption=s.generated) for s in samples if s.picture is not None]
        self._run.log({"samples": images, "step": step})

    def close(self) -> None:
        """See `Logger`."""
        self._run.finish()


class MlflowLogger:
    """MLflow, through its client: nothing of the process is changed."""

    def __init__(self, run: RunFolder, config: Experiment, run_id: str | None):
        from mlflow import MlflowClient

        own = run.path.resolve()
        place = os.environ.get("MLFLOW_TRACKING_URI")
        self._client: Any = MlflowClient(place or f"sqlite:///{own / 'mlflow.db'}")
        if run_id is None:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
            found, pictures = self._client.get_experiment_by_name(name), None if place else (own / "mlflow").as_uri()
            experiment = (
                found.experiment_id
                if found is not None
                else self._client.create_experiment(name, artifact_location=pictures)
            )
            run_id = self._client.create_run(experiment, run_name=run.name).info.run_id
            for key, value in to_flat(config).items():
                self._client.log_param(run_id, key, value[:LONGEST_PARAMETER])
        self.run_id = str(run_id)

    def scalar(self, name: str, value: float, step: int) -> None:
        """See `Logger`."""
        self._client.log_metric(self.run_id, name, value, step=step)

    def captions(self, samples: Sequence[Sample], step: int) -> None:
        """See `Logger`."""
        texts = {}
        for place, sample in enumerate(samples):
            if sample.picture is not None:
                self._client.log_image(self.run_id, sample.picture, f"samples/{step}/{place}.png")
            texts[sample.image_id] = sample.generated
        self._client.log_dict(self.run_id, texts, f"samples/{step}/captions.json")

    def close(self) -> None:
        """See `Logger`."""
        self._client.set_terminated(self.run_id)


LOGGERS: dict[str, Callable[[RunFolder, Experiment, str | None], Logger]] = {
    "wandb": WandbLogger,
    "mlflow": MlflowLogger,
}


def open_logger(name: str, run: RunFolder, config: Experiment) -> Logger:
    """Begin to follow a run, or continue."""
    path = run.path / "loggers.json"
    ids: Mapping[str, str] = read_json(path) if path.is_file() else {}
    logger = LOGGERS[name](run, config, ids.get(name))
    if ids.get(name) != logger.run_id:
        write_json(path, {**ids, name: logger.run_id})
    return logger
