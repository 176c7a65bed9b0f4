"""Train a model, from configuration to a complete run folder. Reads top to bottom.

The position in training is two integers, and all randomness is a function of the seed and that position: the order of
captions (data/order.py), augmentation (data/caption_set.py) and dropout (seeded anew each step, here). A resumed run
therefore needs no generator's state to go on exactly as it would have.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from types import FrameType

import torch
from torch.optim import Optimizer

from img2seq import checkpoints
from img2seq.assemble import Prepared, prepare
from img2seq.config.load import LoadedConfig, describe, to_yaml
from img2seq.config.schema import Experiment
from img2seq.data.batch import Batch
from img2seq.data.order import Plan, training_plan
from img2seq.data.seeds import seed_of
from img2seq.errors import ModelError, RunError
from img2seq.model.captioner import CaptionModel
from img2seq.progress import Announcer
from img2seq.run_lock import locked
from img2seq.runs import RunFolder, write_json, write_text
from img2seq.training.average import WeightAverage
from img2seq.training.environment import environment
from img2seq.training.memory import keep_freed_memory
from img2seq.training.optimizer import build_optimizer
from img2seq.training.record import Recorder
from img2seq.training.resume import (
    DISK_ERRORS,
    check_same_data_and_model,
    checkpoint_to_go_on_from,
    clear,
    refuse_what_is_no_run,
)
from img2seq.training.saver import Saver
from img2seq.training.schedule import learning_rate
from img2seq.training.state import TrainState, restore, training_tensors
from img2seq.training.validate import image_losses


class Interrupted(Exception):
    """Training was asked to stop; the step was finished and all was saved."""

    def __init__(self, exit_code: int, message: str):
        super().__init__(message)
        self.exit_code = exit_code


def train(loaded: LoadedConfig, *, resume: bool = False, overwrite: bool = False) -> RunFolder:
    """Train as configured, or go on with an interrupted run.

    Raises:
        Img2SeqError: for anything wrong with configuration, data, model or run folder, before training starts.
        Interrupted: after Ctrl-C, SIGTERM or `max_time_s`, when the step is finished and all is saved.
    """
    run = RunFolder(loaded.experiment.globals.basic_experiment.output_folder)
    started = time.monotonic()
    keep_freed_memory()
    refuse_what_is_no_run(run, resume=resume)
    with locked(run, lambda text: print(f"warning: {text}", file=sys.stderr)):
        _train_locked(run, loaded, started, resume=resume, overwrite=overwrite)
    return run


def _train_locked(run: RunFolder, loaded: LoadedConfig, started: float, *, resume: bool, overwrite: bool) -> None:
    config, is_new = loaded.experiment, not run.config.exists()
    logging = config.globals.visualization_logging
    announce = Announcer(level=logging.log_level, bars=not logging.no_pbar, log=run.log)
    previous = checkpoint_to_go_on_from(run, config, announce, resume=resume, overwrite=overwrite)
    try:
        prepared = prepare(config, announce)
    except BaseException:
        if is_new:  # nothing was trained: leave nothing behind
            shutil.rmtree(run.path, ignore_errors=True)
        raise
    if previous is not None:
        check_same_data_and_model(run, prepared, announce)
    elif not is_new:
        clear(run)
    try:
        _describe_run(run, loaded, prepared)
        Trainer(run, config, prepared, announce, started).run_to_end(previous)
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        raise RunError(
            f"{error.filename or run.path}: cannot be written: {error.strerror}; its checkpoints are intact, --resume goes on"
        ) from error


def _describe_run(run: RunFolder, loaded: LoadedConfig, prepared: Prepared) -> None:
    """Write what the run is before its first step, so that an interrupted run can be read too."""
    model, config = prepared.model, loaded.experiment
    write_text(run.config, to_yaml(config))
    write_text(run.sources, describe(loaded) + "\n")
    write_text(run.tokenizer, prepared.tokenizer.to_json())
    write_text(run.data_report, prepared.report)
    write_text(run.model_text, f"{model}\n")
    write_json(run.split, {"train": prepared.train.image_ids, "valid": prepared.valid.image_ids})
    write_json(run.environment, environment())
    parameters = {
        "all": sum(p.numel() for p in model.parameters()),
        "trained": sum(p.numel() for p in model.parameters() if p.requires_grad),
    }
    write_json(run.facts, {"facts": asdict(prepared.facts), "data": prepared.data, "parameters": parameters})
    run.link_samples(config.output.name)


class Trainer:
    """One sitting of a run: what it holds, and the loop."""

    def __init__(self, run: RunFolder, config: Experiment, prepared: Prepared, announce: Announcer, started: float):
        self.run, self.config, self.prepared, self.announce, self.started = (run, config, prepared, announce, started)
        self.model: CaptionModel = prepared.model
        self.device = self.model.device
        optimization = config.globals.optimization
        factors = {entry.name: entry.model.lr_factor for entry in config.inputs}
        self.optimizer: Optimizer = build_optimizer(self.model, optimization, factors)
        self.average = WeightAverage(self.model, config.globals.model)
        self.accumulate = optimization.gradient_accumulation_steps or 1
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.state = TrainState()
        basic = config.globals.basic_experiment
        self.workers, self.seed = basic.dataloader_workers, basic.seed
        self.batches_of_epoch = [len(self._plan(epoch)) for epoch in range(self._distinct_epochs())]
        self.n_steps = sum(math.ceil(self._n_batches(epoch) / self.accumulate) for epoch in range(basic.n_epochs))
        self.recorder = Recorder(run, config, prepared, announce, self.n_steps)
        self.loss_sum = self.model.loss_sum
        if config.globals.model.compile_model:
            self.loss_sum = torch.compile(self.model.loss_sum, dynamic=True)
        self.saver = Saver(
            run.checkpoints,
            config.globals.evaluation_checkpoint.n_saved_models,
            histories=(run.history_train, run.history_valid),
        )
        self.saved: tuple[int, float | None] | None = None
        self.stop_signal: int | None = None
        self.last_evaluation: tuple[int, float] | None = None
        self.elapsed_before_s = 0.0

    # --- the loop

    def run_to_end(self, previous: checkpoints.Checkpoint | None) -> None:
        """Train from the beginning or from a checkpoint until the last epoch, an early stop or an interruption."""
        if previous is not None:
            self.state = restore(previous, self.model, self.optimizer, self.average)
            self.elapsed_before_s = self.state.elapsed_s
            self.saved = (self.state.step, previous.valid_loss)
            if previous.valid_loss is not None:
                self.last_evaluation = (self.state.step, previous.valid_loss)
            self.announce.say(f"resuming after step {self.state.step} of {self.n_steps}")
        self.recorder.begin(self.state.step, self._rate, evaluated=self.last_evaluation is not None)
        with contextlib.closing(self.recorder):
            with self.saver, self._signals():
                with self.announce.bar("training", self.n_steps, unit="steps") as advance:
                    advance(self.state.step)
                    self._train(advance)
                self._end_with_evaluation_and_checkpoint()
            self.recorder.finish(self.state)

    def _train(self, advance: Callable[..., None]) -> None:
        basic, intervals = self.config.globals.basic_experiment, self.config.globals.evaluation_checkpoint
        state = self.state
        self.model.train()
        while state.epoch < basic.n_epochs and not self._stops_early():
            for batches in self._steps_of_epoch():
                begun = time.perf_counter()
                self.saver.check()
                loss, rate, norm = self._step(batches)
                n_captions = sum(batch.n_captions for batch in batches)
                state.step += 1
                state.batch += len(batches)
                state.captions += n_captions
                took_s = time.perf_counter() - begun
                state.train_time_s += took_s
                self.recorder.step(state, loss, rate, norm, n_captions / took_s)
                advance(1, f"loss {loss:.3f}, {state.captions / state.train_time_s:.0f} captions/s")
                is_last = state.step == self.n_steps
                if state.step % intervals.sample_interval == 0 and not is_last:
                    self._evaluate()
                if intervals.checkpoint_interval and state.step % intervals.checkpoint_interval == 0 and not is_last:
                    self._save()
                self._stop_if_asked()
                if self._stops_early():
                    self.announce.say(
                        f"stopped early at step {state.step}: no lower validation loss in {state.evaluations_since_best} evaluations"
                    )
                    return
            state.epoch, state.batch = state.epoch + 1, 0

    def _step(self, batches: list[Batch]) -> tuple[float, float, float]:
        """Take one optimiser step; return loss (nats per token), learning rate and gradient norm.

        Raises:
            ModelError: if loss or gradient is not finite; the weights are as they were before the step.
        """
        optimization = self.config.globals.optimization
        step = self.state.step + 1
        torch.manual_seed(seed_of("step", self.seed, step))  # dropout and noise are a function of the step
        rate = self._rate(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_factor"]
        n_tokens = sum(batch.target_ids.numel() for batch in batches)
        nats = 0.0
        for batch in batches:
            batch = batch.to(self.device)
            with self._autocast():
                loss = self.loss_sum(batch, label_smoothing=optimization.label_smoothing)
            (loss / n_tokens).backward()
            nats += float(loss.detach())
        if optimization.gradient_noise:
            for p in self.trained:
                if p.grad is not None:
                    p.grad.add_(torch.randn_like(p.grad), alpha=optimization.gradient_noise)
        gradients = [p.grad for p in self.trained if p.grad is not None]
        total_norm = torch.nn.utils.get_total_norm(gradients, foreach=True)
        norm = float(total_norm)
        if 0 < optimization.gradient_clipping < norm:
            torch.nn.utils.clip_grads_with_norm_(self.trained, optimization.gradient_clipping, total_norm, foreach=True)
        if not (math.isfinite(nats) and math.isfinite(norm)):
            ids = [image_id for batch in batches for image_id in batch.image_ids]
            write_json(self.run.path / "not_finite.json", {"step": step, "image_ids": ids})
            raise ModelError(
                f"step {step}: loss {nats / n_tokens} and gradient norm {norm} are not finite; weights are as before the step, its images are in not_finite.json. Lower optimization.lr or look at these images"
            )
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.update(step)
        self.state.train_nats += nats
        self.state.train_tokens += n_tokens
        return nats / n_tokens, rate, norm

    # --- evaluation, checkpoints, ends

    def _evaluate(self) -> float:
        """Measure the validation loss, sample captions, and note what early stopping and plateau go by."""
        state, schedule = self.state, self.config.globals.lr_schedule
        with self.average.applied():
            with self.announce.bar("evaluating", len(self.prepared.valid)) as advance:
                losses = image_losses(
                    self.model,
                    self.prepared.valid,
                    batch_size=self.config.globals.basic_experiment.batch_size,
                    workers=self.workers,
                    autocast=self._autocast,
                    advance=advance,
                )
            loss = losses.per_token
            if not math.isfinite(loss):
                raise ModelError(
                    f"step {state.step}: the validation loss is {loss}; weights that give it are not saved"
                )
            state.elapsed_s = self._elapsed_s()
            self.recorder.evaluation(state, loss, self._rate(max(1, state.step)))
            self.recorder.samples(state.step, self.model)
        self.last_evaluation = (state.step, loss)
        state.train_nats, state.train_tokens = 0.0, 0
        if state.best_loss is None or loss < state.best_loss:
            state.best_loss, state.evaluations_since_best, state.plateau_count = loss, 0, 0
        else:
            state.evaluations_since_best += 1
            state.plateau_count += 1
            if state.plateau_count >= schedule.lr_plateau_patience:
                state.n_falls, state.plateau_count = state.n_falls + 1, 0
        interval = self.config.globals.evaluation_checkpoint.checkpoint_interval
        if state.evaluations_since_best == 0 or interval is None:
            self._save()
        self.model.train()
        return loss

    def _save(self) -> None:
        state = self.state
        state.elapsed_s = self._elapsed_s()
        evaluated = self.last_evaluation
        loss = evaluated[1] if evaluated is not None and evaluated[0] == state.step else None
        if self.saved is not None and self.saved[0] == state.step and (loss is None or self.saved[1] is not None):
            return
        self.recorder.flush()
        training = training_tensors(self.model, self.optimizer, self.average)
        weights = self.model.state_dict() | self.average.tensors
        position = {"position": state.to_json(), "n_steps": self.n_steps, "n_averaged": self.average.n_averaged}
        self.saver.save(state.step, weights, training, position | {"valid_loss": loss})
        self.saved = (state.step, loss)

    def _end_with_evaluation_and_checkpoint(self) -> None:
        """Leave a run that can be used, whatever its intervals were."""
        if self.last_evaluation is None or self.last_evaluation[0] != self.state.step:
            self._evaluate()
        self._save()
        self.saver.wait()
        if self.stop_signal is not None:
            self._stop_if_asked()

    def _stops_early(self) -> bool:
        control = self.config.globals.training_control
        patience, buffer = control.early_stopping_patience, control.early_stopping_buffer or 0
        return bool(patience) and self.state.evaluations_since_best >= patience and self.state.step >= buffer

    def _stop_if_asked(self) -> None:
        limit = self.config.globals.basic_experiment.max_time_s
        out_of_time = limit is not None and time.monotonic() - self.started > limit
        if self.stop_signal is None and not out_of_time:
            return
        self._save()
        self.saver.wait()
        why = f"after {limit:g} s, its time" if out_of_time else f"by {signal.Signals(self.stop_signal or 2).name}"
        code = 128 + self.stop_signal if self.stop_signal else 0
        raise Interrupted(
            code, f"stopped {why}, after step {self.state.step} of {self.n_steps}; all is saved, --resume goes on"
        )

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Turn the first Ctrl-C or SIGTERM into a wish to stop after the step; the second acts at once."""

        def ask(number: int, frame: FrameType | None) -> None:
            self.stop_signal = number
            self.announce.say("finishing this step, then saving; again to exit at once", level="warning")
            for caught in (signal.SIGINT, signal.SIGTERM):
                signal.signal(caught, signal.SIG_DFL)

        try:
            before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:  # not the main thread: whoever runs us handles signals
            yield
            return
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    # --- order

    def _plan(self, epoch: int) -> Plan:
        basic = self.config.globals.basic_experiment
        return training_plan(
            self.prepared.train.captions_of,
            batch_size=basic.batch_size,
            captions_per_image=basic.captions_per_image,
            seed=self.seed,
            epoch=epoch,
        )

    def _distinct_epochs(self) -> int:
        """Return how many epochs' plans may differ in length: one where every image has as many captions."""
        counts = self.prepared.train.captions_of
        same = len({int(n) for n in counts[1:] - counts[:-1]}) == 1
        return 1 if same else self.config.globals.basic_experiment.n_epochs

    def _n_batches(self, epoch: int) -> int:
        return self.batches_of_epoch[min(epoch, len(self.batches_of_epoch) - 1)]

    def _steps_of_epoch(self) -> Iterator[list[Batch]]:
        """Yield the batches of each remaining step of the epoch."""
        plan = self._plan(self.state.epoch)[self.state.batch :]
        gathered: list[Batch] = []
        for place, batch in enumerate(self.prepared.train.batches(plan, epoch=self.state.epoch, workers=self.workers)):
            gathered.append(batch)
            if len(gathered) == self.accumulate or place == len(plan) - 1:
                yield gathered
                gathered = []

    def _rate(self, step: int) -> float:
        options = self.config.globals
        return learning_rate(step, self.n_steps, options.lr_schedule, options.optimization, n_falls=self.state.n_falls)

    def _elapsed_s(self) -> float:
        return self.elapsed_before_s + time.monotonic() - self.started

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        if self.config.globals.accelerator.precision == "bf16-mixed":
            return torch.autocast(self.device.type, torch.bfloat16)
        return contextlib.nullcontext()
