"""The section `globals`: how long, how fast and where to train, what to log and keep."""

from __future__ import annotations

from typing import Literal, Self, TypeVar

from pydantic import Field, ValidationError, model_validator

from img2seq.config.decoding import with_default
from img2seq.config.devices import DEVICE_PATTERN
from img2seq.config.phases import Phase, SelfCritical
from img2seq.config.section import MOST, Section, neutral
from img2seq.errors import shown, shown_all

SectionT = TypeVar("SectionT", bound=Section)

# One line a field reads like the table it is.
# fmt: off


class BasicExperiment(Section):
    output_folder: str = Field(min_length=1, description="The run folder to write. It must not exist, or be given with --resume or --overwrite.")
    n_epochs: int = Field(10, ge=1, le=MOST, description="Passes over the training captions.")
    batch_size: int = Field(64, ge=1, le=1_000_000, description="Captions in a step (not images: see `captions_per_image`).")
    captions_per_image: int = Field(5, ge=1, le=1_000_000, description="Ours. The most captions of one image that go into one step; the image is decoded and encoded once for all of them. An image with more captions comes again in the same epoch with the others.")
    valid_size: float | int = Field(0.1, gt=0, le=MOST, description="Images held out for validation: a whole number is a count, a fraction below 1 a share. The split is by image and follows from `seed`.")
    splits: Literal["from_data", "random", "file"] | None = Field(None, description="Ours. Where the split comes from. from_data: from the captions' own (restval counts as train; without a val part `valid_size` is drawn from train; test is never read by training). random: drawn, whatever the data says. file: `manual_valid_ids_file`. null: the file where one is named, else the data's own where it has one, else drawn.")
    manual_valid_ids_file: str | None = Field(None, description="A text file with one validation ID a line, in place of `valid_size`.")
    dataloader_workers: int = Field(0, ge=0, le=256, description="Threads that decode images and prepare batches beside the training step; 0 does it in line. It never changes what is trained.")
    device: str = Field("cpu", pattern=DEVICE_PATTERN, description="Where to compute: cpu, cuda, cuda:N, mps, or auto (the best one present).")
    memory_dataset: bool = Field(False, description="Hold the decoded pixels in memory rather than in the memory-mapped cache.")
    seed: int = Field(0, ge=0, lt=2**31, description="Ours. Fixes split, order, initial weights, augmentation, dropout and samples.")
    on_bad_data: Literal["error", "skip"] = Field("error", description="Ours. What to do about missing or broken images, captions without an image, empty captions and validation images that stand in training under another ID: stop and list them all, or leave them out and list them.")
    max_broken_share: float = Field(0.01, ge=0, le=1, description="Ours. With on_bad_data: skip, the largest share of an input's images that may be broken and left out; a run with more stops.")
    cache_folder: str | None = Field(None, description="Ours. Where decoded pixels and features are kept between runs; default $IMG2SEQ_CACHE, else ~/.cache/img2seq.")
    max_time_s: float | None = Field(None, gt=0, le=1e10, description="Ours. Stop after this many seconds of wall clock as if interrupted: finish the step, save, exit; --resume continues.")

    @model_validator(mode="after")
    def _valid_size_is_a_share_or_a_count(self) -> Self:
        if isinstance(self.valid_size, float) and not self.valid_size < 1:
            raise ValueError(f"valid_size: a fraction must be below 1, found {self.valid_size}; a count is a whole number")
        return self


class ModelOptions(Section):
    compile_model: bool = Field(False, description="Run the model through torch.compile: slow first steps, faster later ones.")
    n_iter_before_swa: int | None = Field(None, ge=0, le=MOST, description="From this step on, keep the plain average of the weights (SWA); evaluation and saved models use the average.")
    ema_decay: float | None = Field(None, gt=0, lt=1, description="Ours. Keep an exponential moving average of the weights with this decay a step; evaluation and saved models use it.")
    pretrained_checkpoint: str | None = Field(None, description="A run folder, a checkpoint folder or a .safetensors file whose weights training starts from.")
    pretrained_run: str | None = Field(None, description="Ours. A run folder, or a lean export of one, whose encoder, decoder and vocabulary training begins with; words that are new are added (docs/few-photographs.md). What must be as in that run and is not written is taken from it. Its weights replace those of `pretrained_model` and `pretrained_weights`.")
    strict_pretrained_loading: bool = Field(True, description="Whether every tensor of `pretrained_checkpoint` must be present with its shape; false takes those that fit and lists the rest.")

    @model_validator(mode="after")
    def _one_average(self) -> Self:
        if self.ema_decay is not None and self.n_iter_before_swa is not None:
            raise ValueError("ema_decay: cannot be combined with n_iter_before_swa; choose one kind of average")
        return self

    @model_validator(mode="after")
    def _one_beginning(self) -> Self:
        if self.pretrained_run is not None and self.pretrained_checkpoint is not None:
            raise ValueError("pretrained_run: cannot be combined with pretrained_checkpoint; pretrained_run brings a vocabulary with the weights, pretrained_checkpoint weights alone")
        return self


class Optimization(Section):
    optimizer: Literal["adamw", "adam", "sgdm", "adabelief", "adabeliefw"] = Field("adamw", description="adamw and adabeliefw decay weights apart from the gradient, adam, adabelief and sgdm (momentum 0.9) through it.")
    lr: float = Field(3e-4, gt=0, le=1000, description="Highest learning rate.")
    lr_lb: float = Field(0.0, ge=0, le=1000, description="Lowest learning rate: warm-up starts here, cosine and cycle end here, plateau never goes below.")
    b1: float = Field(0.9, ge=0, lt=1, description="Decay of the mean of gradients.")
    b2: float = Field(0.999, ge=0, lt=1, description="Decay of the mean of squared gradients.")
    wd: float = Field(1e-4, ge=0, le=1000, description="Weight decay; only tensors of two or more dimensions are decayed.")
    gradient_clipping: float = Field(1.0, ge=0, le=1e9, description="Largest norm of the whole gradient; 0 does not clip.")
    gradient_accumulation_steps: int | None = Field(None, ge=1, le=10_000, description="Batches whose gradients are gathered before the optimiser steps. The loss is the mean over all their tokens together.")
    gradient_noise: float = Field(0.0, ge=0, le=1000, description="Standard deviation of the Gaussian noise added to every gradient.")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Ours. Share of the target probability spread over the vocabulary while training. Validation losses are never smoothed.")

    @model_validator(mode="after")
    def _lower_bound_is_lower(self) -> Self:
        if self.lr_lb > self.lr:
            raise ValueError(f"lr_lb: expected at most lr ({self.lr}), found {self.lr_lb}")
        return self


class LRSchedule(Section):
    lr_schedule: Literal["cycle", "plateau", "same", "cosine"] = Field("plateau", description="plateau: multiply by `lr_plateau_factor` when the validation loss (or what `best_by` names) has not improved for `lr_plateau_patience` evaluations. cosine: fall from lr to lr_lb over the run. cycle: rise for 30 % of the run, then fall (one cycle). same: constant.")
    lr_plateau_patience: int = Field(10, ge=1, le=MOST, description="Evaluations without improvement before the rate falls.")
    lr_plateau_factor: float = Field(0.2, gt=0, lt=1, description="What the rate is multiplied by when it falls.")
    warmup_steps: Literal["auto"] | int = Field("auto", description="Steps over which the rate rises in a line from lr_lb to lr. auto: 2 / (1 - b2), but at most a twentieth of the run, so that a short run is not all warm-up.")
    plot_lr_schedule: bool = Field(False, description="Draw the learning rate over the whole run to figures/learning_rate.png before training.")

    @model_validator(mode="after")
    def _warmup_is_a_number_of_steps(self) -> Self:
        if isinstance(self.warmup_steps, int) and not 0 <= self.warmup_steps <= MOST:
            raise ValueError(f"warmup_steps: expected 'auto' or 0 to {MOST}, found {shown(self.warmup_steps)}")
        return self


class TrainingControl(Section):
    early_stopping_patience: int = Field(10, ge=0, le=MOST, description="Stop after this many evaluations without a lower validation loss, or a better value of what `best_by` names; 0 never stops early.")
    early_stopping_buffer: int | None = Field(None, ge=0, le=MOST, description="Steps (of a phase) before early stopping may act.")
    weighted_sampling_columns: list[str] | None = neutral(None, "captions have no classes to balance.")
    mixing_alpha: float = neutral(0.0, "two captions cannot be mixed.")


class CaptionMetrics(Section):
    method: Literal["greedy", "beam"] = Field("greedy", description="Ours. How the captions that are scored are searched for; beam takes about as many times longer as it has beams.")
    n_images: int | None = Field(None, ge=1, le=MOST, description="Ours. How many validation images are captioned, chosen by their IDs alone; null is all.")
    beam_size: int = with_default("beam_size", 5, "Ours. Beams of an image.")
    length_penalty: float = with_default("length_penalty", 0.7, "Ours. A caption's score is its log-probability / length ** length_penalty.")
    no_repeat_ngram: int = with_default("no_repeat_ngram", 0, "Ours. No sequence of this many tokens comes twice; 0 is off.")


class EvaluationCheckpoint(Section):
    sample_interval: int = Field(200, ge=1, le=MOST, description="Steps between evaluations with sampled captions. A run also ends with one, whatever the interval.")
    saved_result_detail_level: int = Field(5, ge=1, le=5, description="5 keeps sampled captions and pictures of every evaluation, below 5 only losses.")
    checkpoint_interval: int | None = Field(None, ge=1, le=MOST, description="Steps between saved checkpoints; null saves at every evaluation. A run also ends with a saved one.")
    n_saved_models: int = Field(1, ge=1, le=MOST, description="How many of the best checkpoints to keep, besides the last.")
    best_by: Literal["loss", "cider_d", "bleu_4"] = Field("loss", description="Ours. What the best checkpoint is chosen by, and what early stopping and `plateau` wait for: a lower validation loss, or a higher score of `caption_metrics`.")
    caption_metrics: CaptionMetrics | None = Field(None, description="Ours. Caption validation images at every evaluation, and score the captions as `img2seq evaluate` does: BLEU-4, CIDEr-D and the share of distinct captions; null does not.")

    @model_validator(mode="after")
    def _best_is_measured(self) -> Self:
        if self.best_by != "loss" and self.caption_metrics is None:
            raise ValueError(f"best_by: {self.best_by} needs caption_metrics, such as caption_metrics: {{method: greedy}}")
        return self


class AttributionAnalysis(Section):
    compute_attributions: bool = neutral(False, "attributions are not computed for sequence outputs.")
    max_attributions_per_class: int | None = neutral(None, "attributions are not computed.")
    attributions_every_sample_factor: int = neutral(1, "attributions are not computed.")
    attribution_background_samples: int = neutral(256, "attributions are not computed.")


class VisualizationLogging(Section):
    plot_skip_steps: int = Field(200, ge=0, le=MOST, description="First steps left out of the training curves, where the loss falls too steeply to see the rest; at most a tenth of the run is left out.")
    no_pbar: bool = Field(False, description="Hide the progress bar.")
    log_level: Literal["debug", "info", "warning", "error", "critical"] = Field("info", description="The least severe message that is shown.")
    loggers: list[Literal["wandb", "mlflow"]] = Field([], description="Ours. Other programs that get the figures and sampled captions that TensorBoard and the run folder get: Weights & Biases (offline with WANDB_MODE=offline), MLflow (into the run folder, or to MLFLOW_TRACKING_URI). Needs img2seq[loggers].")
    save_model_diagram: bool = neutral(False, "model.txt in the run folder lists every layer with its parameters.")


class DataPreparation(Section):
    streaming_setup_samples: int = neutral(10000, "data comes from files, not from a stream.")
    streaming_batch_size: int | None = neutral(None, "data comes from files, not from a stream.")


class Accelerator(Section):
    hardware: str = neutral("auto", "`basic_experiment.device` chooses the hardware.")
    precision: Literal["32", 32, "32-true", "bf16-mixed", "16-mixed", "fp16-mixed"] = Field("32-true", description="32 or 32-true: single precision. bf16-mixed: matrix products in bfloat16 (on GPUs that have it; slower on most CPUs). 16-mixed or fp16-mixed: in float16, with the loss scaled so that small gradients are not lost; a step whose gradient overflows is passed over and the scale halved.")
    tf32: bool = Field(True, description="Ours. On NVIDIA GPUs, multiply matrices of single precision in TF32: faster, with mantissas of 10 bits in place of 23. Convolutions are torch's own choice.")
    strategy: Literal["auto", "ddp", "fsdp"] = Field("auto", description="How the processes that torchrun starts hold the model. auto or ddp: each whole, gradients are averaged (DistributedDataParallel). fsdp: each a part of weights, gradients and optimiser state (FSDP2). One process needs neither.")
    devices: int | list[int] | str = neutral("auto", "`torchrun --nproc-per-node` decides how many processes there are, and each takes a device.")
    num_nodes: int = neutral(1, "`torchrun --nnodes` decides how many machines take part.")


class Globals(Section):
    basic_experiment: BasicExperiment
    model: ModelOptions = ModelOptions()
    optimization: Optimization = Optimization()
    lr_schedule: LRSchedule = LRSchedule()
    training_control: TrainingControl = TrainingControl()
    evaluation_checkpoint: EvaluationCheckpoint = EvaluationCheckpoint()
    attribution_analysis: AttributionAnalysis = AttributionAnalysis()
    visualization_logging: VisualizationLogging = VisualizationLogging()
    data_preparation: DataPreparation = DataPreparation()
    accelerator: Accelerator = Accelerator()
    phases: list[Phase] = Field([], description="Ours. Train in phases, one after the other, in one run; each begins with the best weights so far. None: one phase, as the other sections say.")
    self_critical: SelfCritical = SelfCritical()

    @model_validator(mode="after")
    def _phases_fit(self) -> Self:
        names = [phase.name for phase in self.phases]
        if len(set(names)) < len(names):
            raise ValueError(f"phases: expected different names, found {shown_all(names)}")
        for phase in self.phases:
            try:
                self.of_phase(phase)
            except ValidationError as error:
                remedy = "; give this phase an lr_lb" if error.title == "Optimization" and phase.lr_lb is None else ""
                raise ValueError(f"phases: {phase.name}: {error.errors()[0]['ctx']['error']}{remedy}") from None
        if self.phases and self.accelerator.strategy == "fsdp":
            raise ValueError("phases: expected strategy auto or ddp, for a phase changes what is trained; found fsdp")
        return self

    def of_phase(self, phase: Phase) -> Globals:
        """Return the settings that hold in a phase, with no further phases."""
        def with_values(section: SectionT, *names: str) -> SectionT:
            given = {name: value for name in names if (value := getattr(phase, name)) is not None}
            return type(section).model_validate(section.model_dump() | given)

        changed = {
            "basic_experiment": with_values(self.basic_experiment, "n_epochs", "batch_size"),
            "optimization": with_values(self.optimization, "lr", "lr_lb", "label_smoothing"),
            "lr_schedule": with_values(self.lr_schedule, "lr_schedule", "warmup_steps"),
            "training_control": with_values(self.training_control, "early_stopping_patience"),
            "phases": [],
        }
        return self.model_copy(update=changed)
