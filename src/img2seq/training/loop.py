"""Train a model, from configuration to a complete run folder. Reads top to bottom.

The position in training is two integers, and all randomness is a function of the seed and that position: the order of
captions (data/order.py), augmentation (data/caption_set.py) and dropout (seeded anew each step, here). A resumed run
therefore needs no generator's state to go on exactly as it would have.

Several processes run this same loop side by side. Each computes its share of every batch; gradients are summed, and
everything that decides what comes next (losses, signals, the clock) is agreed upon, so that all take the same way. Only the
first one writes (training/distributed.py, training/parallel.py).
"""

from __future__ import annotations

import contextlib
import gc
import math
import shutil
import signal
import time
from bisect import bisect_left
from collections.abc import Callable
from contextlib import nullcontext
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from img2seq.build.model import build_model
from img2seq.build.prepare import Prepared, prepare, speed_up
from img2seq.build.trained import load_run
from img2seq.config.causal_lm import CausalLM
from img2seq.config.load import LoadedConfig
from img2seq.config.schema import Experiment
from img2seq.data.seeds import seed_of
from img2seq.errors import ModelError, RunError
from img2seq.inference.from_run import defaults_of
from img2seq.metrics.reward import CaptionReward
from img2seq.model.caption_model import CaptionModel
from img2seq.model.cpu.cores import on_first_core
from img2seq.model.cpu.memory import keep_freed_memory
from img2seq.model.weights import read_tensors
from img2seq.progress import Announcer
from img2seq.run.checkpoint import Checkpoint, best
from img2seq.run.folder import RunFolder
from img2seq.run.lock import locked
from img2seq.run.saver import Saver
from img2seq.run.write import remove_half_written, write_json
from img2seq.training.average import WeightAverage
from img2seq.training.caption_metrics import CaptionScorer
from img2seq.training.describe import describe_run
from img2seq.training.distributed import ALONE, World, joined
from img2seq.training.finish import last_losses
from img2seq.training.interruption import Interrupted, first_signal_to
from img2seq.training.objective import CrossEntropy, Objective
from img2seq.training.optimizer import build_optimizer
from img2seq.training.parallel import (
    batch_statistics,
    gradients_kept_here,
    is_sharded,
    local,
    needs_two_images,
    parallel_loss,
    whole,
)
from img2seq.training.phases import TrainingPhase, apply_to_encoders, phase_of, phases_of, without_cached_features
from img2seq.training.record import NoRecorder, Recorder
from img2seq.training.resume import (
    DISK_ERRORS,
    check_output_folder,
    check_same_data_and_model,
    checkpoint_to_resume,
    clear,
)
from img2seq.training.schedule import learning_rate
from img2seq.training.self_critical import SelfCriticalLoss
from img2seq.training.state import TrainState, position_of, restore, training_tensors
from img2seq.training.validation import Evaluation, image_losses
from img2seq.training.work import Work, WorkPlan


def train(loaded: LoadedConfig, *, resume: bool = False, overwrite: bool = False) -> RunFolder:
    """Train as configured, or resume an interrupted run.

    Raises:
        Img2SeqError: for anything wrong with configuration, data, model or run folder, before training starts.
        Interrupted: after Ctrl-C, SIGTERM or `max_time_s`, when the step is finished and all is saved.
    """
    run = RunFolder(loaded.experiment.globals.basic_experiment.output_folder)
    if resume and overwrite:
        raise RunError(
            f"{run.path}: --resume continues the run, --overwrite removes it and starts again: expected one of them, found both"
        )
    started = time.monotonic()
    keep_freed_memory()
    with joined(loaded.experiment.globals.basic_experiment.device) as world:
        if world.first:
            check_output_folder(run, resume=resume)
        with locked(run, Announcer().warn) if world.first else nullcontext():
            try:
                _train_joined(run, loaded, started, world, resume=resume, overwrite=overwrite)
            except OSError as error:
                if error.errno not in DISK_ERRORS:
                    raise
                raise RunError(
                    f"{error.filename or run.path}: cannot be read or written: {error.strerror}; the run's checkpoints are intact, --resume continues"
                ) from error
    return run


def _train_joined(
    run: RunFolder, loaded: LoadedConfig, started: float, world: World, *, resume: bool, overwrite: bool
) -> None:
    config, is_new = loaded.experiment, world.first and not run.config.exists()
    logging = config.globals.visualization_logging
    announce = Announcer(level="critical", bars=False)  # of all processes the first is heard
    if world.first:
        announce = Announcer(level=logging.log_level, bars=not logging.no_pbar, log=run.log)

    def step_to_resume() -> int:
        found = checkpoint_to_resume(run, config, announce, resume=resume, overwrite=overwrite)
        return -1 if found is None else found.step

    step = world.from_first(step_to_resume)
    previous = Checkpoint(run.checkpoints / f"step-{step:08d}") if step >= 0 else None
    try:
        phases = phases_of(config)
        inputs = phase_of(previous, phases).inputs
        prepared = world.in_turn(lambda: prepare(config, announce, previous, inputs))
        for phase in phases:  # what cannot be trained is said before anything is
            apply_to_encoders(prepared.model, phase)
        parts = (prepared.facts, prepared.data, prepared.train.image_ids, prepared.valid.image_ids)
        world.check_same("facts, captions or images", *map(str, parts))
    except BaseException:
        if is_new:  # nothing was trained: leave nothing behind
            shutil.rmtree(run.path, ignore_errors=True)
        raise
    if world.first:
        if previous is not None:
            check_same_data_and_model(run, prepared, announce)
        elif not is_new:
            clear(run)
        remove_half_written(run.path)
        describe_run(run, loaded, prepared)
    Trainer(run, config, prepared, announce, started, world, previous).run_to_end(previous)


BETTER = {"loss": "lower validation loss", "cider_d": "higher CIDEr-D", "bleu_4": "higher BLEU-4"}


class _Stops(Exception):
    """A signal has come to one of the processes while all were evaluating."""


class Trainer:
    """One process's part in one session of a run: its state, and the training loop."""

    def __init__(
        self,
        run: RunFolder,
        config: Experiment,
        prepared: Prepared,
        announce: Announcer,
        started: float,
        world: World = ALONE,
        previous: Checkpoint | None = None,
    ):
        self.run, self.config, self.prepared, self.announce, self.started = (run, config, prepared, announce, started)
        self.world = world
        self.model: CaptionModel = prepared.model
        self.device = self.model.device
        basic, precision = config.globals.basic_experiment, config.globals.accelerator.precision
        self.workers, self.seed = basic.dataloader_workers, basic.seed
        types = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16, "fp16-mixed": torch.float16}
        self.autocast_to = types.get(str(precision))
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.autocast_to == torch.float16)
        self.phases = phases_of(config)
        self.plans = [self._plan(phase) for phase in self.phases]
        self.n_steps = sum(plan.n_steps for plan in self.plans)  # fewer where a phase is stopped early
        self.state = TrainState() if previous is None else position_of(previous)
        self.loss: nn.Module | None = None
        self._set_up_phase()
        record = Recorder if world.first else NoRecorder
        self.recorder = record(run, config, prepared, announce, self.n_steps)
        self.saver = Saver(
            run.checkpoints,
            config.globals.evaluation_checkpoint.n_saved_models,
            histories=(run.history_train, run.history_valid),
            warn=announce.warn,
        )
        metrics = config.globals.evaluation_checkpoint.caption_metrics
        self.scorer = None if metrics is None else CaptionScorer(metrics, config, prepared, world)
        self.saved: tuple[int, bool] | None = None  # which step, and whether it was evaluated
        self.stop_signal: int | None = None
        self.evaluated_step: int | None = None
        self.last_evaluation: Evaluation | None = None  # of this session
        self.elapsed_before_s = 0.0

    # --- phases

    @property
    def phase(self) -> TrainingPhase:
        return self.phases[self.state.phase]

    @property
    def work(self) -> WorkPlan:
        return self.plans[self.state.phase]

    def _plan(self, phase: TrainingPhase) -> WorkPlan:
        """Return the steps of a phase."""
        options = phase.settings
        apply_to_encoders(self.model, phase)
        plan = WorkPlan(
            self.prepared.train,
            options.basic_experiment,
            options.optimization.gradient_accumulation_steps or 1,
            self.world,
            fewest_images=2 if needs_two_images(self.model) else 1,
            n_samples=options.self_critical.n_samples if phase.objective == "self_critical" else 0,
        )
        if plan.n_joined:
            self.announce.say(
                f"batch normalisation cannot train on a single image of this size: {plan.n_joined} of {plan.n_batches} batches hold "
                "more than batch_size captions, so that none has one image"
            )
        return plan

    def _set_up_phase(self) -> None:
        """Build what a phase trains with; its images are there already."""
        phase, options = self.phase, self.phase.settings
        apply_to_encoders(self.model, phase)
        self.work.data = self.prepared.train
        self.objective: Objective = self._build_objective()
        if self.loss is not None:
            self.loss = None
            gc.collect()  # the processes' exchange of the last phase lets go of the parameters
        self.loss = parallel_loss(  # before the optimiser: it may turn the model's tensors into shards
            self.model,
            self.objective,
            self.world,
            options.accelerator.strategy,
            compiled=options.model.compile_model,
            example=self.work.smallest_batch,
        )
        factors = {f"encoders.{entry.name}.": entry.model.lr_factor for entry in self.config.inputs}
        if isinstance(language_model := self.config.output.model, CausalLM):
            factors["decoder.language_model."] = language_model.lr_factor
        self.optimizer: Optimizer = build_optimizer(self.model, options.optimization, factors)
        self.average = WeightAverage(self.model, options.model)
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.sharded = is_sharded(self.model)
        self.statistics = batch_statistics(self.model.train())

    def _build_objective(self) -> Objective:
        options, data, output = self.phase.settings, self.prepared.train, self.config.output
        if self.phase.objective == "cross_entropy":
            return CrossEntropy(options.optimization.label_smoothing)
        critical = options.self_critical
        reward = CaptionReward(data.captions, bleu_weight=critical.bleu_weight)
        signature = reward.signature(n_samples=critical.n_samples, baseline=critical.baseline)
        self.announce.say(
            f"phase {self.phase.name}: reward {signature}, document frequency of {len(data):,} training images"
        )
        longest = defaults_of(output.output_type_info.max_length, self.prepared.facts.max_length)
        return SelfCriticalLoss(
            critical, data, self.prepared.tokenizer, reward, max_length=longest.get("max_length"), seed=self.seed
        )

    def _enter_phase(self, number: int) -> None:
        """Begin the next phase with the best weights so far."""
        if self.evaluated_step != self.state.step:
            self._evaluate()
        self._save()
        self.saver.wait()
        self.world.wait()  # for the first one to have saved
        self.saver.is_prepared = False  # another optimiser has other tensors
        start = best(self.run.checkpoints)
        self.model.load_state_dict(read_tensors(start.weights))
        self.state.enter_phase(number)
        phase = self.phase
        self.announce.say(f"phase {phase.name} begins at step {self.state.step} with the weights of step {start.step}")
        for encoder in map(self.model.encoder, self.model.encoders):
            encoder.runtime = None  # it has the weights of before
        apply_to_encoders(self.model, phase)
        basic = phase.settings.basic_experiment
        self._use(self.world.in_turn(lambda: self.prepared.with_inputs(phase.inputs, basic, self.announce)))
        self._set_up_phase()

    def _use(self, prepared: Prepared) -> None:
        """Take other images of the same data from now on."""
        self.prepared = self.recorder.sample_writer.prepared = prepared
        if self.scorer is not None:
            self.scorer.valid = prepared.valid

    # --- the loop

    def run_to_end(self, previous: Checkpoint | None) -> None:
        """Train from the beginning or from a checkpoint until the last epoch, an early stop or an interruption."""
        if previous is not None:
            self.state = restore(previous, self.model, self.optimizer, self.average, self.scaler)
            self._check_position(previous)
            self.elapsed_before_s = self.state.elapsed_s
            self.saved = (self.state.step, previous.valid_loss is not None)
            self.evaluated_step = self.state.step if previous.valid_loss is not None else None
            self.announce.say(f"resuming after step {self.state.step} of {self.n_steps}")
        self.recorder.begin(self.state.step, self._planned_rate, evaluated=self.evaluated_step is not None)
        with contextlib.closing(self.recorder):
            if self.evaluated_step is not None and self.world.from_first(self._lacks_samples):
                self._draw(self._whole_model)  # killed after the checkpoint, before its samples were written
            with self.saver, first_signal_to(self._ask_to_stop, others_may_end_us=self.world.size > 1):
                with self.announce.bar("training", self.n_steps, unit="steps") as advance:
                    advance(self.state.step)
                    self._train(advance)
                    while self.state.phase + 1 < len(self.phases):
                        self._enter_phase(self.state.phase + 1)
                        self._train(advance)
                self._end_with_evaluation_and_checkpoint()
            self._write_last_losses()

    def _check_position(self, previous: Checkpoint) -> None:
        """Raise RunError unless the epoch and the batch are those that come after the step.

        Earlier versions had epochs of unequal length where images have unequally many captions: their positions are near.
        """
        step, epoch, batch = self.state.step, self.state.epoch, self.state.batch
        expected = self.state.phase_step + self.work.steps_before(epoch - self.state.phase_epoch, batch)
        if expected == step and batch <= self.work.n_batches:
            return
        if not self.work.has_mixed_groups or abs(step - expected) > step // 10:
            raise RunError(
                f"{previous.path}: not the state of a training run: epoch {epoch}, batch {batch} after step {step}"
            )
        self.announce.warn(
            f"step {step} was reached by an earlier version, whose epochs were not equally long (here it would be {expected}): "
            "the captions of this epoch come in another order than before"
        )

    def _train(self, advance: Callable[..., None]) -> None:
        intervals, state, phase = self.config.globals.evaluation_checkpoint, self.state, self.phase
        last_step = state.phase_step + self.work.n_steps
        last_epoch = state.phase_epoch + phase.settings.basic_experiment.n_epochs
        was_due = 0 < state.step < last_step and state.step % intervals.sample_interval == 0
        is_other = state.step == 0 and self.prepared.began_with is not None  # what it is worth before it is trained
        if (was_due or is_other) and self.evaluated_step is None:
            self._evaluate()  # of what was due, a signal had cut it short
        self.model.train()
        while state.epoch < last_epoch and not self._stops_early():
            for work in self.work.steps(state.epoch, done=state.batch):
                begun = time.perf_counter()
                self.saver.check()
                measured, rate, norm = self._step(work)
                state.step += 1
                state.batch += len(work.batches)
                state.captions += work.n_captions
                took_s = time.perf_counter() - begun
                state.train_time_s += took_s
                self.recorder.step(state, phase, measured, rate, norm, work.n_captions / took_s)
                advance(1, f"{phase.measures} {measured:.3f}, {state.captions / state.train_time_s:.0f} captions/s")
                if self.world.first and not self.sharded and not self.saver.is_prepared:
                    self.saver.prepare(*self._tensors())
                is_last = state.step == last_step
                if state.step % intervals.sample_interval == 0 and not is_last:
                    self._evaluate()
                if intervals.checkpoint_interval and state.step % intervals.checkpoint_interval == 0 and not is_last:
                    self._save()
                self._stop_if_asked()
                if self._stops_early():
                    what = f"phase {phase.name} stopped" if phase.name else "stopped"
                    self.announce.say(
                        f"{what} early at step {state.step}: no {BETTER[intervals.best_by]} in {state.evaluations_since_best} evaluations"
                    )
                    return
            state.epoch, state.batch = state.epoch + 1, 0

    @on_first_core()
    def _step(self, work: Work) -> tuple[float, float, float]:
        """Take one optimiser step; return loss (nats per token) or reward (of a sample), learning rate and gradient norm.

        In float16 a gradient may overflow: then the weights stay as they are, and the next step's loss is scaled less.

        Raises:
            ModelError: if loss or gradient is not finite; the weights are as they were before the step.
        """
        optimization, world, loss_of = self.phase.settings.optimization, self.world, self.loss
        assert loss_of is not None
        step, divisor = self.state.step + 1, self.objective.divisor(work)
        self._set_seed("step", step, world.rank)  # dropout is a function of the step and of who computes it
        rate = self._rate(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_factor"]
        losses: list[Tensor] = []
        for place, (batch, counts) in enumerate(zip(work.batches, work.counts, strict=True), 1):
            packed = self.objective.prepare(self.model, batch, work=work, step=step, counts=counts)
            is_last = place == len(work.batches)
            with nullcontext() if is_last else gradients_kept_here(loss_of):
                with self._autocast():
                    loss = loss_of(packed) * counts
                self.scaler.scale(loss * world.size / divisor).backward()  # gradients are averaged over processes
            losses.append(loss.detach())
        self.scaler.unscale_(self.optimizer)
        if optimization.gradient_noise:
            self._add_noise(step, optimization.gradient_noise)
        gradients = [p.grad for p in self.trained if p.grad is not None]
        total_norm = whole(torch.nn.utils.get_total_norm(gradients, foreach=True))
        *of_batches, norm = torch.stack([*losses, total_norm]).tolist()  # here a GPU is waited for, once a step
        nats = 0.0
        for of_batch in of_batches:  # not `sum`, which rounds otherwise since Python 3.12
            nats += of_batch
        mine, n_measured = self.objective.measured(work, nats)
        measured = world.sum(mine)
        if 0 < optimization.gradient_clipping < norm < math.inf:
            torch.nn.utils.clip_grads_with_norm_(self.trained, optimization.gradient_clipping, total_norm, foreach=True)
        if not math.isfinite(measured) or not (math.isfinite(norm) or self.scaler.get_scale() > 1):
            if world.first:
                write_json(self.run.path / "not_finite.json", {"step": step, "image_ids": work.image_ids})
            raise ModelError(
                f"step {step}: {self.phase.measures} {measured / n_measured} and gradient norm {norm} are not finite; weights are as before the step, its images are in not_finite.json. Lower optimization.lr or look at these images"
            )
        if math.isfinite(norm):
            self.optimizer.step()
            self.average.update(step)
        self.optimizer.zero_grad()
        self.scaler.update()
        world.average_(self.statistics)
        self.state.train_nats += measured
        self.state.train_tokens += n_measured
        return measured / n_measured, rate, norm

    def _add_noise(self, step: int, deviation: float) -> None:
        """Add the same noise to the gradient in all processes, or to each shard its own."""
        self._set_seed("noise", step, self.world.rank if self.sharded else 0)
        for p in self.trained:
            if p.grad is not None:
                gradient = local(p.grad)
                gradient.add_(torch.randn_like(gradient), alpha=deviation)

    def _set_seed(self, what: str, step: int, rank: int) -> None:
        torch.manual_seed(seed_of(what, self.seed, step, *([rank] if rank else [])))

    # --- evaluation, checkpoints, ends

    def _evaluate(self) -> None:
        """Measure the validation loss, sample captions, and note what early stopping and plateau go by.

        Raises:
            Interrupted: after a signal; nothing is noted, and the resumed run evaluates first.
        """
        try:
            self._measure()
        except _Stops:
            self._stop_if_asked()

    def _stop_measuring_if_signalled(self) -> None:
        if self.world.largest(self.stop_signal or 0):
            raise _Stops

    def _measure(self) -> None:
        state, schedule = self.state, self.phase.settings.lr_schedule
        with self.average.applied():
            model = self._whole_model()
            with self.announce.bar("evaluating", len(self.prepared.valid)) as advance:
                losses = image_losses(
                    model,
                    self.prepared.valid,
                    batch_size=self.config.globals.basic_experiment.batch_size,
                    workers=self.workers,
                    world=self.world,
                    autocast=self._autocast,
                    advance=advance,
                    before_batch=self._stop_measuring_if_signalled,
                )
            loss = losses.per_token
            if not math.isfinite(loss):
                raise ModelError(
                    f"step {state.step}: the validation loss is {loss}; weights that give it are not saved"
                )
            scores = self._score_captions(model)
        state.elapsed_s = self._elapsed_s()
        best_by = self.config.globals.evaluation_checkpoint.best_by
        found = self.last_evaluation = Evaluation(state.step, loss, scores, best_by)
        is_best = state.is_better(found)
        rate = self._rate(max(state.phase_step + 1, state.step))
        self.recorder.evaluation(state, self.phase, found, rate, is_best=is_best)
        self.evaluated_step = state.step
        state.train_nats, state.train_tokens = 0.0, 0
        if is_best:
            state.best_loss, state.best_score = loss, scores.get(best_by)
            state.evaluations_since_best, state.plateau_count = 0, 0
        else:
            state.evaluations_since_best += 1
            state.plateau_count += 1
            if state.plateau_count >= schedule.lr_plateau_patience:
                state.n_falls, state.plateau_count = state.n_falls + 1, 0
        interval = self.config.globals.evaluation_checkpoint.checkpoint_interval
        if state.evaluations_since_best == 0 or interval is None:
            self._save()
        self._draw(lambda: model)
        self.model.train()

    def _score_captions(self, model: CaptionModel) -> dict[str, float]:
        """Return the scores of captions of validation images, where the run asks for them."""
        if self.scorer is None:
            return {}
        with self.announce.bar("captioning", len(self.scorer)) as advance:
            return self.scorer.measure(model, advance=advance, before_batch=self._stop_measuring_if_signalled)

    def _draw(self, model: Callable[[], CaptionModel]) -> None:
        """Draw curves and sample captions: after the checkpoint is saved, for no resume reads them."""
        with self.average.applied():
            self.recorder.draw(self.state.step, model())

    def _lacks_samples(self) -> int:
        return int(not self.recorder.has_samples(self.state.step))

    def _save(self) -> None:
        state = self.state
        state.elapsed_s = self._elapsed_s()
        evaluated = self.last_evaluation
        evaluated = evaluated if evaluated is not None and evaluated.step == state.step else None
        if self.saved is not None and self.saved[0] == state.step and (evaluated is None or self.saved[1]):
            return
        self.recorder.flush()
        weights, training = self._tensors()
        saved = {
            "position": state.to_json(),
            "n_steps": self.n_steps,
            "n_averaged": self.average.n_averaged,
            "scaler": self.scaler.state_dict(),
            **({"valid_loss": None} if evaluated is None else evaluated.to_json()),
        }
        if self.world.first:
            self.saver.save(state.step, weights, training, saved)
        self.saved = (state.step, evaluated is not None)

    def _tensors(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the weights to use, and what else a resumed run needs; all processes must ask together."""
        weights = {name: whole(tensor) for name, tensor in (self.model.state_dict() | self.average.tensors).items()}
        return weights, training_tensors(self.model, self.optimizer, self.average)

    def _end_with_evaluation_and_checkpoint(self) -> None:
        """Leave a run that can be used, whatever its intervals were."""
        if self.evaluated_step != self.state.step:
            self._evaluate()
        self._save()
        self.saver.wait()
        if self.world.largest(self.stop_signal or 0):  # all processes meet here: what the first one saved can be read
            self._stop_if_asked()

    def _write_last_losses(self) -> None:
        """Measure the best checkpoint, which runs are compared by."""
        found = load_run(self.run.path, device=str(self.device))
        if any(phase.encoder_stages for phase in self.phases):  # cached features may be those of other weights
            inputs = without_cached_features(self.config.inputs)
            self._use(self.prepared.with_inputs(inputs, self.config.globals.basic_experiment, self.announce))
        losses = last_losses(found.model, self.config, self.prepared, self.announce, self.world)
        self.recorder.finish(self.state, found, losses)

    def _whole_model(self) -> CaptionModel:
        """Return the model to evaluate: the one that is trained, or where its tensors are shards, a whole copy."""
        if not self.sharded:
            return self.model
        model = speed_up(build_model(self.config.inputs, self.config.output, self.prepared.facts)).to(self.device)
        model.load_state_dict({name: whole(tensor) for name, tensor in self.model.state_dict().items()})
        return model

    def _stops_early(self) -> bool:
        control, state = self.phase.settings.training_control, self.state
        patience, buffer = control.early_stopping_patience, control.early_stopping_buffer or 0
        is_over = state.step - state.phase_step >= buffer
        return bool(patience) and state.evaluations_since_best >= patience and is_over

    def _stop_if_asked(self) -> None:
        limit = self.config.globals.basic_experiment.max_time_s
        out_of_time = limit is not None and time.monotonic() - self.started > limit
        asked = self.world.largest(self.stop_signal or int(out_of_time))  # in any process: 0, 1 or a signal's number
        if not asked:
            return
        self._save()
        self.saver.wait()
        self.world.wait()  # the others must not end before all is saved: torchrun would end the first one too
        why = f"by {signal.Signals(asked).name}" if asked > 1 else f"after {limit:g} s, its time"
        code = 128 + asked if asked > 1 else 0
        raise Interrupted(
            code, f"stopped {why}, after step {self.state.step} of {self.n_steps}; all is saved, --resume continues"
        )

    def _ask_to_stop(self, number: int) -> None:
        self.stop_signal = number
        self.announce.say("finishing this step, then saving; again to exit at once", level="warning")

    def _planned_rate(self, step: int) -> float:
        """Return the learning rate of a step where no phase ends early and `plateau` never falls."""
        ends = list(accumulate(plan.n_steps for plan in self.plans))
        place = min(bisect_left(ends, step), len(ends) - 1)
        settings, n_steps = self.phases[place].settings, self.plans[place].n_steps
        return learning_rate(step - ends[place] + n_steps, n_steps, settings.lr_schedule, settings.optimization)

    def _rate(self, step: int) -> float:
        """Return the learning rate of a step of this phase."""
        options, of_phase = self.phase.settings, step - self.state.phase_step
        return learning_rate(
            of_phase, self.work.n_steps, options.lr_schedule, options.optimization, n_falls=self.state.n_falls
        )

    def _elapsed_s(self) -> float:
        return self.elapsed_before_s + time.monotonic() - self.started

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        if self.autocast_to is not None:
            return torch.autocast(self.device.type, self.autocast_to)
        return nullcontext()
