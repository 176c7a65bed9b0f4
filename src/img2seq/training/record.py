"""What a run writes down while it trains: history, events, curves, samples, and at the end what comparisons need."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from typing import Any, TextIO

from img2seq.build.prepare import Prepared
from img2seq.build.trained import TrainedRun
from img2seq.config.schema import Experiment
from img2seq.model.caption_model import CaptionModel
from img2seq.progress import Announcer
from img2seq.report.curves import draw_learning_rate, draw_losses, read_curve, save_figure
from img2seq.run.folder import RunFolder
from img2seq.run.tables import read_history
from img2seq.run.write import write_table
from img2seq.training.finish import write_gallery, write_losses, write_summary
from img2seq.training.samples import SampleWriter
from img2seq.training.state import TrainState
from img2seq.training.validation import ImageLosses

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


class Recorder:
    """Writes a run's history and pictures."""

    def __init__(self, run: RunFolder, config: Experiment, prepared: Prepared, announce: Announcer, n_steps: int):
        self.run, self.config, self.announce, self.n_steps = run, config, announce, n_steps
        self.image_ids, self.sample_writer = prepared.valid.image_ids, SampleWriter(run, config, prepared)
        self._train_file: TextIO | None = None
        self._events: Any = None

    def begin(self, step: int, rate: Callable[[int], float], *, evaluated: bool = False) -> None:
        """Open the history after `step`: what a stopped run wrote beyond its last checkpoint is taken back."""
        last_evaluation = step if evaluated else step - 1
        for path, columns, last in (
            (self.run.history_train, TRAIN_COLUMNS, step),
            (self.run.history_valid, VALID_COLUMNS, last_evaluation),
        ):
            write_table(path, columns, [row for row in read_history(path) if int(row["iteration"]) <= last])
        self._train_file = self.run.history_train.open("a", encoding="utf-8", newline="")
        if self.config.globals.lr_schedule.plot_lr_schedule and step == 0:
            figure = draw_learning_rate([rate(i) for i in range(1, self.n_steps + 1)])
            save_figure(figure, self.run.figures / "learning_rate")

    def step(self, state: TrainState, loss: float, rate: float, norm: float, captions_per_s: float) -> None:
        """Note one step."""
        assert self._train_file is not None
        row = (state.step, state.epoch, loss, rate, norm, captions_per_s)
        csv.writer(self._train_file, lineterminator="\n").writerow(row)
        if state.step % EVENTS_EVERY == 0:
            self._event("train/loss", loss, state.step)
            self._event("train/learning_rate", rate, state.step)
            self._event("train/captions_per_s", captions_per_s, state.step)

    def evaluation(self, state: TrainState, loss: float, rate: float) -> None:
        """Note an evaluation, and draw the curves anew."""
        train_loss = state.train_nats / state.train_tokens if state.train_tokens else None
        speed = state.captions / state.train_time_s if state.train_time_s else 0.0
        row = {
            "iteration": state.step,
            "epoch": state.epoch,
            "train_loss": train_loss,
            "valid_loss": loss,
            "perplexity": math.exp(min(loss, 50)),
            "learning_rate": rate,
            "captions_per_s": speed,
            "elapsed_s": state.elapsed_s,
        }
        with self.run.history_valid.open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, VALID_COLUMNS, lineterminator="\n").writerow(row)
        self._event("valid/loss", loss, state.step)
        self._event("valid/perplexity", math.exp(min(loss, 50)), state.step)
        self.flush()
        best = " (best so far)" if state.best_loss is None or loss < state.best_loss else ""
        shown = "" if train_loss is None else f"training loss {train_loss:.4f}, "
        self.announce.say(
            f"step {state.step}/{self.n_steps}: {shown}validation loss {loss:.4f}{best}, {speed:.0f} captions/s"
        )
        self._draw_curves(["png"])

    def _draw_curves(self, formats: list[str]) -> None:
        skip = self.config.globals.visualization_logging.plot_skip_steps
        figure = draw_losses([read_curve(self.run)], title=self.run.name, skip_steps=skip)
        save_figure(figure, self.run.figures / "training_curve_LOSS", formats=formats)

    def _event(self, name: str, value: float, step: int) -> None:
        if self._events is None:
            from tensorboardX import SummaryWriter

            self._events = SummaryWriter(str(self.run.tensorboard), purge_step=step)
        self._events.add_scalar(name, value, step)

    def flush(self) -> None:
        """Hand what was noted to the system."""
        if self._train_file is not None:
            self._train_file.flush()
        if self._events is not None:
            self._events.flush()

    def samples(self, step: int, model: CaptionModel) -> None:
        """Write sampled captions, where the run keeps them."""
        if self.config.globals.evaluation_checkpoint.saved_result_detail_level == 5:
            self.sample_writer.write(step, model)

    def finish(self, state: TrainState, best: TrainedRun, losses: dict[str, ImageLosses]) -> None:
        """Write what `img2seq compare` needs, of the best checkpoint."""
        self.flush()
        self._draw_curves(["png", "pdf"])
        write_losses(self.run, self.image_ids, losses)
        write_gallery(self.sample_writer, best.model)
        write_summary(self.run, state, best)
        self.announce.say(
            f"best validation loss {best.checkpoint.valid_loss:.4f} nats per token, at step {best.checkpoint.step}; the run is in {self.run.path}"
        )

    def close(self) -> None:
        """Flush and close all files."""
        if self._train_file is not None:
            self._train_file.close()
            self._train_file = None
        if self._events is not None:
            self._events.close()
            self._events = None


class NoRecorder(Recorder):
    """What the other processes of a run have in its place: nothing is written."""

    def begin(self, step: int, rate: Callable[[int], float], *, evaluated: bool = False) -> None:
        """Do nothing."""

    def step(self, state: TrainState, loss: float, rate: float, norm: float, captions_per_s: float) -> None:
        """Do nothing."""

    def evaluation(self, state: TrainState, loss: float, rate: float) -> None:
        """Do nothing."""

    def samples(self, step: int, model: CaptionModel) -> None:
        """Do nothing."""

    def finish(self, state: TrainState, best: TrainedRun, losses: dict[str, ImageLosses]) -> None:
        """Do nothing."""
