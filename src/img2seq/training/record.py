"""What a run writes down while it trains: history, events, curves, samples, and at the end what comparisons need."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from img2seq.build.prepare import Prepared
from img2seq.build.trained import TrainedRun
from img2seq.config.schema import Experiment
from img2seq.model.caption_model import CaptionModel
from img2seq.model.weights import first_line
from img2seq.progress import Announcer
from img2seq.report.curves import draw_learning_rate, draw_losses, read_curve, save_figure
from img2seq.report.gallery import Sample
from img2seq.report.run_state import SCORES, describe_evaluation, describe_fine_tuning
from img2seq.report.verdict import findings, next_commands
from img2seq.run.checkpoint import Checkpoint
from img2seq.run.folder import RunFolder
from img2seq.run.tables import read_history
from img2seq.run.write import write_table
from img2seq.training.finish import write_gallery, write_losses, write_summary
from img2seq.training.loggers import Logger, open_logger
from img2seq.training.phases import TrainingPhase
from img2seq.training.samples import SampleWriter
from img2seq.training.state import TrainState
from img2seq.training.validation import Evaluation, ImageLosses

TRAIN_COLUMNS = ("iteration", "epoch", "loss", "learning_rate", "gradient_norm", "captions_per_s")
VALID_COLUMNS = (
    "iteration",
    "epoch",
    "train_loss",
    "valid_loss",
    "perplexity",
    "learning_rate",
    "captions_per_s",
    "elapsed_s",
)
EVENTS_EVERY = 10  # steps
CURVE_POINTS = 2000  # of the learning rate: a run may have more steps than there is memory


class Recorder:
    """Writes a run's history and pictures."""

    def __init__(self, run: RunFolder, config: Experiment, prepared: Prepared, announce: Announcer, n_steps: int):
        self.run, self.config, self.announce, self.n_steps = run, config, announce, n_steps
        self.image_ids = prepared.valid.image_ids
        self.sample_writer = SampleWriter(run, config, prepared, announce.warn)
        self._train_file: TextIO | None = None
        self._columns: dict[Path, list[str]] = {}
        self._events: Any = None
        self._has_events = True
        self._loggers: dict[str, Logger] = {}
        self.sample_writer.also = self._log_samples
        self._warnings: set[str] = set()

    def begin(self, step: int, rate: Callable[[int], float], *, evaluated: bool = False) -> None:
        """Open the history after `step`: what a stopped run wrote beyond its last checkpoint is taken back."""
        last_evaluation = step if evaluated else step - 1
        options = self.config.globals
        scores = SCORES if options.evaluation_checkpoint.caption_metrics else ()
        rewards = any(phase.objective == "self_critical" for phase in options.phases)
        of_phases = (*(["phase"] if options.phases else []), *(["reward"] if rewards else []))
        for path, columns, last in (
            (self.run.history_train, (*TRAIN_COLUMNS, *of_phases), step),
            (self.run.history_valid, (*VALID_COLUMNS, *scores, *of_phases), last_evaluation),
        ):
            rows = [row for row in read_history(path) if int(row["iteration"]) <= last]
            self._columns[path] = list(dict.fromkeys([*columns, *(rows[0] if rows else [])]))
            write_table(path, self._columns[path], rows)
        self._train_file = self.run.history_train.open("a", encoding="utf-8", newline="")
        for name in dict.fromkeys(options.visualization_logging.loggers):
            with self._warned(f"nothing is sent to {name}"):
                self._loggers[name] = open_logger(name, self.run, self.config)
        if self.config.globals.lr_schedule.plot_lr_schedule and step == 0:
            steps = np.unique(np.linspace(1, self.n_steps, CURVE_POINTS).astype(np.int64)).tolist()
            with self._warned("the learning rate is not drawn"):
                save_figure(draw_learning_rate(steps, [rate(i) for i in steps]), self.run.figures / "learning_rate")

    def step(
        self, state: TrainState, phase: TrainingPhase, measured: float, rate: float, norm: float, captions_per_s: float
    ) -> None:
        """Note one step, with its loss or reward."""
        assert self._train_file is not None
        row = {
            "iteration": state.step,
            "epoch": state.epoch,
            phase.measures: measured,
            "learning_rate": rate,
            "gradient_norm": norm,
            "captions_per_s": captions_per_s,
            "phase": phase.name,
        }
        values = [row.get(name, "") for name in self._columns[self.run.history_train]]
        csv.writer(self._train_file, lineterminator="\n").writerow(values)
        if state.step % EVENTS_EVERY == 0:
            self._event(f"train/{phase.measures}", measured, state.step)
            self._event("train/learning_rate", rate, state.step)
            self._event("train/captions_per_s", captions_per_s, state.step)

    def evaluation(
        self, state: TrainState, phase: TrainingPhase, found: Evaluation, rate: float, *, is_best: bool
    ) -> None:
        """Note an evaluation, of the best weights so far or not."""
        loss = found.loss
        measured = state.train_nats / state.train_tokens if state.train_tokens else None
        speed = state.captions / state.train_time_s if state.train_time_s else 0.0
        row = {
            "iteration": state.step,
            "epoch": state.epoch,
            "train_loss" if phase.measures == "loss" else "reward": measured,
            "valid_loss": loss,
            "perplexity": math.exp(min(loss, 50)),
            "learning_rate": rate,
            "captions_per_s": speed,
            "elapsed_s": state.elapsed_s,
            **found.scores,
            **({"phase": phase.name} if phase.name else {}),
        }
        with self.run.history_valid.open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, self._columns[self.run.history_valid], lineterminator="\n").writerow(row)
        self._event("valid/loss", loss, state.step)
        self._event("valid/perplexity", math.exp(min(loss, 50)), state.step)
        for name, score in found.scores.items():
            self._event(f"valid/{name}", score, state.step)
        self.flush()
        best = " (best so far)" if is_best else ""
        name = "training loss" if phase.measures == "loss" else "reward"
        shown = "" if measured is None else f"{name} {measured:.4f}, "
        worth = describe_evaluation(found.to_json(), best, best_by=found.best_by)
        self.announce.say(f"step {state.step}/{self.n_steps}: {shown}{worth}, {speed:.0f} captions/s")

    def draw(self, step: int, model: CaptionModel) -> None:
        """Draw the curves, and write sampled captions where the run keeps them. What cannot be done is a warning."""
        with self._warned("the training curves are not drawn"):
            self._draw_curves(["png"])
        if self.keeps_samples:
            with self._warned("samples are not complete"):
                self.sample_writer.write(step, model)

    @property
    def keeps_samples(self) -> bool:
        return self.config.globals.evaluation_checkpoint.saved_result_detail_level == 5

    def has_samples(self, step: int) -> bool:
        """Return whether nothing is left to write of the samples of a step."""
        return not self.keeps_samples or self.sample_writer.is_written(step)

    @contextmanager
    def _warned(self, what: str) -> Iterator[None]:
        """Turn whatever goes wrong with a picture into a warning, once: training does not end for one."""
        try:
            yield
        except Exception as error:
            if (text := f"{what}: {first_line(error)}") not in self._warnings:
                self.announce.warn(text)
            self._warnings.add(text)

    def _draw_curves(self, formats: list[str]) -> None:
        skip = self.config.globals.visualization_logging.plot_skip_steps
        figure = draw_losses([read_curve(self.run)], title=self.run.name, skip_steps=skip)
        save_figure(figure, self.run.figures / "training_curve_LOSS", formats=formats)

    def _to_loggers(self, send: Callable[[Logger], None]) -> None:
        """Tell all that follow the run; who fails is told nothing any more."""
        for name, logger in list(self._loggers.items()):
            del self._loggers[name]
            with self._warned(f"nothing more is sent to {name}"):
                send(logger)
                self._loggers[name] = logger

    def _log_samples(self, samples: Sequence[Sample], step: int) -> None:
        self._to_loggers(lambda logger: logger.captions(samples, step))

    def _event(self, name: str, value: float, step: int) -> None:
        self._to_loggers(lambda logger: logger.scalar(name, value, step))
        if not self._has_events:
            return
        self._has_events = False  # where one cannot be written, none is tried again
        with self._warned("no more events for TensorBoard"):
            if self._events is None:
                from tensorboardX import SummaryWriter

                self._events = SummaryWriter(str(self.run.tensorboard), purge_step=step)
            self._events.add_scalar(name, value, step)
            self._has_events = True

    def flush(self) -> None:
        """Hand what was noted to the system."""
        if self._train_file is not None:
            self._train_file.flush()
        if self._events is not None:
            with self._warned("no more events for TensorBoard"):
                self._events.flush()

    def finish(self, state: TrainState, best: TrainedRun, losses: dict[str, ImageLosses]) -> None:
        """Write what `img2seq compare` needs, of the best checkpoint."""
        self.flush()
        with self._warned("the training curves are not drawn"):
            self._draw_curves(["png", "pdf"])
        write_losses(self.run, self.image_ids, losses)
        write_gallery(self.sample_writer, best.model)
        by = self.config.globals.evaluation_checkpoint.best_by
        write_summary(self.run, state, best, self.sample_writer.training_captions(), best_by=by)
        self.announce.say(
            f"{self._describe_best(best.checkpoint)}, at step {best.checkpoint.step}; the run is in {self.run.path}"
        )
        with self._warned("what comes next is not known"):
            if gained := describe_fine_tuning(read_history(self.run.history_valid), by):
                self.announce.say(f"fine-tuning: {gained}")
            for finding in findings(self.run.path):
                self.announce.say(finding)
            self.announce.say("\n  ".join(["next:", *next_commands(self.run.path)]))

    def _describe_best(self, checkpoint: Checkpoint) -> str:
        by = self.config.globals.evaluation_checkpoint.best_by
        if by == "loss":
            return f"best validation loss {checkpoint.valid_loss:.4f} nats per token"
        return f"best {describe_evaluation(checkpoint.state(), best_by=by)}"

    def close(self) -> None:
        """Flush and close all files."""
        self._to_loggers(lambda logger: logger.close())
        self._loggers.clear()
        if self._train_file is not None:
            self._train_file.close()
            self._train_file = None
        if self._events is not None:
            with self._warned("no more events for TensorBoard"):
                self._events.close()
            self._events = None


class NoRecorder(Recorder):
    """What the other processes of a run have in its place: nothing is written."""

    def begin(self, step: int, rate: Callable[[int], float], *, evaluated: bool = False) -> None:
        """Do nothing."""

    def step(
        self, state: TrainState, phase: TrainingPhase, measured: float, rate: float, norm: float, captions_per_s: float
    ) -> None:
        """Do nothing."""

    def evaluation(
        self, state: TrainState, phase: TrainingPhase, found: Evaluation, rate: float, *, is_best: bool
    ) -> None:
        """Do nothing."""

    def draw(self, step: int, model: CaptionModel) -> None:
        """Do nothing."""

    def finish(self, state: TrainState, best: TrainedRun, losses: dict[str, ImageLosses]) -> None:
        """Do nothing."""
